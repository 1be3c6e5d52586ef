"""What the charts of the report show.

Each function takes the evaluation (evaluation.json) and returns SVG text, or None where there is nothing to draw.
"""

import re
import statistics
from collections.abc import Callable, Iterable
from typing import Any

from steps.evaluation.measure.speed import tpot
from steps.evaluation.report.svg import INK, Drawn, Evaluation, draw, plain, scale, series


def quality_metric(evaluation: Evaluation) -> str | None:
    """What is drawn against speed: accuracy, or kl_mean where accuracy is missing or the same for all."""
    models = [model["metrics"] for model in evaluation["models"] if model["metrics"].get("decode_tokens_per_s")]
    known = {
        name: [metrics[name] for metrics in models if metrics.get(name) is not None] for name in ("accuracy", "kl_mean")
    }
    same = len(known["kl_mean"]) > 1 and len(set(known["accuracy"])) == 1
    return (
        "kl_mean" if known["kl_mean"] and (same or not known["accuracy"]) else "accuracy" if known["accuracy"] else None
    )


def quality_against_speed(evaluation: Evaluation) -> str | None:
    """Quality by decode speed, with 95% intervals (of the KL divergence: two standard errors)."""
    name = quality_metric(evaluation)
    points: Drawn = {}
    for i, model in enumerate(evaluation["models"]):
        x, y = (model["metrics"].get(metric) for metric in ("decode_tokens_per_s", name))
        if x and y is not None:
            intervals = model.get("intervals") or {}
            error = 2 * ((model.get("errors") or {}).get(name) or 0)
            across = intervals.get("decode_tokens_per_s") or (x, x)
            points[i] = x, y, across, (intervals.get(name) or (y, y)) if name == "accuracy" else (y - error, y + error)
    if not points:
        return None
    reference = (evaluation["reference"].get("metrics") or {}).get("accuracy") if name == "accuracy" else None

    def paint(axes: Any) -> None:
        for i, (x, y, across, along) in points.items():
            # A median may lie outside its interval by a rounding error, which matplotlib refuses.
            bars = {
                axis: [[max(0, value - low)], [max(0, high - value)]]
                for axis, value, (low, high) in (("xerr", x, across), ("yerr", y, along))
            }
            axes[0].errorbar(x, y, **bars, **series(i), markersize=9, elinewidth=1.6, capsize=3)
        if reference is not None:
            axes[0].axhline(reference, color=INK, linestyle=(0, (4, 3)), linewidth=1)
            axes[0].annotate(
                "PyTorch", (1, reference), (0, 2), ("axes fraction", "data"), "offset points", ha="right", va="bottom"
            )
        axes[0].margins(0.12)
        scale(axes[0].xaxis, [x for point in points.values() for x in (point[0], *point[2])])
        axes[0].set_xlabel("decode, tokens/s")
        if name == "accuracy":
            axes[0].yaxis.set_major_formatter(lambda value, _: f"{100 * value:.4g}%")
            axes[0].set_ylabel("accuracy")
        else:
            ends = [end for point in points.values() for end in point[3]]
            top = 1.12 * max(ends) or 1  # all 0: the reference itself
            axes[0].set_ylim(min(0, *ends) - 0.05 * top, top)
            axes[0].yaxis.set_major_formatter(lambda value, _: plain(value))
            axes[0].set_ylabel("KL divergence, mean, nats")

    return draw("quality_against_speed", "Quality against decode speed", evaluation, points, paint)


def kl_histogram(evaluation: Evaluation) -> str | None:
    """Share of the text's tokens by the KL divergence of the model from the reference."""
    shares: Drawn = {}
    for i, model in enumerate(evaluation["models"]):
        counts = (model.get("kl_histogram") or {}).get("counts") or []
        if total := sum(counts):
            shares[i] = [count / total for count in counts], model["kl_histogram"]["edges"]
    if not shares:
        return None

    def paint(axes: Any) -> None:
        for i, (heights, edges) in shares.items():
            colour, line = series(i)["color"], ("-", "--", "-.", ":")[i % 4]
            axes[0].stairs(heights, edges, color=colour, linewidth=1.8, linestyle=line)
            if len(shares) <= 2:  # more would be mud
                axes[0].stairs(heights, edges, color=colour, fill=True, alpha=0.12)
        filled = [
            edge
            for heights, edges in shares.values()
            for n, height in enumerate(heights)
            if height
            for edge in edges[n : n + 2]
        ]
        axes[0].set_xlim(min(filled) / 2, max(filled) * 2)
        scale(axes[0].xaxis, filled)
        axes[0].set_ylim(bottom=0)
        axes[0].yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g}%")
        axes[0].set_xlabel("KL divergence at a token, nats")
        axes[0].set_ylabel("share of tokens")

    return draw("kl_histogram", "KL divergence from the reference, token by token", evaluation, shares, paint)


def latency(evaluation: Evaluation) -> str | None:
    """Every sample of TTFT and TPOT at the middle prompt length, which the table's p50 and p95 are of."""
    samples: Drawn = {}
    for i, model in enumerate(evaluation["models"]):
        groups = _by_length(evaluation, model)
        chosen = groups[sorted(groups)[len(groups) // 2]] if groups else []
        values = [_present(map(_ttft_ms, chosen)), _present(map(_tpot_ms, chosen))]
        if any(values):
            samples[i] = values
    if not samples:
        return None

    def paint(axes: Any) -> None:
        for panel, (axis, metric) in enumerate(zip(axes, ("ttft", "tpot"), strict=True)):
            for row, (i, values) in enumerate(samples.items()):
                style = series(i)
                spread = [row + 0.5 * ((n * 0.618) % 1 - 0.5) for n in range(len(values[panel]))]
                axis.plot(values[panel], spread, **style, linestyle="", markersize=4, alpha=0.5, markeredgewidth=0)
                for suffix, marker, size in (("_ms", "|", 17), ("_p95_ms", ">", 8)):
                    value = evaluation["models"][i]["metrics"].get(metric + suffix)
                    if value is not None:
                        axis.plot(value, row, color=style["color"], marker=marker, markersize=size, markeredgewidth=2)
            axis.set_ylim(len(samples) - 0.4, -0.6)
            axis.set_yticks([])
            axis.grid(False, axis="y")
            axis.spines["left"].set_visible(False)
            scale(axis.xaxis, [value for values in samples.values() for value in values[panel]])
        axes[0].set_xlabel("time to first token, ms")
        axes[1].set_xlabel("time per output token, ms")

    height = max(3.2, 1.5 + 0.5 * len(samples))
    return draw("latency", "Latency: time to first token, time per output token", evaluation, samples, paint, 2, height)


def throughput(evaluation: Evaluation) -> str | None:
    """Requests answered a second, by the number of clients that ask at the same time."""
    lines: Drawn = {}
    for i, model in enumerate(evaluation["models"]):
        found = {
            int(name.rpartition("_")[2]): value
            for name, value in model["metrics"].items()
            if re.fullmatch(r"requests_per_s_\d+", name) and value is not None
        }
        if found:
            lines[i] = sorted(found.items())
    if not lines:
        return None

    def paint(axes: Any) -> None:
        for i, line in lines.items():
            axes[0].plot(*zip(*line, strict=True), **series(i), markersize=7, linewidth=1.8)
        axes[0].set_xticks(sorted({clients for line in lines.values() for clients, _ in line}))
        axes[0].set_xlim(left=0)
        rates = [rate for line in lines.values() for _, rate in line]
        scale(axes[0].yaxis, rates, 20)
        if axes[0].get_yscale() == "linear":
            axes[0].set_ylim(0, 1.1 * max(rates))
        axes[0].set_xlabel("clients at the same time")
        axes[0].set_ylabel("requests/s")

    return draw("throughput", "Throughput by number of clients", evaluation, lines, paint)


def cost_by_length(evaluation: Evaluation) -> str | None:
    """TTFT and TPOT by the length of the prompt: the median, in the band of the middle half of the samples."""
    curves: Drawn = {}
    for i, model in enumerate(evaluation["models"]):
        groups = _by_length(evaluation, model)
        panels = [
            [
                (length, *_quartiles(values))
                for length in sorted(groups)
                if (values := _present(map(of, groups[length])))
            ]
            for of in (_ttft_ms, _tpot_ms)
        ]
        if any(panels):
            curves[i] = panels
    if not curves:
        return None

    def paint(axes: Any) -> None:
        for panel, axis in enumerate(axes):
            for i, panels in curves.items():
                if panels[panel]:
                    length, low, middle, high = zip(*panels[panel], strict=True)
                    axis.fill_between(length, low, high, color=series(i)["color"], alpha=0.2, linewidth=0)
                    axis.plot(length, middle, **series(i), markersize=6, linewidth=1.8)
            drawn = [row for panels in curves.values() for row in panels[panel]]
            scale(axis.xaxis, [row[0] for row in drawn])
            axis.set_xticks(evaluation["effort"].get("prompt_lengths") or sorted({row[0] for row in drawn}))
            scale(axis.yaxis, [value for row in drawn for value in row[1:]])
            if axis.get_yscale() == "linear" and drawn:
                axis.set_ylim(0, 1.1 * max(row[3] for row in drawn))
        axes[0].tick_params(labelbottom=False)
        axes[0].set_ylabel("TTFT, ms")
        axes[1].set_ylabel("TPOT, ms")
        axes[1].set_xlabel("prompt, tokens")

    return draw("cost_by_length", "Latency by length of the prompt", evaluation, curves, paint, 2, 3.7)


PLOTS: dict[str, Callable[[Evaluation], str | None]] = {
    "quality_against_speed": quality_against_speed,
    "kl_histogram": kl_histogram,
    "latency": latency,
    "throughput": throughput,
    "cost_by_length": cost_by_length,
}


def _by_length(evaluation: Evaluation, model: dict[str, Any]) -> dict[float, list[dict[str, Any]]]:
    """Prompt tokens -> samples. A repetition takes the lengths in turn; a length may differ by a token or two."""
    reps: dict[int, list[dict[str, Any]]] = {}
    for sample in (model.get("samples") or {}).get("speed") or []:
        reps.setdefault(sample["rep"], []).append(sample)
    wanted = evaluation["effort"].get("prompt_lengths") or []
    groups = {}
    for n in range(max(map(len, reps.values()), default=0)):
        group = [rep[n] for rep in reps.values() if n < len(rep)]
        counted = _present(sample.get("prompt_tokens") for sample in group)
        if counted or n < len(wanted):
            groups[statistics.median(counted) if counted else wanted[n]] = group
    return groups


def _ttft_ms(sample: dict[str, Any]) -> float | None:
    return None if sample.get("ttft_s") is None else 1e3 * sample["ttft_s"]


def _tpot_ms(sample: dict[str, Any]) -> float | None:
    found = tpot(sample)
    return None if found is None else 1e3 * found


def _present(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _quartiles(values: list[float]) -> tuple[float, float, float]:
    return tuple(statistics.quantiles(values, method="inclusive")) if len(values) > 1 else (values[0],) * 3
