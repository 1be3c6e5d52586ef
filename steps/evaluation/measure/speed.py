"""Speed: the models in turn, again and again, and the figures of the samples."""

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from steps.evaluation.inputs.effort import Effort
from steps.evaluation.inputs.prompts import Messages
from steps.evaluation.measure.model_process import ModelProcess
from steps.evaluation.statistics import interval, paired_worse

Sample = dict[str, Any]  # of worker.Worker.time, with its `rep`
_FEWEST_DECODED = 8  # an answer of fewer tokens times requests, not decoding


def prompts_needed(effort: Effort) -> int:
    """Prompts of each length that `measure` uses up: a known one, one to warm up, and new ones for everything else."""
    return 2 + effort.repetitions + effort.requests * len(effort.concurrency)


def measure(
    processes: dict[str, ModelProcess],
    prompts: list[list[Messages]],
    effort: Effort,
    progress: Callable[[], object],
) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Time every model with every prompt length, all of them in each repetition; then how many requests each answers.

    Args:
        processes: loaded models, by any key.
        prompts: of each of the effort's lengths, prompts_needed(effort) prompts.
        progress: called for each request or so.

    Returns:
        Key -> `speed`, the samples, and `throughput`.
    """
    found: dict[str, dict[str, list]] = {key: {"speed": [], "throughput": []} for key in processes}
    for process in processes.values():  # the first request of each length may set things up
        for known, warm, *_ in prompts:
            process.call("time", fresh=warm, known=known, tokens=2)
    begin = time.monotonic()
    for rep in range(effort.repetitions):
        late = time.monotonic() - begin > effort.seconds
        if late and rep >= effort.least_repetitions:
            break
        for known, _, *fresh in prompts:
            for key, process in processes.items():
                sample = process.call("time", fresh=fresh[rep], known=known, tokens=effort.new_tokens)
                found[key]["speed"].append({"rep": rep, **sample})
                progress()
    for number, clients in enumerate(effort.concurrency):
        first = 2 + effort.repetitions + number * effort.requests
        for key, process in processes.items():
            asked = prompts[0][first : first + effort.requests]
            sample = process.call("throughput", prompts=asked, tokens=effort.new_tokens, concurrency=clients)
            found[key]["throughput"].append(sample)
            progress()
    return found


def steps(effort: Effort, models: int) -> int:
    """How often `measure` calls `progress`, at most."""
    return models * (effort.repetitions * len(effort.prompt_lengths) + len(effort.concurrency))


def _by_length(samples: list[Sample]) -> Iterator[list[Sample]]:
    """The samples of each prompt length: the n-th of every repetition."""
    reps: dict[int, list[Sample]] = {}
    for sample in samples:
        reps.setdefault(sample["rep"], []).append(sample)
    return (list(group) for group in zip(*reps.values(), strict=True))


def _typical(samples: list[Sample]) -> list[Sample]:
    """Those of the middle prompt length, which the figures of a table are of."""
    groups = list(_by_length(samples))
    return groups[len(groups) // 2] if groups else []


def tpot(sample: Sample) -> float | None:
    """Seconds per output token after the first; None where the answer is too short, or its tokens are not counted."""
    count, seconds = sample["tokens"], sample["whole_s"] - sample["known_s"]
    return seconds / (count - 1) if count and count >= _FEWEST_DECODED and seconds > 0 else None


def figures(speed: list[Sample], throughput: list[dict[str, Any]]) -> tuple[dict[str, float | None], dict[str, Any]]:
    """Metrics of the middle prompt length, and their intervals; None where the samples do not allow one.

    ttft_ms: a request for one token, whose prompt begins as none before it, p50. tpot_ms: the time of an answer beyond
    that of the same request for one token, over its tokens after the first, p50. prefill: prompt tokens over the time
    to the first token. requests_per_s_N: of N clients.
    """
    chosen = _typical(speed)
    ttft = [sample["ttft_s"] for sample in chosen]
    decode = [value for sample in chosen if (value := tpot(sample))]
    prefill = [sample["prompt_tokens"] / sample["ttft_s"] for sample in chosen if sample["prompt_tokens"]]

    def quantile(values: list[float], share: float, scale: float = 1e3) -> float | None:
        return scale * float(np.quantile(values, share)) if values else None

    metrics = {
        "ttft_ms": quantile(ttft, 0.5),
        "ttft_p95_ms": quantile(ttft, 0.95),
        "tpot_ms": quantile(decode, 0.5),
        "tpot_p95_ms": quantile(decode, 0.95),
        "prefill_tokens_per_s": quantile(prefill, 0.5, 1),
        "decode_tokens_per_s": 1 / statistics.median(decode) if decode else None,
    }
    for sample in throughput:
        rate = sample["requests"] / sample["seconds"] if not sample["failed"] else None
        metrics[f"requests_per_s_{sample['concurrency']}"] = rate
    intervals = {
        "ttft_ms": interval([1e3 * value for value in ttft], np.median),
        "decode_tokens_per_s": interval([1 / value for value in decode], np.median),
        "prefill_tokens_per_s": interval(prefill, np.median),
    }
    return metrics, intervals


def compare(model: list[Sample], other: list[Sample]) -> dict[str, Any]:
    """The ratio of decoding speeds, of the same repetitions and prompt lengths, and whether the model is slower.

    Returns:
        `speed_ratio`, the median, with `speed_interval`; `speed_p`, one-sided: how likely such samples are if the model
        is no slower. None where decoding could not be timed. One value a repetition, the geometric mean of its prompt
        lengths, so that they are independent.
    """
    ratios = []
    for own, others in zip(_by_repetition(model), _by_repetition(other), strict=False):
        logs = [np.log(b / a) for x, y in zip(own, others, strict=False) if (a := tpot(x)) and (b := tpot(y))]
        if logs:
            ratios.append(float(np.mean(logs)))
    if len(ratios) < 2:
        return {"speed_ratio": None, "speed_interval": None, "speed_p": None}
    found = interval([float(np.exp(value)) for value in ratios], np.median)
    return {
        "speed_ratio": float(np.exp(np.median(ratios))),
        "speed_interval": found,
        "speed_p": paired_worse([-value for value in ratios]),
    }


def _by_repetition(samples: list[Sample]) -> list[list[Sample]]:
    return [list(group) for group in zip(*_by_length(samples), strict=True)]
