"""Speed: time the models in turn, compute figures from the samples, and compare two models."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from steps.evaluation.inputs.effort import Effort
from steps.evaluation.inputs.reading import Messages
from steps.evaluation.measure.model_process import ModelProcess
from steps.evaluation.results import Figure, SpeedSample, ThroughputSample
from steps.evaluation.statistics import Interval, interval, paired_worse

_FEWEST_TOKENS = 8  # the time of a shorter answer says more about requests than about decoding


@dataclass(frozen=True)
class Timed:
    """The samples of one model."""

    speed: tuple[SpeedSample, ...]
    throughput: tuple[ThroughputSample, ...]


@dataclass(frozen=True)
class SpeedComparison:
    """The decoding speed of a model against another model's; None where decoding could not be timed."""

    ratio: float | None = None  # median of the repetitions; above 1 if the model is faster
    interval: Interval | None = None
    p: float | None = None  # one-sided: the probability of samples as slow as these if the model is no slower


def prompts_needed(effort: Effort) -> int:
    """Return how many prompts of each length time_models needs: one to cache, one to warm up, and the unseen ones."""
    return 2 + effort.repetitions + effort.requests * len(effort.clients)


def progress_calls(effort: Effort, models: int) -> int:
    """Return how often time_models calls `progress`, at most."""
    return models * (effort.repetitions * len(effort.prompt_lengths) + len(effort.clients))


def time_models(
    processes: Mapping[str, ModelProcess],
    prompts: Sequence[Sequence[Messages]],
    effort: Effort,
    progress: Callable[[], object],
) -> dict[str, Timed]:
    """Time every model with every prompt length, and then the requests that each model answers.

    Args:
        processes: loaded models by label.
        prompts: prompts_needed(effort) prompts of each length.
        progress: called after each sample.
    """
    for process in processes.values():  # the first request of a length may set things up
        for cached, warm_up, *_ in prompts:
            process.time(0, unseen=warm_up, cached=cached, tokens=2)
    speed = _time_in_turn(processes, prompts, effort, progress)
    throughput: dict[str, list[ThroughputSample]] = {label: [] for label in processes}
    for index, clients in enumerate(effort.clients):
        first = 2 + effort.repetitions + index * effort.requests
        unseen = prompts[0][first : first + effort.requests]
        for label, process in processes.items():
            throughput[label].append(process.throughput(unseen, effort.new_tokens, clients))
            progress()
    return {label: Timed(tuple(speed[label]), tuple(throughput[label])) for label in processes}


def _time_in_turn(
    processes: Mapping[str, ModelProcess],
    prompts: Sequence[Sequence[Messages]],
    effort: Effort,
    progress: Callable[[], object],
) -> dict[str, list[SpeedSample]]:
    """Time all models in each repetition, until the effort's repetitions are done or its seconds are over."""
    samples: dict[str, list[SpeedSample]] = {label: [] for label in processes}
    start = time.monotonic()
    for repetition in range(effort.repetitions):
        is_late = time.monotonic() - start > effort.seconds
        if is_late and repetition >= effort.least_repetitions:
            break
        for cached, _, *unseen in prompts:
            for label, process in processes.items():
                samples[label].append(process.time(repetition, unseen[repetition], cached, effort.new_tokens))
                progress()
    return samples


def tpot(sample: SpeedSample) -> float | None:
    """Return the seconds of each output token after the first; None if the answer is too short or not counted."""
    tokens, seconds = sample.new_tokens, sample.cached_answer_s - sample.cached_first_token_s
    return seconds / (tokens - 1) if tokens and tokens >= _FEWEST_TOKENS and seconds > 0 else None


def figures(speed: Sequence[SpeedSample], throughput: Sequence[ThroughputSample]) -> dict[str, Figure]:
    """Return the figures of a model, with 95% intervals of medians; a value is None if the samples do not allow one.

    All but requests_per_s are of the middle prompt length. ttft_ms: the time of an unseen prompt for one token.
    tpot_ms: the time of a cached prompt's answer beyond its first token, over the tokens after the first.
    prefill_tokens_per_s: prompt tokens over the time to the first token. decode_tokens_per_s: one over the tpot.
    requests_per_s_N: with N clients.
    """
    chosen = _middle_length(speed)
    first_token_s = [sample.first_token_s for sample in chosen]
    token_s = [value for sample in chosen if (value := tpot(sample))]
    prefill = [sample.prompt_tokens / sample.first_token_s for sample in chosen if sample.prompt_tokens]
    result = {
        "ttft_ms": Figure(
            value=_quantile(first_token_s, 0.5, 1e3), interval=_interval([1e3 * s for s in first_token_s])
        ),
        "ttft_p95_ms": Figure(value=_quantile(first_token_s, 0.95, 1e3)),
        "tpot_ms": Figure(value=_quantile(token_s, 0.5, 1e3)),
        "tpot_p95_ms": Figure(value=_quantile(token_s, 0.95, 1e3)),
        "prefill_tokens_per_s": Figure(value=_quantile(prefill, 0.5), interval=_interval(prefill)),
        # One over the median, not the median of the rates, so that it agrees with the tpot.
        "decode_tokens_per_s": Figure(
            value=1 / statistics.median(token_s) if token_s else None, interval=_interval([1 / s for s in token_s])
        ),
    }
    for sample in throughput:
        rate = sample.requests / sample.seconds if not sample.failed else None
        result[f"requests_per_s_{sample.clients}"] = Figure(value=rate)
    return result


def _quantile(values: list[float], share: float, scale: float = 1) -> float | None:
    return scale * float(np.quantile(values, share)) if values else None


def _interval(values: list[float]) -> Interval | None:
    return interval(values, np.median)


def compare(model: Sequence[SpeedSample], against: Sequence[SpeedSample]) -> SpeedComparison:
    """Compare two models' decoding by Wilcoxon's test of the samples of the same repetitions and prompt lengths.

    Each repetition counts as one value, the geometric mean over its prompt lengths, so that the values are independent.
    """
    log_ratios = []
    for ours, theirs in zip(_by_repetition(model), _by_repetition(against), strict=False):
        pairs = [(tpot(a), tpot(b)) for a, b in zip(ours, theirs, strict=False)]
        if logs := [np.log(b / a) for a, b in pairs if a and b]:
            log_ratios.append(float(np.mean(logs)))
    if len(log_ratios) < 2:
        return SpeedComparison()
    return SpeedComparison(
        ratio=float(np.exp(np.median(log_ratios))),
        interval=interval([float(np.exp(value)) for value in log_ratios], np.median),
        p=paired_worse([-value for value in log_ratios]),
    )


def _middle_length(samples: Sequence[SpeedSample]) -> list[SpeedSample]:
    groups = list(_by_length(samples))
    return groups[len(groups) // 2] if groups else []


def _by_length(samples: Sequence[SpeedSample]) -> Iterator[list[SpeedSample]]:
    """Yield the samples of each prompt length: the first of every repetition, then the second, and so on."""
    repetitions: dict[int, list[SpeedSample]] = {}
    for sample in samples:
        repetitions.setdefault(sample.repetition, []).append(sample)
    return (list(group) for group in zip(*repetitions.values(), strict=True))


def _by_repetition(samples: Sequence[SpeedSample]) -> list[list[SpeedSample]]:
    return [list(group) for group in zip(*_by_length(samples), strict=True)]
