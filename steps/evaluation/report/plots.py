"""The charts of the report.

Each function takes an evaluation and returns SVG text, or None where there is nothing to draw. A dictionary by model
has the model's position in the evaluation as its key.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from steps.evaluation.metrics import METRICS, REQUESTS_PER_S
from steps.evaluation.report.latency_plots import cost_by_length, latency
from steps.evaluation.report.svg import INK, Chart, colour, draw, labels, marker, plain, scale
from steps.evaluation.results import EvaluatedModel, Evaluation, Histogram, Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DECODE = METRICS["decode_tokens_per_s"]


def quality_metric(evaluation: Evaluation) -> str | None:
    """Return the metric that is drawn against speed.

    It is accuracy, or kl_mean where accuracy is missing or the same for all; None where neither was measured.
    """
    timed = [model for model in evaluation.models if model.value(_DECODE.name)]
    accuracies = [value for model in timed if (value := model.value("accuracy")) is not None]
    divergences = [value for model in timed if (value := model.value("kl_mean")) is not None]
    all_equal = len(divergences) > 1 and len(set(accuracies)) == 1
    if divergences and (all_equal or not accuracies):
        return "kl_mean"
    return "accuracy" if accuracies else None


@dataclass(frozen=True)
class _Point:
    """A model's speed and quality, each with the ends of its bar."""

    speed: float
    speed_bar: Interval
    quality: float
    quality_bar: Interval


def quality_against_speed(evaluation: Evaluation) -> str | None:
    """Draw quality by decode speed. Bars are 95% intervals; for the KL divergence, two standard errors."""
    name = quality_metric(evaluation)
    if name is None:
        return None
    points = {i: point for i, model in enumerate(evaluation.models) if (point := _point(model, name))}
    reference = evaluation.reference.value("accuracy") if name == "accuracy" else None

    def paint(panels: "list[Axes]") -> None:
        (axes,) = panels
        for i, point in points.items():
            _paint_point(axes, i, point)
        if reference is not None:
            _paint_reference(axes, reference)
        axes.margins(0.12)
        scale(axes.xaxis, [value for point in points.values() for value in (point.speed, *point.speed_bar)])
        axes.set_xlabel(_DECODE.label)
        axes.set_ylabel(METRICS[name].label)
        if name == "accuracy":
            axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.4g}%")
        else:
            ends = [end for point in points.values() for end in point.quality_bar]
            top = 1.12 * max(ends) or 1  # all are 0 where each model is the reference itself
            axes.set_ylim(min(0, *ends) - 0.05 * top, top)
            axes.yaxis.set_major_formatter(lambda value, _: plain(value))

    chart = Chart("quality_against_speed", "Quality against decode speed", labels(evaluation, points))
    return draw(chart, paint)


def _point(model: EvaluatedModel, quality_name: str) -> _Point | None:
    speed, quality = model.figure(_DECODE.name), model.figure(quality_name)
    if not speed.value or quality.value is None:
        return None
    bar = quality.interval
    if bar is None:
        error = 2 * (quality.standard_error or 0)
        bar = quality.value - error, quality.value + error
    return _Point(speed.value, speed.interval or (speed.value, speed.value), quality.value, bar)


def _paint_point(axes: "Axes", i: int, point: _Point) -> None:
    axes.errorbar(
        point.speed,
        point.quality,
        xerr=_bar(point.speed, point.speed_bar),
        yerr=_bar(point.quality, point.quality_bar),
        color=colour(i),
        marker=marker(i),
        markersize=9,
        elinewidth=1.6,
        capsize=3,
    )


def _bar(value: float, ends: Interval) -> list[list[float]]:
    """Return the lengths of an error bar below and above a value.

    A median may lie outside its interval by a rounding error, and matplotlib refuses a negative length.
    """
    return [[max(0, value - ends[0])], [max(0, ends[1] - value)]]


def _paint_reference(axes: "Axes", accuracy: float) -> None:
    axes.axhline(accuracy, color=INK, linestyle=(0, (4, 3)), linewidth=1)
    axes.annotate("PyTorch", (1, accuracy), (0, 2), ("axes fraction", "data"), "offset points", ha="right", va="bottom")


def kl_histogram(evaluation: Evaluation) -> str | None:
    """Draw the share of the text's tokens by the KL divergence of the model from the reference."""
    histograms = {
        i: model.kl_histogram
        for i, model in enumerate(evaluation.models)
        if model.kl_histogram and sum(model.kl_histogram.counts)
    }
    if not histograms:
        return None

    def paint(panels: "list[Axes]") -> None:
        (axes,) = panels
        for i, histogram in histograms.items():
            total, line = sum(histogram.counts), ("-", "--", "-.", ":")[i % 4]
            shares = [count / total for count in histogram.counts]
            axes.stairs(shares, histogram.edges, color=colour(i), linewidth=1.8, linestyle=line)
            if len(histograms) <= 2:  # the areas of more models hide each other
                axes.stairs(shares, histogram.edges, color=colour(i), fill=True, alpha=0.12)
        filled = [edge for histogram in histograms.values() for edge in _filled_edges(histogram)]
        axes.set_xlim(min(filled) / 2, max(filled) * 2)
        scale(axes.xaxis, filled)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g}%")
        axes.set_xlabel("KL divergence at a token, nats")
        axes.set_ylabel("Share of tokens")

    title = "KL divergence from the reference, token by token"
    return draw(Chart("kl_histogram", title, labels(evaluation, histograms)), paint)


def _filled_edges(histogram: Histogram) -> list[float]:
    """Return the edges of the bins that hold a token."""
    return [edge for n, count in enumerate(histogram.counts) if count for edge in histogram.edges[n : n + 2]]


def throughput(evaluation: Evaluation) -> str | None:
    """Draw the requests answered per second by the number of clients that ask at the same time."""
    lines: dict[int, dict[int, float]] = {}
    for i, model in enumerate(evaluation.models):
        rates = {clients: model.value(metric.name) for clients, metric in REQUESTS_PER_S.items()}
        if line := {clients: rate for clients, rate in rates.items() if rate is not None}:
            lines[i] = line
    if not lines:
        return None

    def paint(panels: "list[Axes]") -> None:
        (axes,) = panels
        for i, line in lines.items():
            axes.plot(list(line), list(line.values()), color=colour(i), marker=marker(i), markersize=7, linewidth=1.8)
        axes.set_xticks(sorted({clients for line in lines.values() for clients in line}))
        axes.set_xlim(left=0)
        rates = [rate for line in lines.values() for rate in line.values()]
        scale(axes.yaxis, rates, 20)
        if axes.get_yscale() == "linear":
            axes.set_ylim(0, 1.1 * max(rates))
        axes.set_xlabel("Clients at the same time")
        axes.set_ylabel("Throughput, requests/s")

    return draw(Chart("throughput", "Throughput by number of clients", labels(evaluation, lines)), paint)


PLOTS: dict[str, Callable[[Evaluation], str | None]] = {
    "quality_against_speed": quality_against_speed,
    "kl_histogram": kl_histogram,
    "latency": latency,
    "throughput": throughput,
    "cost_by_length": cost_by_length,
}
