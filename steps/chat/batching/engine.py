"""A loaded model: prompts in, answers out."""

import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
from mlflow.exceptions import MlflowException

from ..api.requests import Sampling
from ..runtime.cpus import usable_cpus
from ..runtime.session import open_session
from ..runtime.tokenizer import Prompts, read_config
from ..settings import Settings
from .answer import Answer
from .sampler import Sampler
from .scheduler import Scheduler
from .text_stream import TextStream


class Engine:
    """One loaded model and the thread that owns it. Any thread may call it."""

    def __init__(self, folder: Path | str, settings: Settings | None = None) -> None:
        """Load a folder with a genai_config.json.

        Raises:
            MlflowException: the execution provider is not there.
        """
        folder, self.settings = Path(folder), settings or Settings()
        self.threads = self.settings.threads or usable_cpus()
        self.prompts = Prompts(folder)
        parallel = self.settings.parallel
        rows = open_session(folder, self.threads, self.settings.provider, 2 * parallel)
        self.context_length = rows.graph.context_length
        self._vocabulary, self._ends = rows.graph.vocab_size, read_config(folder)["model"]["eos_token_id"]
        self._ends = [*np.atleast_1d(self._ends).tolist()]
        self._folder, self._grammars = folder, None
        self._scheduler = Scheduler(rows, self.settings, [] if self.settings.ignore_eos else self._ends)
        self._thread = threading.Thread(target=self._scheduler.run, name="chat-engine", daemon=True)
        self._thread.start()
        # The thread refers to the scheduler alone, so that an engine that nobody holds any more ends it.
        self._finalizer = weakref.finalize(self, _close, self._scheduler, self._thread)

    @property
    def budget(self) -> int:
        """Tokens that the keys and values of all texts together may have."""
        return self._scheduler.memory.budget

    def submit(
        self,
        prompt: list[int],
        sampling: Sampling,
        choice: int = 0,
        strip: bool = True,
        wait: bool = False,
        pieces: bool = True,
    ) -> Answer:
        """Queue a prompt.

        Args:
            choice: the number of this answer, where one request asks for several.
            strip: whether white space at the answer's beginning is dropped.
            wait: for room in the queue, rather than being refused.
            pieces: whether the text is wanted as it is made, or the whole answer only.

        Raises:
            MlflowException: the prompt leaves no room for an answer; its form cannot be followed; the queue is full.
        """
        fits = min(self.context_length, self.budget)
        if len(prompt) >= fits:
            raise MlflowException.invalid_parameter_value(
                f"the prompt has {len(prompt)} tokens; at most {fits - 1} fit, with one left for the answer: shorten it"
                + ("" if fits == self.context_length else ", or raise kv_cache_mb in the model config")
            )
        if not prompt:
            raise MlflowException.invalid_parameter_value("the prompt has no tokens; expected some text")
        sampler = Sampler(sampling, choice, self._guide(sampling))
        text = TextStream(self.prompts.stream(), sampling.stop, strip)
        answer = Answer(prompt, sampling, sampler, text, self.settings.timeout, pieces)
        self._scheduler.put(answer, wait)
        return answer

    def close(self) -> None:
        """End the thread; what is not answered yet fails with one line."""
        self._finalizer()

    def _guide(self, sampling: Sampling) -> Any:
        if sampling.form is None:
            return None
        from .constraint import Grammars  # llguidance, for the few who need it

        self._grammars = self._grammars or Grammars(self._folder, self._vocabulary, self._ends)
        return self._grammars.guide(sampling.form)


def _close(scheduler: Scheduler, thread: threading.Thread) -> None:
    scheduler.close()
    if thread is not threading.current_thread():
        thread.join()
