"""Measure the reference and the models, each in a process of its own: answers, speed, memory, fidelity."""

import dataclasses
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from steps.common.disk import need_space
from steps.common.errors import StepError
from steps.evaluation.inputs.effort import Effort
from steps.evaluation.inputs.evalset import Item
from steps.evaluation.inputs.prompts import Messages
from steps.evaluation.inputs.scored_text import Text
from steps.evaluation.measure import speed
from steps.evaluation.measure.model_process import ModelProcess

MAX_TOKENS = 128
_MEMORY_SHARE = 0.6  # of the free memory that the models' files may have together, to be loaded at the same time

Answer = dict[str, Any]  # of worker.Worker.answer
Ask = Callable[[Messages], Answer]


@dataclass(frozen=True)
class Reference:
    """What PyTorch makes of the checkpoint, and what its tokenizer makes of the text."""

    answers: list[str]
    windows: list[dict[str, Any]]
    prompts: list[list[Messages]]
    logits: Path
    vocabulary: int

    @property
    def targets(self) -> int:
        """Predicted tokens."""
        return sum(len(window["tokens"]) - window["first"] - 1 for window in self.windows)


@dataclass
class Measured:
    """The raw samples of one model; seconds and bytes."""

    endless: bool = False  # whether its answers could be made to go on past their end while it was timed
    size_bytes: int = 0
    load_s: float = 0.0
    first_call_s: float = 0.0
    peak_rss_bytes: int = 0
    speed: list[dict[str, Any]] = field(default_factory=list)
    throughput: list[dict[str, Any]] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    fidelity: np.ndarray | None = None  # see fidelity.token_figures
    missing: str | None = None  # why there is none
    read_per_token: int | None = None


def rounds(effort: Effort, items: int, models: int) -> int:
    """About how often measuring calls `progress`."""
    return items * (1 + models) + speed.steps(effort, models)


def measure_reference(
    folder: Path, items: list[Item], text: Text, effort: Effort, scratch: Path, progress: Callable[[], object]
) -> Reference:
    """Answers in the checkpoint's own type; logits in float32, on disk, since no two models are to be loaded at once.

    Raises:
        StepError: it can't be loaded; the disk has no room for the logits.
    """
    with ModelProcess("the reference", scratch) as process:
        process.call("load_checkpoint", folder=str(folder))
        made = process.call(
            "prepare",
            text=dataclasses.asdict(text),
            tokens=effort.tokens,
            lengths=effort.prompt_lengths,
            room=effort.new_tokens,
            each=speed.prompts_needed(effort),
        )
        answers = []
        for item in items:
            answers.append(process.call("answer", messages=item.messages, max_tokens=MAX_TOKENS))
            progress()
        if failed := next((answer["error"] for answer in answers if "error" in answer), None):
            raise StepError(f"the reference could not be evaluated: {failed}")
        logits = scratch / "reference-logits"
        reference = Reference([a["text"] for a in answers], made["windows"], made["prompts"], logits, 0)
        need_space("the reference's logits", [(scratch, 4 * reference.targets * made["vocabulary"])])
        vocabulary = process.call("write_logits", progress, windows=reference.windows, out=str(logits))
    return dataclasses.replace(reference, vocabulary=vocabulary)


class Models:
    """A process for each model, which finds the model, or downloads it, while something else is measured."""

    def __init__(self, uris: dict[str, str], scratch: Path) -> None:
        """
        Args:
            uris: label -> URI.
        """
        with ExitStack() as stack:  # which ends those that have started if one does not
            self.processes = {label: stack.enter_context(ModelProcess(uri, scratch)) for label, uri in uris.items()}
            self._stack = stack.pop_all()
        pool = ThreadPoolExecutor(len(uris))
        self._sizes = {
            label: pool.submit(process.call, "fetch", uri=process.name) for label, process in self.processes.items()
        }
        pool.shutdown(wait=False)

    def size(self, label: str) -> int:
        """Bytes of a model's files, when it is there.

        Raises:
            StepError: it could not be found.
        """
        return self._sizes[label].result()

    def __enter__(self) -> "Models":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def measure_models(
    models: Models,
    optional: Iterable[str],
    reference: Reference,
    effort: Effort,
    ask: Callable[[str, Ask], list[Answer]],
    scratch: Path,
    progress: Callable[[], object],
) -> tuple[dict[str, Measured], dict[str, str], bool]:
    """Measure every model.

    Args:
        optional: labels of models whose failure is no failure of the evaluation.
        ask: answers the evaluation set by a function that answers one conversation.

    Returns:
        By label what was measured, and why an optional model could not be; whether all were loaded at the same time
        and timed in turn, for which they must fit into memory together.

    Raises:
        StepError: a model failed, or was killed.
    """
    found: dict[str, Measured] = {}
    broken: dict[str, str] = {}
    processes = models.processes
    for label in processes:
        try:
            found[label] = Measured(size_bytes=models.size(label))
        except StepError as error:
            if label not in optional:
                raise
            broken[label] = str(error)
    together = sum(measured.size_bytes for measured in found.values()) < _MEMORY_SHARE * _free_memory()
    for group in [list(found)] if together else [[label] for label in found]:
        loaded = [label for label in group if _load(processes[label], found[label], reference, label, optional, broken)]
        timed = speed.measure({label: processes[label] for label in loaded}, reference.prompts, effort, progress)
        for label in loaded:
            found[label].speed, found[label].throughput = timed[label]["speed"], timed[label]["throughput"]
            found[label].peak_rss_bytes = processes[label].call("peak_memory")
            processes[label].call("unload")  # from here on there is one at a time
        for label in loaded:
            _answer(processes[label], found[label], label, ask)
            _read(processes[label], found[label], reference, scratch / f"{label}.npy", progress)
            processes[label].close()
    return {label: measured for label, measured in found.items() if label not in broken}, broken, together


def _load(
    process: ModelProcess,
    measured: Measured,
    reference: Reference,
    label: str,
    optional: Iterable[str],
    broken: dict[str, str],
) -> bool:
    """Load a model and ask it once; whether it could be."""
    try:
        loaded = process.call("load", endless=True)
        measured.load_s, measured.endless = loaded["load_s"], loaded["endless"]
        first = process.call("answer", messages=reference.prompts[0][0], max_tokens=2)
        if "error" in first:
            raise StepError(f"{process.name} could not be evaluated: {first['error']}")
    except StepError as error:
        if label not in optional:
            raise
        broken[label] = str(error)
        return False
    measured.first_call_s = first["seconds"]
    return True


def _answer(process: ModelProcess, measured: Measured, label: str, ask: Callable[[str, Ask], list[Answer]]) -> None:
    """The evaluation set, by the model as it was logged."""
    process.call("load", endless=False)
    measured.answers = ask(label, lambda messages: process.call("answer", messages=messages, max_tokens=MAX_TOKENS))
    errors = [answer["error"] for answer in measured.answers if "error" in answer]
    if errors and len(errors) == len(measured.answers):
        raise StepError(f"{process.name} could not be evaluated: it fails at every question: {errors[0]}")


def _read(
    process: ModelProcess, measured: Measured, reference: Reference, out: Path, progress: Callable[[], object]
) -> None:
    """The fidelity, where there is a way to the model's logits."""
    if not reference.windows:
        measured.missing = "the text has no two tokens"
        return
    try:
        result = process.call(
            "fidelity",
            progress,
            windows=reference.windows,
            reference=str(reference.logits),
            vocabulary=reference.vocabulary,
            out=str(out),
        )
    except StepError as error:  # the gates on fidelity then fail, and say that it could not be measured
        measured.missing = str(error)
        return
    measured.missing, measured.read_per_token = result["missing"], result["read_per_token"]
    if measured.missing is None:
        measured.fidelity = np.load(out)


def _free_memory() -> int:
    import psutil

    return psutil.virtual_memory().available
