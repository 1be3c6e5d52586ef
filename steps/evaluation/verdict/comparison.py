"""Compare two versions by the user's preference, which is speed, quality or size.

A difference counts only beyond noise: each comparison is a test of paired measurements. Size has no noise.
"""

import math
from dataclasses import dataclass

from steps.evaluation.measure import speed
from steps.evaluation.metrics import METRICS
from steps.evaluation.report.formatting import format_value
from steps.evaluation.results import Figure, Preference
from steps.evaluation.statistics import SIGNIFICANT, mcnemar, mean_worse
from steps.evaluation.summary import Evidence


@dataclass(frozen=True)
class Candidate:
    """An evaluated version, given by the user or the present champion or both."""

    label: str
    version: int | None
    given: bool
    is_champion: bool  # before this decision
    failed_gates: tuple[str, ...]
    figures: dict[str, Figure]
    evidence: Evidence

    def value(self, metric: str) -> float | None:
        """Return the value of a metric; None where it was not measured."""
        return self.figures[metric].value if metric in self.figures else None


@dataclass(frozen=True)
class Comparison:
    """Whether a model is worse than another model beyond noise, and the comparison in words."""

    is_worse: bool
    words: str


def compare(candidate: Candidate, other: Candidate, prefer: Preference) -> Comparison:
    """Compare two models by the preference. A model that can't be compared counts as worse."""
    match prefer:
        case "speed":
            return _compare_speed(candidate, other)
        case "quality":
            return _compare_quality(candidate, other)
        case "size":
            return _compare_size(candidate, other)


def _compare_speed(candidate: Candidate, other: Candidate) -> Comparison:
    """Compare by Wilcoxon's test of the decoding times of the same repetitions."""
    timing = speed.compare(candidate.evidence.speed, other.evidence.speed)
    if timing.p is None:
        return Comparison(True, f"could not be timed against {other.label}")
    is_worse = timing.p < SIGNIFICANT
    words = f"is {'slower' if is_worse else 'no slower'} than {other.label}"
    return Comparison(is_worse, f"{words} ({timing.ratio:.2f}x its decoding, p = {timing.p:.2g})")


def _compare_quality(candidate: Candidate, other: Candidate) -> Comparison:
    """Compare by McNemar's test of the answers, and by the mean of the tokens' likelihoods.

    Each test has half the level, because either of them may show a difference.
    """
    p_answers = mcnemar(candidate.evidence.right, other.evidence.right).p_worse
    p_values, words = [p_answers], f"answers: p = {p_answers:.2g}"
    nll, other_nll = candidate.evidence.nll, other.evidence.nll
    if nll is not None and other_nll is not None and len(nll) == len(other_nll):
        p_values.append(mean_worse(nll - other_nll))
        words += f", likelihood of the text: p = {p_values[-1]:.2g}"
    is_worse = min(p_values) < SIGNIFICANT / 2
    return Comparison(is_worse, f"is {'worse' if is_worse else 'no worse'} than {other.label} ({words})")


def _compare_size(candidate: Candidate, other: Candidate) -> Comparison:
    """Compare by megabytes, which have no noise."""
    is_worse = _or_infinite(candidate.value("size_mb")) > _or_infinite(other.value("size_mb"))
    return Comparison(is_worse, f"has {_against('size_mb', candidate, other)}")


def rank(candidate: Candidate, prefer: Preference) -> tuple[float, ...]:
    """Return a key that sorts the best version first."""
    by_speed = -(candidate.value("decode_tokens_per_s") or 0.0), _or_infinite(candidate.value("ttft_ms"))
    match prefer:
        case "speed":
            return by_speed
        case "quality":
            by_text = _or_infinite(candidate.value("ln_perplexity_ratio"))
            return -(candidate.value("accuracy") or 0.0), by_text, *by_speed
        case "size":
            return _or_infinite(candidate.value("size_mb")), *by_speed


def _or_infinite(value: float | None) -> float:
    return math.inf if value is None else value


def behind(candidate: Candidate, winner: Candidate, prefer: Preference) -> str:
    """Return by how much a version comes after the winner, in words."""
    match prefer:
        case "quality":
            return f"has an accuracy of {_against('accuracy', candidate, winner)}"
        case "size":
            return f"has {_against('size_mb', candidate, winner)}"
        case "speed":
            if candidate.value("decode_tokens_per_s") is None or winner.value("decode_tokens_per_s") is None:
                return f"comes after {winner.label} by speed"
            return f"decodes {_against('decode_tokens_per_s', candidate, winner)}"


def _against(name: str, candidate: Candidate, other: Candidate) -> str:
    """Return a metric of two versions, such as "50.0 tokens/s against 100 of NAME"."""
    metric = METRICS[name]
    ours, theirs = (
        "an unknown value" if value is None else format_value(metric, value)
        for value in (candidate.value(name), other.value(name))
    )
    unit = f" {metric.unit}" if metric.unit else ""
    return f"{ours}{unit} against {theirs} of {other.label}"
