"""Measure the reference and the models: answers, speed, memory, fidelity.

Invariant: each model has a process of its own, and no two models are in memory at the same time, except while they are
timed in turn. So an error can name the model that crashed or filled the memory, and peak memory belongs to one model.

    time       ------------------------------------------------------------------------------------->
    reference  | answer | logits to disk |
    model A    | fetch                   | load | t   t   t   | unload | load, answer | score |
    model B    | fetch                   | load |   t   t   t | unload |              |       | load, answer | score |
                                                  timed in turn         one model at a time

In turn, a slow minute of a shared machine slows all models alike, and two models are compared within a repetition.
Models that do not fit into memory together go from `load` to `score` one after the other. They are timed with EOS
ignored, so that their answers have equal lengths. They answer the questions as they were logged, which takes a second
load. Peak memory is read before it, since scoring takes more memory.
A failure of a model ends the evaluation, unless the model is optional: the champion, which is there for comparison.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

import numpy as np

from steps.chat.runtime.reasoning import has_thoughts, is_named_reasoning
from steps.common.disk import need_space
from steps.common.errors import StepError
from steps.evaluation.inputs.effort import Effort
from steps.evaluation.inputs.question import Question
from steps.evaluation.inputs.reading import Messages
from steps.evaluation.inputs.scored_text import TextContent
from steps.evaluation.measure import speed
from steps.evaluation.measure.measured import AnswerRule, Measured, Measurements, Reference
from steps.evaluation.measure.model_process import Answer, ModelProcess
from steps.evaluation.results import Samples

_MEMORY_SHARE = 0.6  # of the free memory that the files of all models may fill for the models to be loaded together
_LOGIT_BYTES = 4

Ask = Callable[[Messages], Answer]
_T = TypeVar("_T")


def progress_calls(effort: Effort, questions: int, models: int) -> int:
    """Return about how often measure_reference and measure_models call `progress`."""
    return questions * (1 + models) + speed.progress_calls(effort, models)


@dataclass(frozen=True)
class Checkpoint:
    """The reference's checkpoint."""

    folder: Path
    name: str


def measure_reference(
    checkpoint: Checkpoint,
    questions: Sequence[Question],
    text: TextContent,
    effort: Effort,
    scratch: Path,
    progress: Callable[[], object],
) -> Reference:
    """Measure the checkpoint in PyTorch: answers in the data type of its weights; logits in float32, on disk.

    Raises:
        StepError: the checkpoint cannot be loaded or answers nothing, or the disk has no room for the logits.
    """
    logits = scratch / "reference-logits"
    with ModelProcess("the reference", scratch) as process:
        process.load_checkpoint(checkpoint.folder)
        prompts = speed.prompts_needed(effort)
        prepared = process.prepare(text, effort.tokens, effort.prompt_lengths, effort.new_tokens, prompts)
        thinks = has_thoughts(checkpoint.folder) or is_named_reasoning(checkpoint.name)
        rule = AnswerRule.of(thinks, prepared.opens_thought)
        answers = []
        for question in questions:
            answers.append(rule.apply(process.answer(question.messages, rule.max_tokens)))
            progress()
        if error := next((answer.error for answer in answers if answer.error), None):
            raise StepError(f"the reference could not be evaluated: {error}")
        texts = [answer.text for answer in answers]
        reference = Reference(texts, prepared.windows, prepared.prompts, logits, prepared.vocabulary, rule)
        size = _LOGIT_BYTES * reference.scored_tokens * reference.vocabulary
        need_space("the reference's logits", [(scratch, size)])
        process.write_logits(reference.windows, logits, progress)
    return reference


class Models:
    """A process for each model. It finds or downloads its model while the reference is measured."""

    def __init__(self, uris: Mapping[str, str], optional: Collection[str], scratch: Path) -> None:
        """Start the processes.

        Args:
            uris: the URI of each model by label.
            optional: labels of models whose failure does not fail the evaluation.
            scratch: the folder for temporary files and for the token scores.
        """
        self.optional = optional
        self.scratch = scratch
        with ExitStack() as stack:  # ends the started processes if a later one cannot start
            self.processes = {label: stack.enter_context(ModelProcess(uri, scratch)) for label, uri in uris.items()}
            self._stack = stack.pop_all()
        pool = ThreadPoolExecutor(len(uris))
        self._sizes = {label: pool.submit(process.fetch, process.name) for label, process in self.processes.items()}
        pool.shutdown(wait=False)

    def size(self, label: str) -> int:
        """Wait until a model is there, and return the size of its files in bytes.

        Raises:
            StepError: the model could not be found.
        """
        return self._sizes[label].result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def measure_models(
    models: Models,
    reference: Reference,
    effort: Effort,
    ask: Callable[[str, Ask], list[Answer]],
    progress: Callable[[], object],
) -> Measurements:
    """Measure every model. See the head of this file for the order.

    Args:
        ask: takes the label of a model and a function that answers one conversation; returns the answers to the
            questions.
        progress: called now and then, see progress_calls.

    Raises:
        StepError: a model that is not optional failed, or its process ended.
    """
    measured: dict[str, Measured] = {}
    failures: dict[str, str] = {}
    sizes = _for_each(models, models.processes, models.size, failures)
    interleaved = sum(sizes.values()) < _MEMORY_SHARE * _free_memory()
    for group in [list(sizes)] if interleaved else [[label] for label in sizes]:
        starts = _for_each(models, group, lambda label: _start(models.processes[label], reference), failures)
        processes = {label: models.processes[label] for label in starts}
        timed = speed.time_models(processes, reference.prompts, effort, progress)
        peaks = {label: process.peak_memory() for label, process in processes.items()}
        for process in processes.values():
            process.unload()  # from here on one model is loaded at a time
        for label, process in processes.items():
            answers = _answers(process, label, ask, reference.rule)
            scores = _scores(process, reference, models.scratch / f"{label}.npy", progress)
            process.close()
            measured[label] = Measured(
                size_bytes=sizes[label],
                ignores_eos=starts[label].ignores_eos,
                peak_rss_bytes=peaks[label],
                samples=Samples(
                    load_s=starts[label].load_s,
                    first_call_s=starts[label].first_call_s,
                    speed=timed[label].speed,
                    throughput=timed[label].throughput,
                ),
                answers=answers,
                scores=scores.scores,
                no_fidelity_reason=scores.reason,
                bytes_read_per_token=scores.bytes_read_per_token,
            )
    return Measurements(measured, failures, interleaved)


def _for_each(
    models: Models, labels: Iterable[str], do: Callable[[str], _T], failures: dict[str, str]
) -> dict[str, _T]:
    """Return the result of each model, and add why an optional model has none to the failures.

    Raises:
        StepError: a model that is not optional failed.
    """
    results = {}
    for label in labels:
        try:
            results[label] = do(label)
        except StepError as error:
            if label not in models.optional:
                raise
            failures[label] = str(error)
    return results


@dataclass(frozen=True)
class _Start:
    load_s: float
    ignores_eos: bool
    first_call_s: float


def _start(process: ModelProcess, reference: Reference) -> _Start:
    """Load a model to time it, and ask it once."""
    loaded = process.load(ignore_eos=True)
    first = process.answer(reference.prompts[0][0], max_tokens=2)
    if first.error:
        raise StepError(f"{process.name} could not be evaluated: {first.error}")
    return _Start(loaded.load_s, loaded.ignores_eos, first.seconds)


def _answers(
    process: ModelProcess, label: str, ask: Callable[[str, Ask], list[Answer]], rule: AnswerRule
) -> list[Answer]:
    """Return the answers to the questions, by the model as it was logged."""
    process.load(ignore_eos=False)
    answers = ask(label, lambda messages: rule.apply(process.answer(messages, rule.max_tokens)))
    errors = [answer.error for answer in answers if answer.error]
    if errors and len(errors) == len(answers):
        raise StepError(f"{process.name} could not be evaluated: it fails at every question: {errors[0]}")
    return answers


@dataclass(frozen=True)
class _Scores:
    scores: np.ndarray | None = None
    reason: str | None = None
    bytes_read_per_token: int | None = None


def _scores(process: ModelProcess, reference: Reference, out: Path, progress: Callable[[], object]) -> _Scores:
    """Return the token scores of a model, or why it has none."""
    if not reference.windows:
        return _Scores(reason="the text has fewer than two tokens")
    try:
        logits = reference.logits, reference.vocabulary
        scored = process.score(reference.windows, logits, out, progress)
    except StepError as error:  # the gates on fidelity then fail, and say that it could not be measured
        return _Scores(reason=str(error))
    scores = np.load(out) if scored.reason is None else None
    return _Scores(scores, scored.reason, scored.bytes_read_per_token)


def _free_memory() -> int:
    import psutil

    return psutil.virtual_memory().available
