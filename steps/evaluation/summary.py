"""From what was measured to what evaluation.json says: figures of each model, pairs of models, notable questions."""

import statistics as stats
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from steps.evaluation.inputs.question import Question
from steps.evaluation.measure import fidelity, speed
from steps.evaluation.measure.measured import Measured, Reference
from steps.evaluation.results import Figure, Histogram, JudgedAnswer, NotableQuestion, Pair, SpeedSample
from steps.evaluation.statistics import interval, mcnemar, share_interval

_NOTABLE = 10  # questions in the report


@dataclass(frozen=True)
class ModelFigures:
    """The figures of one model by metric, and the histogram of its KL divergences if its tokens were scored."""

    figures: dict[str, Figure]
    kl_histogram: Histogram | None


@dataclass(frozen=True)
class Evidence:
    """What tests compare two models by."""

    speed: tuple[SpeedSample, ...]
    right: tuple[bool, ...]  # of each question
    nll: np.ndarray | None  # of each scored token


def model_figures(
    measured: Measured, questions: Sequence[Question], reference: Reference, bandwidth: float
) -> ModelFigures:
    """Return the figures of one model. A value is None if the samples do not allow one.

    accuracy: share of right answers. agreement: share of answers with the reference's own text. Memory and size in MB
    (10^6 bytes). bandwidth_share: bytes of the weights that decoding reads in a second, over the memory bandwidth.

    Args:
        bandwidth: of the memory, in bytes a second.
    """
    right = [not mistake for mistake in mistakes(measured, questions)]
    same = [a.text.strip() == b.strip() for a, b in zip(measured.answers, reference.answers, strict=True)]
    timed = speed.figures(measured.samples.speed, measured.samples.throughput)
    decode, read = timed["decode_tokens_per_s"].value, measured.bytes_read_per_token
    figures = {
        "accuracy": _share(right),
        "agreement": _share(same),
        "load_s": Figure(value=measured.samples.load_s),
        "first_call_ms": Figure(value=1e3 * measured.samples.first_call_s),
        **timed,
        "peak_memory_mb": Figure(value=measured.peak_rss_bytes / 1e6),
        "size_mb": Figure(value=measured.size_bytes / 1e6),
        "bandwidth_share": Figure(value=decode * read / bandwidth if decode and read else None),
    }
    if measured.scores is None:
        return ModelFigures(figures, None)
    figures |= fidelity.figures(measured.scores)
    return ModelFigures(figures, fidelity.kl_histogram(measured.scores))


def reference_figures(
    questions: Sequence[Question], reference: Reference, measured: Iterable[Measured]
) -> dict[str, Figure]:
    """Return the accuracy of the reference's answers, and its perplexity if the tokens of any model were scored."""
    right = [not question.mistake(answer) for question, answer in zip(questions, reference.answers, strict=True)]
    nll = next((model.scores[:, fidelity.REFERENCE_NLL] for model in measured if model.scores is not None), None)
    if nll is None:
        return {"accuracy": _share(right), "perplexity": Figure(value=None)}
    ends = interval(nll, lambda samples, axis: np.exp(samples.mean(axis)))
    return {"accuracy": _share(right), "perplexity": Figure(value=float(np.exp(nll.mean())), interval=ends)}


def mistakes(measured: Measured, questions: Sequence[Question]) -> list[str]:
    """Return why each answer is wrong, empty where it is right. A failure of the model is a wrong answer."""
    answers = zip(questions, measured.answers, strict=True)
    return [answer.error or question.mistake(answer.text) for question, answer in answers]


def evidence(measured: Measured, questions: Sequence[Question]) -> Evidence:
    """Return what a model can be compared with other models by."""
    nll = None if measured.scores is None else measured.scores[:, fidelity.NLL]
    right = tuple(not mistake for mistake in mistakes(measured, questions))
    return Evidence(measured.samples.speed, right, nll)


def pairs(evidence_by_label: Mapping[str, Evidence]) -> tuple[Pair, ...]:
    """Compare every pair of models: answers by McNemar's test, decoding speed by Wilcoxon's."""
    return tuple(
        _pair(model, evidence_by_label[model], against, evidence_by_label[against])
        for model, against in combinations(evidence_by_label, 2)
    )


def _pair(model: str, ours: Evidence, against: str, theirs: Evidence) -> Pair:
    changes = [float(a) - float(b) for a, b in zip(ours.right, theirs.right, strict=True)]
    answers, timing = mcnemar(ours.right, theirs.right), speed.compare(ours.speed, theirs.speed)
    return Pair(
        model=model,
        against=against,
        accuracy_difference=stats.fmean(changes),
        accuracy_interval=interval(changes),
        only_model_right=answers.only_model_right,
        only_against_right=answers.only_against_right,
        mcnemar_p=answers.p,
        p_worse=answers.p_worse,
        speed_ratio=timing.ratio,
        speed_interval=timing.interval,
        speed_p=timing.p,
    )


def notable_questions(
    questions: Sequence[Question], reference: Reference, measured_by_label: Mapping[str, Measured]
) -> tuple[NotableQuestion, ...]:
    """Return the questions that are worth a look, at most ten.

    Questions that more models got wrong come first, then questions where more answers differ from the reference's.
    """
    reasons = {label: mistakes(measured, questions) for label, measured in measured_by_label.items()}

    def badness(index: int) -> tuple[int, int]:
        expected = reference.answers[index].strip()
        wrong = sum(bool(mistakes_of_model[index]) for mistakes_of_model in reasons.values())
        return wrong, sum(m.answers[index].text.strip() != expected for m in measured_by_label.values())

    def notable(index: int) -> NotableQuestion:
        question = questions[index]
        answers = {
            label: JudgedAnswer(
                text=measured.answers[index].text, right=not reasons[label][index], mistake=reasons[label][index]
            )
            for label, measured in measured_by_label.items()
        }
        return NotableQuestion(
            question=question.text,
            expected=question.expected_text,
            kind=question.kind,
            reference_answer=reference.answers[index],
            answers=answers,
        )

    worst = sorted(range(len(questions)), key=badness, reverse=True)[:_NOTABLE]
    return tuple(notable(index) for index in worst if any(badness(index)))


def _share(values: Sequence[bool]) -> Figure:
    return Figure(value=stats.fmean(values), interval=share_interval(sum(values), len(values)))
