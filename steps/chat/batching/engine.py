"""A loaded model: prompts in, answers out."""

import os
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow.protos.databricks_pb2 import INVALID_STATE

from ..api.sampling import Sampling
from ..errors import ModelError, refuse_copy
from ..runtime.cpus import usable_cpus
from ..runtime.decoder_session import DecoderSession
from ..runtime.tokenizer import ChatTokenizer
from ..settings import Settings
from .constraint import Constraints
from .generation import Generation
from .sampler import Sampler
from .scheduler import Scheduler
from .text_stream import TextStream
from .thoughts import Thoughts

OpenSession = Callable[[Settings, int], DecoderSession]  # settings, rows -> the loaded decoder


@dataclass(frozen=True)
class Load:
    """What an engine does at the moment."""

    running: int  # generations that have a row of the KV cache
    waiting: int  # generations that wait for a row
    cache_share: float  # tokens of the running generations, of those that the KV cache can hold: 0 to 1


class Engine:
    """A loaded model, and the thread that runs its graph. Any thread of the process that loaded it may call it."""

    __reduce_ex__ = refuse_copy

    def __init__(
        self, folder: Path | str, settings: Settings | None = None, open_session: OpenSession | None = None
    ) -> None:
        """Load a decoder, and the tokenizer and chat template beside it.

        Args:
            folder: with tokenizer.json and the chat template.
            open_session: loads the decoder. None: it is the ONNX graph of the folder, with a genai_config.json.

        Raises:
            MlflowException: the execution provider is not available, or the chat template is not valid Jinja.
        """
        self._process = os.getpid()
        folder, self.settings = Path(folder), settings or Settings()
        self.tokenizer = ChatTokenizer(folder, self.settings.special_tokens_in_text)
        # Twice as many rows as active sequences: the others hold finished sequences for reuse.
        opener = open_session or _onnx_session(folder)
        session = opener(self.settings, 2 * self.settings.parallel)
        self.context_length, self.vocab_size = session.graph.context_length, session.graph.vocab_size
        end_tokens = [*session.graph.end_tokens]
        self.threads = session.threads
        self._thoughts = Thoughts.of(folder, self.tokenizer, self.settings, end_tokens)
        self._constraints = Constraints(folder, session.graph.vocab_size, end_tokens)
        self._scheduler = Scheduler(session, self.settings, [] if self.settings.ignore_eos else end_tokens)
        self._thread = threading.Thread(target=self._scheduler.run, name="chat-engine", daemon=True)
        self._thread.start()
        # The thread refers to the scheduler, and not to the engine. So Python collects an engine that nobody uses any
        # more, and that ends the thread.
        self._finalizer = weakref.finalize(self, _close, self._scheduler, self._thread, self._process)

    @property
    def token_budget(self) -> int:
        """Tokens that the KV cache can hold, all sequences together."""
        return self._scheduler.cache.budget

    @property
    def _longest(self) -> int:
        """Tokens that one sequence can have."""
        return min(self.context_length, self.token_budget)

    def load(self) -> Load:
        """Return what the engine does at the moment. Any thread may ask."""
        active = [*self._scheduler.cache.active]
        used = sum(sequence.size for sequence in active)
        return Load(len(active), self._scheduler.waiting, used / self.token_budget)

    def submit(
        self,
        prompt: list[int],
        sampling: Sampling,
        choice: int = 0,
        chat: bool = True,
        wait: bool = False,
        stream: bool = True,
    ) -> Generation:
        """Queue a prompt, and return the handle of its answer.

        Args:
            prompt: tokens.
            choice: the number of the answer among the `n` answers of a request.
            chat: whether the answer begins a turn of a conversation. Then white space at the beginning of the answer is
                dropped, and the thought of a reasoning model is separated from the answer.
            wait: whether to wait for room when the queue is full.
            stream: whether the caller wants the text piece by piece, and not the whole answer only.

        Raises:
            ModelError: the prompt is empty or leaves no room for an answer, the response format is not supported, a
                token is not in the vocabulary, the queue is full, or another process loaded the model.
        """
        self.check_process()
        self.check_length(prompt, sampling.max_tokens)
        self.check_tokens("prompt", prompt)
        self.check_tokens("logit_bias", [token for token, _ in sampling.logit_bias])
        self.check_tokens("stop_token_ids", sampling.stop_token_ids)
        response_format = sampling.response_format
        constraint = None if response_format is None else self._constraints.compile(response_format)
        if self._thoughts and chat:
            parser = self._thoughts.parser(prompt, self.tokenizer, has_format=constraint is not None)
            most = min(sampling.max_tokens, self._longest - len(prompt))
            sampler = Sampler(sampling, choice, self._thoughts.constraint(parser, most, constraint), prompt)
            text = TextStream(self._thoughts.decoder(self.tokenizer), sampling.stop, chat, parser)
        else:
            sampler = Sampler(sampling, choice, constraint, prompt)
            text = TextStream(self.tokenizer.stream_decoder(continues=not chat), sampling.stop, chat)
        generation = Generation(prompt, sampling, sampler, text, self.settings.effective_timeout(), stream)
        self._scheduler.submit(generation, wait)
        return generation

    def close(self) -> None:
        """End the thread. Answers that are not complete fail."""
        self._finalizer()

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes that a token stands for. They may be a part of a character only."""
        return self._constraints.token_bytes(token)

    def check_process(self) -> None:
        """Raise ModelError if this process is a fork: a fork has the model's memory, and not its thread."""
        if os.getpid() != self._process:
            raise ModelError(
                f"the model was loaded in process {self._process}, and this is its fork {os.getpid()}: load the model "
                "in this process",
                error_code=INVALID_STATE,
            )

    def check_length(self, prompt: list[int], max_tokens: int, name: str = "messages") -> None:
        """Raise ModelError if the prompt is empty, or too long for the context or the KV cache.

        Args:
            prompt: tokens.
            name: the field that it is from.
        """
        if not prompt:
            raise ModelError("the prompt has no tokens; expected some text", param=name)
        limit = self._longest
        if len(prompt) + min(max_tokens, 1) <= limit:
            return
        advice = (
            "shorten it" if limit == self.context_length else "shorten it, or raise kv_cache_mb in the model config"
        )
        raise ModelError(
            f"the prompt has {len(prompt)} tokens; at most {limit - 1} fit, because the answer needs at least one: "
            f"{advice}",
            param=name,
            code="context_length_exceeded",
        )

    def check_tokens(self, name: str, tokens: Sequence[int]) -> None:
        """Raise ModelError if the vocabulary lacks a token.

        Args:
            name: the field that the tokens are from.
        """
        if any(token >= self.vocab_size for token in tokens):
            raise ModelError(
                f"{name} has a token that the model lacks; expected numbers below {self.vocab_size}", param=name
            )


def _onnx_session(folder: Path) -> OpenSession:
    """Return what loads the ONNX graph of a folder."""
    from ..runtime.session import open_session  # here, since models of PyTorch do without ONNX Runtime

    return lambda settings, rows: open_session(folder, settings.threads or usable_cpus(), settings.provider, rows)


def _close(scheduler: Scheduler, thread: threading.Thread, process: int) -> None:
    if os.getpid() != process:  # a fork: the thread is not here, and its locks may be held for ever
        return
    scheduler.close()
    if thread is not threading.current_thread():
        thread.join()
