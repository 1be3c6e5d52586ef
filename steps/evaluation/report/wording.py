"""What a report says in sentences: the verdict, the notes below its tables, and how two models differ."""

from dataclasses import dataclass

from steps.evaluation.metrics import METRICS
from steps.evaluation.report.formatting import count, decimals, format_error, format_value, p_value, points, significant
from steps.evaluation.report.tables import is_compared
from steps.evaluation.results import EvaluatedModel, Evaluation, Pair
from steps.evaluation.statistics import SIGNIFICANT


def verdict_sentence(evaluation: Evaluation) -> str:
    """Return which model is the champion. The sentence has no capital and no full stop, so that it can end a line."""
    champion = evaluation.champion
    name, after = champion.registered_model, champion.version_after
    if champion.label:
        version = f" (version {after} of {name})" if name and after else ""
        as_before = ", as before: no given model passed every gate" if evaluation.is_rejection else ""
        return f"champion: {champion.label}{version}{as_before}"
    if after:
        return f"champion: version {after} of {name}, as before; it could not be evaluated"
    passed = any(not model.failed_gates for model in evaluation.models)
    return f"no champion: no {'registered version' if passed else 'model'} passed every gate"


def failed_gates(evaluation: Evaluation) -> tuple[str, ...]:
    """Return a sentence for each model that failed gates."""
    return tuple(
        f"{model.label} failed {count(len(model.failed_gates), 'gate')}: {'; '.join(model.failed_gates)}."
        for model in evaluation.models
        if model.failed_gates
    )


def notes(evaluation: Evaluation) -> tuple[str, ...]:
    """Return what the cells of the report's tables cannot say, a sentence each."""
    return _notes_on_reference(evaluation) + tuple(note for model in evaluation.models for note in _notes_on(model))


def _notes_on_reference(evaluation: Evaluation) -> tuple[str, ...]:
    reference, notes = evaluation.reference, []
    accuracy, perplexity = reference.figure("accuracy"), reference.value("perplexity")
    if accuracy.value is not None:
        error = format_error(METRICS["accuracy"], accuracy)
        share = format_value(METRICS["accuracy"], accuracy.value) + (f" ({error})" if error else "")
        notes.append(f"The reference, PyTorch in {reference.dtype}, answers {share} of the questions right.")
    if perplexity is not None:
        notes.append(f"The reference has a perplexity of {decimals(perplexity)}.")
    return tuple(notes)


def _notes_on(model: EvaluatedModel) -> tuple[str, ...]:
    label, notes = model.label, []
    if not is_compared(model):
        why = model.no_fidelity_reason or "the reason is unknown"
        notes.append(f"{label} is not compared with the reference token by token: {why}.")
    if model.value("decode_tokens_per_s") is None:
        notes.append(f"{label}, decode not measured: its answers were too short or too irregular to time.")
    if not model.ignores_eos:
        notes.append(f"{label} may end its answers early while it is timed: it cannot ignore its end token.")
    if not model.given:
        notes.append(f"{label} was the champion before this evaluation, and was added for comparison.")
    if lost := sum(sample.failed for sample in model.samples.throughput):
        notes.append(f"{label} failed to answer {count(lost, 'request')} while throughput was measured.")
    return tuple(notes)


@dataclass(frozen=True)
class PairInWords:
    """How two models differ: sentences with the figures behind them."""

    model: str
    against: str
    answers: str
    answers_detail: str
    speed: str
    speed_detail: str


def pair_in_words(pair: Pair, questions: int) -> PairInWords:
    """Return how two models differ.

    Args:
        questions: the number of questions that both answered.
    """
    return PairInWords(
        pair.model, pair.against, _answers(pair, questions), _answers_detail(pair), _speed(pair), _speed_detail(pair)
    )


def _answers(pair: Pair, questions: int) -> str:
    if pair.mcnemar_p < SIGNIFICANT:
        return f"{'better' if pair.accuracy_difference > 0 else 'worse'}: p = {p_value(pair.mcnemar_p)}"
    return f"no worse, as far as {count(questions, 'question')} can tell: p = {p_value(pair.mcnemar_p)}"


def _answers_detail(pair: Pair) -> str:
    if pair.only_model_right == pair.only_against_right == 0:
        return "right and wrong on the same questions"
    within = ""
    if pair.accuracy_interval:
        low, high = pair.accuracy_interval
        within = f" ({points(low)} to {points(high)})"
    difference = f"accuracy {points(pair.accuracy_difference)} points{within}"
    return f"{difference}; {pair.only_model_right:,} right only here, {pair.only_against_right:,} only there"


def _speed(pair: Pair) -> str:
    ratio, interval = pair.speed_ratio, pair.speed_interval
    if not ratio:
        return "not compared"
    if interval and interval[0] <= 1 <= interval[1]:
        return f"no difference shown: {significant(ratio)} times as fast in decode"
    if ratio < 1:
        return f"slower: {pair.against} is {significant(1 / ratio)} times as fast in decode"
    return f"faster: {significant(ratio)} times as fast in decode"


def _speed_detail(pair: Pair) -> str:
    parts = []
    if interval := pair.speed_interval:
        low, high = sorted(1 / end for end in interval) if interval[1] < 1 else interval
        parts.append(f"95% interval {significant(low)} to {significant(high)}")
    if pair.speed_p is not None:
        parts.append(f"one-sided test of slower: p = {p_value(pair.speed_p)}")
    return "; ".join(parts)
