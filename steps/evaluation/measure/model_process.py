"""The other end of worker.py: a model in a process of its own, with a typed method for each call."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import TypeAdapter, ValidationError

from steps.common.errors import StepError
from steps.evaluation.inputs.reading import Messages
from steps.evaluation.inputs.scored_text import TextContent
from steps.evaluation.inputs.windows import Window
from steps.evaluation.results import SpeedSample, ThroughputSample

_WORKER = Path(__file__).with_name("worker.py")
_T = TypeVar("_T")


@dataclass(frozen=True)
class Answer:
    """One answer of a model. If the model failed, `error` says why and the text is empty."""

    text: str
    prompt_tokens: int | None  # as the model counts them; None if it does not
    completion_tokens: int | None
    seconds: float
    error: str | None = None
    shows_thoughts: bool = False  # whether the text begins where the prompt ends, with a thought if there is one


@dataclass(frozen=True)
class Loaded:
    """How long a model took to load, and whether its answers go on past their end token (EOS)."""

    load_s: float
    ignores_eos: bool


@dataclass(frozen=True)
class Prepared:
    """What the tokenizer of a checkpoint makes of a text."""

    vocabulary: int
    opens_thought: bool  # whether the chat template opens a thought at the end of a prompt
    windows: list[Window]
    prompts: list[list[Messages]]  # of each length


@dataclass(frozen=True)
class Scored:
    """Why a model has no token scores, or None; and the bytes of its weights that decoding a token reads."""

    reason: str | None
    bytes_read_per_token: int | None


class ModelProcess:
    """One worker process. Any thread may call it; calls wait for each other. The process ends with `close`.

    Every call raises StepError if the model fails at it, or if the process ends.
    """

    def __init__(self, name: str, scratch: Path) -> None:
        """Start the process.

        Args:
            name: of the model, for errors.
            scratch: the folder for temporary files.
        """
        self.name = name
        self._folder = scratch / uuid.uuid4().hex
        self._folder.mkdir()
        self._lock = threading.Lock()
        reader, writer = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(_WORKER), str(writer)],
            pass_fds=(writer,),
            cwd=self._folder,
            # Temporary files go with the folder. The model's code may lie in the artifact store: no bytecode there.
            env=os.environ | {"TMPDIR": str(self._folder), "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.PIPE,
            text=True,
        )
        os.close(writer)
        self._results = os.fdopen(reader, encoding="utf-8")

    def fetch(self, uri: str) -> int:
        """Find a logged model, or download it. Return the size of its files in bytes."""
        return self._call(int, "fetch", uri=uri)

    def load(self, ignore_eos: bool) -> Loaded:
        """Load the fetched model. With `ignore_eos`, its answers go on past their end token, if it can."""
        return self._call(Loaded, "load", ignore_eos=ignore_eos)

    def load_checkpoint(self, folder: Path) -> None:
        """Load a checkpoint in PyTorch."""
        self._exchange({"do": "load_checkpoint", "folder": str(folder)})

    def unload(self) -> None:
        """Free the memory of the loaded model."""
        self._exchange({"do": "unload"})

    def answer(self, messages: Messages, max_tokens: int) -> Answer:
        """Return one answer."""
        return self._call(Answer, "answer", messages=messages, max_tokens=max_tokens)

    def time(self, repetition: int, unseen: Messages, cached: Messages, tokens: int) -> SpeedSample:
        """Time an unseen prompt for 1 token, a cached prompt for 1 token, and the cached prompt for `tokens` tokens."""
        arguments: dict[str, Any] = {"repetition": repetition, "unseen": unseen, "cached": cached, "tokens": tokens}
        return self._call(SpeedSample, "time", **arguments)

    def throughput(self, prompts: Sequence[Messages], tokens: int, clients: int) -> ThroughputSample:
        """Time the answers to all prompts for a number of clients at the same time."""
        return self._call(ThroughputSample, "throughput", prompts=prompts, tokens=tokens, clients=clients)

    def peak_memory(self) -> int:
        """Return the largest resident memory that the process had so far, in bytes."""
        return self._call(int, "peak_memory")

    def prepare(self, text: TextContent, tokens: int, lengths: Sequence[int], room: int, prompts: int) -> Prepared:
        """Make windows and prompts with the tokenizer of the loaded checkpoint. See worker.Worker.prepare."""
        arguments: dict[str, Any] = {"tokens": tokens, "lengths": lengths, "room": room, "prompts": prompts}
        return self._call(Prepared, "prepare", text=asdict(text), **arguments)

    def write_logits(self, windows: Sequence[Window], out: Path, progress: Callable[[], object]) -> None:
        """Write the logits of the checkpoint over all windows to a file. See reference_logits.write_logits."""
        rows = [asdict(window) for window in windows]
        self._call(int, "write_logits", progress=progress, windows=rows, out=str(out))

    def score(
        self, windows: Sequence[Window], reference: tuple[Path, int], out: Path, progress: Callable[[], object]
    ) -> Scored:
        """Write the token scores of the fetched model to a .npy file. See reference_logits.score_model."""
        logits, vocabulary = reference
        arguments: dict[str, Any] = {"reference": str(logits), "vocabulary": vocabulary, "out": str(out)}
        rows = [asdict(window) for window in windows]
        return self._call(Scored, "score", progress=progress, windows=rows, **arguments)

    def _call(self, kind: type[_T], do: str, progress: Callable[[], object] = lambda: None, **arguments: Any) -> _T:
        """Call a method of worker.Worker, and return its result as a value of a type.

        Args:
            progress: called whenever the worker reports progress.
        """
        result = self._exchange({"do": do, **arguments}, progress)
        try:
            return TypeAdapter(kind).validate_python(result)
        except ValidationError as error:  # texts and counts come from the model
            first = error.errors(include_url=False)[0]
            field = ".".join(str(part) for part in first["loc"])
            value = f"its {field} is {first['input']!r}: {first['msg']}"
            raise StepError(f"{self.name} could not be evaluated: {value}") from None

    def _exchange(self, call: dict[str, Any], progress: Callable[[], object] = lambda: None) -> Any:
        """Send a call, and return its result as JSON has it."""
        assert self._process.stdin is not None  # it is a pipe
        with self._lock:
            with contextlib.suppress(BrokenPipeError):  # the process has ended: no line follows
                self._process.stdin.write(json.dumps(call) + "\n")
                self._process.stdin.flush()
            for line in self._results:
                content = json.loads(line)
                if "progress" in content:
                    progress()
                elif "error" in content:
                    raise StepError(f"{self.name} could not be evaluated: {content['error']}")
                else:
                    return content["result"]
            end = _exit_text(self._process.wait())
            raise StepError(f"{self.name} could not be evaluated: its process ended with {end}")

    def close(self) -> None:
        """End the process, whatever it does, and remove its temporary files."""
        self._process.kill()
        self._process.wait()
        self._results.close()
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _exit_text(code: int) -> str:
    if code == -signal.SIGKILL:
        return "signal 9 (killed: the machine may be out of memory)"
    return f"signal {-code}" if code < 0 else f"exit code {code}"
