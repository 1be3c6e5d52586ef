"""Promotion by evidence: which version gets the alias `champion`, and why the others don't."""

from dataclasses import dataclass, field
from typing import Any

from steps.evaluation.measure import speed
from steps.evaluation.statistics import SIGNIFICANT, mean_worse

PREFERENCES = ("speed", "quality", "size")


@dataclass(frozen=True)
class Decision:
    """Versions by alias, and a sentence for each model."""

    champion: str | None  # label of the model that the alias is on from now on; None: where it was
    challenger: str | None
    reasons: dict[str, str] = field(default_factory=dict)  # label -> in words
    summary: str = ""


def decide(entries: list[dict[str, Any]], evidence: dict[str, Any], prefer: str) -> Decision:
    """Choose among evaluated versions.

    The best of the given versions that pass every gate takes the alias if there is no champion, if the champion fails
    its gates, or if it is not worse than the champion beyond noise on the preference; a version older than the champion
    only if it is better beyond noise, or two equal ones would take turns. Else the champion stays.

    Args:
        entries: models of evaluation.json that are versions, with `model`, `version`, `given`, `incumbent`,
            `failed_gates` and `metrics`. Of the incumbent, the present champion, there is at most one.
        evidence: label -> what `worse` needs.
        prefer: one of PREFERENCES.
    """
    incumbent = next((entry for entry in entries if entry["incumbent"]), None)
    new = [entry for entry in entries if entry["given"] and not entry["incumbent"]]
    ranked = sorted(new, key=lambda entry: (bool(entry["failed_gates"]), *_order(entry["metrics"], prefer)))
    reasons = {entry["model"]: f"fails: {'; '.join(entry['failed_gates'])}" for entry in new if entry["failed_gates"]}
    passing = [entry for entry in ranked if not entry["failed_gates"]]
    winner, summary = None, ""
    if not new:
        summary = f"{incumbent['model']} stays: no other version was given" if incumbent else "no version was given"
    elif not passing:
        stays = f"; {incumbent['model']} stays" if incumbent else ""
        summary = f"no given version passes every gate{stays}"
    elif incumbent is None:
        winner = passing[0]
        rest = f", the best of {len(passing)} by {prefer}" if len(passing) > 1 else ""
        summary = f"{winner['model']} passes every gate{rest}; there was no champion"
    elif incumbent["failed_gates"]:
        winner = passing[0]
        summary = f"{winner['model']} passes every gate, and the champion until now no longer does"
    else:
        for entry in passing:
            is_worse, words = compare(entry, incumbent, evidence, prefer)
            is_older = (entry["version"] or 0) < (incumbent["version"] or 0)
            if not is_worse and is_older:
                is_worse = not compare(incumbent, entry, evidence, prefer)[0]
                words = f"is older, and {words if is_worse else f'better beyond noise: it {words}'}"
            if not is_worse:
                winner, summary = entry, f"{entry['model']} passes every gate and {words}"
                break
            reasons[entry["model"]] = f"{words}, which is champion"
        if winner is None:
            summary = f"{incumbent['model']} stays: {passing[0]['model']} {reasons[passing[0]['model']]}"
    for entry in passing:
        if winner and entry is not winner and entry["model"] not in reasons:
            reasons[entry["model"]] = f"passes every gate, and {_behind(entry, winner, prefer)}"
    if winner:
        reasons[winner["model"]] = summary
        if incumbent:
            reasons[incumbent["model"]] = f"was champion; {summary}"
    elif incumbent:
        fails = f"champion, and fails: {'; '.join(incumbent['failed_gates'])}" if incumbent["failed_gates"] else ""
        reasons[incumbent["model"]] = fails or summary
    challenger = next((entry["model"] for entry in ranked if entry is not winner), None)
    return Decision(winner["model"] if winner else None, challenger, reasons, summary)


def compare(entry: dict[str, Any], other: dict[str, Any], evidence: dict[str, Any], prefer: str) -> tuple[bool, str]:
    """Whether a model is worse than another beyond noise, and the comparison in words.

    Speed: Wilcoxon's test of the decoding times of the same repetitions. Quality: McNemar's test of the answers, and
    the mean of the tokens' likelihoods, each at half the level, since either may show it. Size: megabytes, without
    noise. What can't be compared counts as worse.

    Args:
        evidence: label -> `speed`, the samples; `right`, of each question; `nll`, of each token, or None.
    """
    own, others, name = evidence[entry["model"]], evidence[other["model"]], other["model"]
    if prefer == "size":
        sizes = entry["metrics"]["size_mb"], other["metrics"]["size_mb"]
        return sizes[0] > sizes[1], f"has {sizes[0]:,.1f} MB against {sizes[1]:,.1f} of {name}"
    if prefer == "speed":
        found = speed.compare(own["speed"], others["speed"])
        if found["speed_p"] is None:
            return True, f"could not be timed against {name}"
        worse = found["speed_p"] < SIGNIFICANT
        verdict = "is slower than" if worse else "is no slower than"
        return worse, f"{verdict} {name} ({found['speed_ratio']:.2f}x its decoding, p = {found['speed_p']:.2g})"
    from steps.evaluation.statistics import mcnemar

    answers = mcnemar(own["right"], others["right"])["p_worse"]
    words = f"answers: p = {answers:.2g}"
    worse = answers < SIGNIFICANT / 2
    if own["nll"] is not None and others["nll"] is not None and len(own["nll"]) == len(others["nll"]):
        likelihood = mean_worse(own["nll"] - others["nll"])
        worse = worse or likelihood < SIGNIFICANT / 2
        words += f", likelihood of the text: p = {likelihood:.2g}"
    return worse, f"{'is worse' if worse else 'is no worse'} than {name} ({words})"


def _order(metrics: dict[str, float | None], prefer: str) -> tuple[float, ...]:
    """The best first."""
    decode = metrics.get("decode_tokens_per_s")
    by_speed = (-(decode or 0.0), metrics.get("ttft_ms") or float("inf"))
    if prefer == "size":
        return metrics["size_mb"], *by_speed
    if prefer == "quality":
        ratio = metrics.get("ln_perplexity_ratio")
        return -metrics["accuracy"], float("inf") if ratio is None else ratio, *by_speed
    return by_speed


def _behind(entry: dict[str, Any], winner: dict[str, Any], prefer: str) -> str:
    """By how much a model comes after the winner on the preference, in words."""
    own, best = entry["metrics"], winner["metrics"]
    if prefer == "size":
        return f"has {own['size_mb']:,.1f} MB against {best['size_mb']:,.1f} of {winner['model']}"
    if prefer == "quality":
        return f"has {own['accuracy']:.1%} right answers against {best['accuracy']:.1%} of {winner['model']}"
    if own.get("decode_tokens_per_s") is None or best.get("decode_tokens_per_s") is None:
        return f"comes after {winner['model']} by speed"
    rates = f"{own['decode_tokens_per_s']:,.0f} tokens/s against {best['decode_tokens_per_s']:,.0f}"
    return f"decodes {rates} of {winner['model']}"
