"""What a report says in words: the verdict, notes on what the tables can't say, and how two models differ."""

from typing import Any

from steps.evaluation.report.formatting import count, decimals, figure, known, p_value, percent, points
from steps.evaluation.statistics import SIGNIFICANT

Evaluation = dict[str, Any]  # as evaluation.json
Model = dict[str, Any]  # one of its models
FIDELITY = ("perplexity", "ln_perplexity_ratio", "kl_mean", "kl_median", "kl_99", "kl_max", "same_top", "rms_dp")


def headline(evaluation: Evaluation) -> str:
    """Which model is the champion, in a sentence."""
    champion = evaluation["champion"]
    name, after = champion.get("name"), champion.get("after")
    label = champion.get("label") or next((model["model"] for model in evaluation["models"] if model["champion"]), None)
    if label:
        return f"{label} is the champion" + (f": version {after} of {name}." if name and after else ".")
    if after:
        return f"Version {after} of {name} stays the champion; it was not evaluated here."
    return "No model is the champion."


def failed_gates(evaluation: Evaluation) -> list[str]:
    """A sentence for each model that failed gates."""
    return [
        f"{model['model']} failed {count(len(model['failed_gates']), 'gate')}: {'; '.join(model['failed_gates'])}."
        for model in evaluation["models"]
        if model.get("failed_gates")
    ]


def all_passed(evaluation: Evaluation) -> str:
    """The sentence where no model failed a gate."""
    if not any(model.get("gates") for model in evaluation["models"]):
        return "There were no gates to pass."
    return "Every gate passed."


def verdict(model: Model) -> str:
    """What became of a model, in a word or two."""
    if model["champion"]:
        return "champion"
    if failed := model.get("failed_gates"):
        return f"failed {count(len(failed), 'gate')}"
    return model.get("alias") or "passed"


def notes(evaluation: Evaluation) -> list[str]:
    """What the tables cannot say in a cell."""
    notes = []
    reference = evaluation["reference"]
    metrics = reference.get("metrics") or {}
    if known(accuracy := metrics.get("accuracy")):
        interval = (reference.get("intervals") or {}).get("accuracy")
        within = f" ({percent(interval[0])} to {percent(interval[1])})" if interval else ""
        notes.append(f"The reference, PyTorch in {reference['dtype']}, is right in {percent(accuracy)}{within}.")
    if known(metrics.get("perplexity")):
        notes.append(f"The reference has a perplexity of {decimals(metrics['perplexity'])}.")
    for model in evaluation["models"]:
        label = model["model"]
        if not any(known(model["metrics"].get(name)) for name in FIDELITY):
            why = model.get("missing") or "no logits, not a model of a kind that evaluate can look into"
            notes.append(f"{label} is not compared with the reference token by token: {why}.")
        if not known(model["metrics"].get("decode_tokens_per_s")):
            notes.append(f"{label}, decode not measured: its answers were too short or too irregular to time.")
        if not model["eos_off"]:
            notes.append(f"{label} may end its answers early: it has no way to switch its end token off.")
        if not model["given"]:
            notes.append(f"{label} was champion already, and was added for comparison.")
        if lost := sum(run.get("failed") or 0 for run in (model.get("samples") or {}).get("throughput") or []):
            notes.append(f"{label} failed to answer {count(lost, 'request')} while throughput was measured.")
    return notes


def pair(entry: dict[str, Any], questions: int) -> dict[str, str]:
    """Two models' difference, in words, with the figures behind them."""
    return {
        "model": entry["model"],
        "against": entry["against"],
        "answers": _answers(entry, questions),
        "answers_detail": _answers_detail(entry),
        "speed": _speed(entry),
        "speed_detail": _speed_detail(entry),
    }


def _answers(entry: dict[str, Any], questions: int) -> str:
    p, difference = entry.get("mcnemar_p"), entry.get("accuracy_difference")
    if not known(p):
        return "not compared"
    if p < SIGNIFICANT and known(difference):
        return f"{'better' if difference > 0 else 'worse'}: p = {p_value(p)}"
    return f"no worse, as far as {count(questions, 'question')} can tell: p = {p_value(p)}"


def _answers_detail(entry: dict[str, Any]) -> str:
    parts, won, lost = [], entry.get("only_model_right"), entry.get("only_against_right")
    if won == lost == 0:
        return "right and wrong on the same questions"
    if known(entry.get("accuracy_difference")):
        interval = entry.get("accuracy_interval")
        within = f" ({points(interval[0])} to {points(interval[1])})" if interval else ""
        parts.append(f"accuracy {points(entry['accuracy_difference'])} points{within}")
    if won is not None and lost is not None:
        parts.append(f"{won:,} right only here, {lost:,} only there")
    return "; ".join(parts)


def _speed(entry: dict[str, Any]) -> str:
    ratio, interval = entry.get("speed_ratio"), entry.get("speed_interval")
    if not ratio:
        return "not compared"
    if interval and interval[0] <= 1 <= interval[1]:
        return f"no difference shown: {figure(ratio)} times as fast in decode"
    if ratio < 1:
        return f"slower: {entry['against']} is {figure(1 / ratio)} times as fast in decode"
    return f"faster: {figure(ratio)} times as fast in decode"


def _speed_detail(entry: dict[str, Any]) -> str:
    interval, p = entry.get("speed_interval"), entry.get("speed_p")
    parts = []
    if interval:
        low, high = sorted(1 / end for end in interval) if interval[1] < 1 else interval
        parts.append(f"95% interval {figure(low)} to {figure(high)}")
    return "; ".join(parts + ([f"one-sided test of slower: p = {p_value(p)}"] if known(p) else []))
