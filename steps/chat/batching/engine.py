"""A loaded model: prompts in, answers out."""

import threading
import weakref
from pathlib import Path

import numpy as np
from mlflow.exceptions import MlflowException

from ..api.requests import Sampling
from ..runtime.cpus import usable_cpus
from ..runtime.session import open_session
from ..runtime.tokenizer import ChatTokenizer, read_config
from ..settings import Settings
from .constraint import Constraints
from .generation import Generation
from .sampler import Sampler
from .scheduler import Scheduler
from .text_stream import TextStream


class Engine:
    """A loaded model, and the thread that runs its graph. Any thread may call it."""

    def __init__(self, folder: Path | str, settings: Settings | None = None) -> None:
        """Load a folder that has a genai_config.json.

        Raises:
            MlflowException: the execution provider is not available.
        """
        folder, self.settings = Path(folder), settings or Settings()
        self.threads = self.settings.threads or usable_cpus()
        self.tokenizer = ChatTokenizer(folder)
        # Twice as many rows as active sequences: the others hold finished sequences for reuse.
        session = open_session(folder, self.threads, self.settings.provider, 2 * self.settings.parallel)
        self.context_length = session.graph.context_length
        end_tokens = np.atleast_1d(read_config(folder)["model"]["eos_token_id"]).tolist()
        self._constraints = Constraints(folder, session.graph.vocab_size, end_tokens)
        self._scheduler = Scheduler(session, self.settings, [] if self.settings.ignore_eos else end_tokens)
        self._thread = threading.Thread(target=self._scheduler.run, name="chat-engine", daemon=True)
        self._thread.start()
        # The thread refers to the scheduler, and not to the engine. So Python collects an engine that nobody uses any
        # more, and that ends the thread.
        self._finalizer = weakref.finalize(self, _close, self._scheduler, self._thread)

    @property
    def token_budget(self) -> int:
        """Tokens that the KV cache can hold, all sequences together."""
        return self._scheduler.cache.budget

    def submit(
        self,
        prompt: list[int],
        sampling: Sampling,
        choice: int = 0,
        strip: bool = True,
        wait: bool = False,
        stream: bool = True,
    ) -> Generation:
        """Queue a prompt, and return the handle of its answer.

        Args:
            prompt: tokens.
            choice: the number of the answer among the `n` answers of a request.
            strip: whether to drop white space at the beginning of the answer.
            wait: whether to wait for room when the queue is full.
            stream: whether the caller wants the text piece by piece, and not the whole answer only.

        Raises:
            MlflowException: the prompt is empty or leaves no room for an answer, the response format is not supported,
                or the queue is full.
        """
        self._check_length(prompt)
        constraint = None if sampling.response_format is None else self._constraints.compile(sampling.response_format)
        sampler = Sampler(sampling, choice, constraint)
        text = TextStream(self.tokenizer.stream_decoder(), sampling.stop, strip)
        generation = Generation(prompt, sampling, sampler, text, self.settings.timeout, stream)
        self._scheduler.submit(generation, wait)
        return generation

    def close(self) -> None:
        """End the thread. Answers that are not complete fail."""
        self._finalizer()

    def _check_length(self, prompt: list[int]) -> None:
        if not prompt:
            raise MlflowException.invalid_parameter_value("the prompt has no tokens; expected some text")
        limit = min(self.context_length, self.token_budget)
        if len(prompt) < limit:
            return
        advice = (
            "shorten it" if limit == self.context_length else "shorten it, or raise kv_cache_mb in the model config"
        )
        raise MlflowException.invalid_parameter_value(
            f"the prompt has {len(prompt)} tokens; at most {limit - 1} fit, because the answer needs at least one: "
            f"{advice}"
        )


def _close(scheduler: Scheduler, thread: threading.Thread) -> None:
    scheduler.close()
    if thread is not threading.current_thread():
        thread.join()
