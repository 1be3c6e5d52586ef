"""The charts of latency: at the middle prompt length, and by the length of the prompt."""

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from steps.evaluation.measure.speed import tpot
from steps.evaluation.report.svg import Chart, colour, draw, labels, marker, scale
from steps.evaluation.results import EvaluatedModel, Evaluation, SpeedSample

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class _Latencies:
    """A model's samples, in milliseconds."""

    ttft: tuple[float, ...]
    tpot: tuple[float, ...]


def latency(evaluation: Evaluation) -> str | None:
    """Draw every sample of TTFT and TPOT at the middle prompt length, with the p50 and the p95 of the tables."""
    samples: dict[int, _Latencies] = {}
    for i, model in enumerate(evaluation.models):
        groups = _by_length(evaluation, model)
        if groups:
            samples[i] = _latencies(groups[sorted(groups)[len(groups) // 2]])
    if not samples:
        return None

    def paint(panels: "list[Axes]") -> None:
        for row, (i, latencies) in enumerate(samples.items()):
            _paint_samples(panels[0], row, i, latencies.ttft)
            _paint_samples(panels[1], row, i, latencies.tpot)
            for axes, title in zip(panels, ("ttft", "tpot"), strict=True):
                for name, sign, size in ((f"{title}_ms", "|", 17), (f"{title}_p95_ms", ">", 8)):
                    if (value := evaluation.models[i].value(name)) is not None:
                        axes.plot(value, row, color=colour(i), marker=sign, markersize=size, markeredgewidth=2)
        for axes in panels:
            axes.set_ylim(len(samples) - 0.4, -0.6)
            axes.set_yticks([])
            axes.grid(False, axis="y")
            axes.spines["left"].set_visible(False)
        scale(panels[0].xaxis, [value for latencies in samples.values() for value in latencies.ttft])
        scale(panels[1].xaxis, [value for latencies in samples.values() for value in latencies.tpot])
        panels[0].set_xlabel("TTFT, time to first token, ms")
        panels[1].set_xlabel("TPOT, time per output token, ms")

    title = "Latency: time to first token, time per output token"
    height = max(3.2, 1.5 + 0.5 * len(samples))
    return draw(Chart("latency", title, labels(evaluation, samples), panels=2, height=height), paint)


def _paint_samples(axes: "Axes", row: int, i: int, values: tuple[float, ...]) -> None:
    """Draw a dot for each sample, scattered around its model's row, so that dots do not hide each other."""
    scattered = [row + 0.5 * ((n * 0.618) % 1 - 0.5) for n in range(len(values))]
    axes.plot(
        values, scattered, color=colour(i), marker=marker(i), linestyle="", markersize=4, alpha=0.5, markeredgewidth=0
    )


@dataclass(frozen=True)
class _Spread:
    """The quartiles of the samples of one prompt length, in milliseconds."""

    length: float  # tokens
    low: float
    middle: float
    high: float


def cost_by_length(evaluation: Evaluation) -> str | None:
    """Draw TTFT and TPOT by the length of the prompt: the median, in the band of the middle half of the samples."""
    curves: dict[int, tuple[list[_Spread], list[_Spread]]] = {}
    for i, model in enumerate(evaluation.models):
        groups = _by_length(evaluation, model)
        if groups:
            curves[i] = _spreads(groups, lambda group: group.ttft), _spreads(groups, lambda group: group.tpot)
    if not curves:
        return None

    ticks = max((spreads[0] for spreads in curves.values()), key=len)  # models count a prompt's tokens alike

    def paint(panels: "list[Axes]") -> None:
        for panel, axes in enumerate(panels):
            for i, spreads in curves.items():
                _paint_curve(axes, i, spreads[panel])
            drawn = [spread for spreads in curves.values() for spread in spreads[panel]]
            scale(axes.xaxis, [spread.length for spread in drawn])
            axes.set_xticks([round(spread.length) for spread in ticks])
            scale(axes.yaxis, [value for spread in drawn for value in (spread.low, spread.middle, spread.high)])
            if axes.get_yscale() == "linear" and drawn:
                axes.set_ylim(0, 1.1 * max(spread.high for spread in drawn))
        panels[0].tick_params(labelbottom=False)
        panels[0].set_ylabel("TTFT, ms")
        panels[1].set_ylabel("TPOT, ms")
        panels[1].set_xlabel("Prompt, tokens")

    chart = Chart("cost_by_length", "Latency by length of the prompt", labels(evaluation, curves), panels=2, height=3.7)
    return draw(chart, paint)


def _paint_curve(axes: "Axes", i: int, spreads: list[_Spread]) -> None:
    lengths = [spread.length for spread in spreads]
    low, high = [spread.low for spread in spreads], [spread.high for spread in spreads]
    middle = [spread.middle for spread in spreads]
    axes.fill_between(lengths, low, high, color=colour(i), alpha=0.2, linewidth=0)
    axes.plot(lengths, middle, color=colour(i), marker=marker(i), markersize=6, linewidth=1.8)


def _by_length(evaluation: Evaluation, model: EvaluatedModel) -> dict[float, list[SpeedSample]]:
    """Return a model's samples by prompt tokens.

    A repetition takes the lengths in turn, so the n-th samples of all repetitions have the same length, give or take a
    token. A model that counts no tokens has the lengths that were asked for.
    """
    repetitions: dict[int, list[SpeedSample]] = {}
    for sample in model.samples.speed:
        repetitions.setdefault(sample.repetition, []).append(sample)
    groups = {}
    for n, wanted in enumerate(evaluation.effort.prompt_lengths):
        group = [samples[n] for samples in repetitions.values() if n < len(samples)]
        counted = [sample.prompt_tokens for sample in group if sample.prompt_tokens is not None]
        if group:
            groups[statistics.median(counted) if counted else float(wanted)] = group
    return groups


def _latencies(samples: Iterable[SpeedSample]) -> _Latencies:
    samples = list(samples)
    return _Latencies(
        ttft=tuple(1e3 * sample.first_token_s for sample in samples),
        tpot=tuple(1e3 * seconds for sample in samples if (seconds := tpot(sample)) is not None),
    )


def _spreads(groups: dict[float, list[SpeedSample]], kind: Callable[[_Latencies], tuple[float, ...]]) -> list[_Spread]:
    """Return the quartiles of TTFT or of TPOT for each prompt length that has samples."""
    return [
        _Spread(length, *_quartiles(values))
        for length in sorted(groups)
        if (values := kind(_latencies(groups[length])))
    ]


def _quartiles(values: tuple[float, ...]) -> tuple[float, float, float]:
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, method="inclusive")
    return low, middle, high
