"""From samples to what evaluation.json says of each model, of each pair, and of the worst answers."""

import statistics as stats
from itertools import combinations
from typing import Any

from steps.evaluation.inputs.evalset import Item
from steps.evaluation.measure import fidelity, speed
from steps.evaluation.measure.measuring import Measured, Reference
from steps.evaluation.statistics import Interval, interval, mcnemar, share_interval
from steps.evaluation.verdict.gates import Gate, Metrics

_WORST = 10


def figures(measured: Measured, items: list[Item], reference: Reference, bandwidth: float) -> dict[str, Any]:
    """Metrics of one model, None where the samples do not allow one, with standard errors and 95% intervals.

    accuracy: share of right answers. agreement: share of answers with the reference's own text. Memory and size in MB
    (10^6 bytes). bandwidth_share: bytes that decoding reads of the weights a second, over those that a plain read gets.

    Args:
        bandwidth: bytes a second.
    """
    right = [not mistake for mistake in mistakes(measured, items)]
    same = [a["text"].strip() == b.strip() for a, b in zip(measured.answers, reference.answers, strict=True)]
    timed, intervals = speed.figures(measured.speed, measured.throughput)
    metrics: dict[str, float | None] = {
        "accuracy": stats.fmean(right),
        "agreement": stats.fmean(same),
        "load_s": measured.load_s,
        "first_call_ms": 1e3 * measured.first_call_s,
        **timed,
        "peak_memory_mb": measured.peak_rss_bytes / 1e6,
        "size_mb": measured.size_bytes / 1e6,
        "bandwidth_share": None,
    }
    if timed["decode_tokens_per_s"] and measured.read_per_token:
        metrics["bandwidth_share"] = timed["decode_tokens_per_s"] * measured.read_per_token / bandwidth
    intervals |= {name: share_interval(sum(v), len(v)) for name, v in (("accuracy", right), ("agreement", same))}
    found: dict[str, Any] = {"metrics": metrics, "errors": {}, "intervals": intervals, "kl_histogram": None}
    if measured.fidelity is not None:
        of_text = fidelity.summary(measured.fidelity)
        metrics |= of_text["metrics"]
        found |= {"errors": of_text["errors"], "kl_histogram": of_text["kl_histogram"]}
    return found


def entry(
    label: str,
    facts: dict[str, Any],
    measured: Measured,
    found: dict[str, Any],
    limits: list[Gate],
    of_reference: Metrics,
    of_champion: Metrics | None,
) -> dict[str, Any]:
    """What evaluation.json has of one model.

    Args:
        facts: `uri`, `model_id`, `version`, `given`, `incumbent`, `evaluation_run`.
        found: of `figures`.
        of_champion: the present champion's metrics; None where there is no champion.
    """
    verdicts = [limit.judge(found["metrics"], of_reference, of_champion) for limit in limits]
    return {
        "model": label,
        **facts,
        "eos_off": measured.endless,
        "missing": measured.missing,
        **found,
        "gates": verdicts,
        "failed_gates": [gate["text"] for gate in verdicts if not gate["passed"]],
        "samples": {
            "load_s": measured.load_s,
            "first_call_s": measured.first_call_s,
            "speed": measured.speed,
            "throughput": measured.throughput,
        },
    }


def reference_figures(items: list[Item], reference: Reference, measured: list[Measured]) -> dict[str, Any]:
    """Metrics of the reference: accuracy of its answers, and perplexity, as every comparison with it has it."""
    right = [not item.mistake(answer) for item, answer in zip(items, reference.answers, strict=True)]
    metrics, intervals = {"accuracy": stats.fmean(right), "perplexity": None}, {}
    intervals["accuracy"] = share_interval(sum(right), len(right))
    base = next((m.fidelity[:, 0] for m in measured if m.fidelity is not None), None)
    if base is not None:
        import numpy as np

        metrics["perplexity"] = float(np.exp(base.mean()))
        intervals["perplexity"] = interval(base, lambda part, axis: np.exp(part.mean(axis)))
    return {"metrics": metrics, "intervals": intervals}


def mistakes(measured: Measured, items: list[Item]) -> list[str]:
    """Why each answer is wrong, empty where it is right; a failure is a wrong answer."""
    return [
        answer.get("error") or item.mistake(answer["text"])
        for item, answer in zip(items, measured.answers, strict=True)
    ]


def evidence(measured: Measured, items: list[Item]) -> dict[str, Any]:
    """What promotion.compare needs of a model."""
    nll = None if measured.fidelity is None else measured.fidelity[:, 1]
    return {"speed": measured.speed, "right": [not mistake for mistake in mistakes(measured, items)], "nll": nll}


def comparisons(evidence_of: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Every pair of models: answers by McNemar's test, decoding speed by Wilcoxon's."""
    found = []
    for model, against in combinations(evidence_of, 2):
        own, other = evidence_of[model], evidence_of[against]
        change: list[float] = [float(a) - float(b) for a, b in zip(own["right"], other["right"], strict=True)]
        span: Interval | None = interval(change)
        found.append(
            {
                "model": model,
                "against": against,
                "accuracy_difference": stats.fmean(change),
                "accuracy_interval": span,
                **mcnemar(own["right"], other["right"]),
                **speed.compare(own["speed"], other["speed"]),
            }
        )
    return found


def worst(items: list[Item], reference: Reference, measured: dict[str, Measured]) -> list[dict[str, Any]]:
    """The answers to look at: those that most models got wrong, then those that differ most from the reference's."""
    why = {label: mistakes(one, items) for label, one in measured.items()}

    def badness(index: int) -> tuple[int, int]:
        wrong = sum(bool(found[index]) for found in why.values())
        own = reference.answers[index].strip()
        return wrong, sum(one.answers[index]["text"].strip() != own for one in measured.values())

    order = sorted(range(len(items)), key=badness, reverse=True)
    return [
        {
            "question": items[index].question,
            "expected": items[index].expected_text,
            "kind": items[index].kind,
            "reference": reference.answers[index],
            "answers": {
                label: {
                    "text": one.answers[index]["text"],
                    "right": not why[label][index],
                    "why": why[label][index],
                }
                for label, one in measured.items()
            },
        }
        for index in order[:_WORST]
        if any(badness(index))
    ]
