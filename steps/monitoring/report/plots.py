"""The charts of a monitoring: for each quantity its values in the order of their time, and the evidence of its test."""

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from steps.evaluation.report.svg import INK, Chart, colour, draw, plain, scale
from steps.evaluation.statistics import share_interval
from steps.monitoring.quantities import QUANTITIES
from steps.monitoring.results import Comparison, Monitoring
from steps.monitoring.wording import moment

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_REQUESTS, _BASELINE, _ALARM = 0, 2, 1  # positions of colours
_DOTS = 500  # values that are drawn one by one; of more, every n-th is


def draw_quantities(monitoring: Monitoring) -> dict[str, str]:
    """Return a chart as SVG text for each quantity that has values, by its name."""
    return {one.name: draw_quantity(one) for one in monitoring.comparisons if one.values}


def draw_quantity(comparison: Comparison) -> str:
    """Return the chart of one quantity as SVG text."""

    def paint(panels: "list[Axes]") -> None:
        _paint_values(panels[0], comparison)
        _paint_capital(panels[1], comparison)
        for axes in panels:
            axes.set_xlim(0.5, max(2, len(comparison.values)) + 0.5)
            if comparison.since:
                axes.axvline(comparison.since, color=colour(_ALARM), linewidth=1.2, linestyle=(0, (2, 2)))
        panels[0].tick_params(labelbottom=False)
        _label_times(panels[1], comparison)

    title = f"{QUANTITIES[comparison.name].title}: the values, and the evidence of a drift"
    names = {_REQUESTS: "requests"}
    if comparison.baseline:
        names[_BASELINE] = "evaluation"
    return draw(Chart(f"chart-{comparison.name}", title, names, panels=2, height=4.2), paint)


def _paint_values(axes: "Axes", comparison: Comparison) -> None:
    quantity, values = QUANTITIES[comparison.name], comparison.values
    numbers = range(1, len(values) + 1)
    is_share = quantity.style == "share"
    _paint_baseline(axes, comparison, is_share)
    window = max(9, len(values) // 20)
    step = max(1, len(values) // _DOTS)
    if not is_share:
        style = {"linestyle": "", "markersize": 3.5, "alpha": 0.4, "markeredgewidth": 0}
        axes.plot(numbers[::step], values[::step], color=colour(_REQUESTS), marker="o", **style)  # type: ignore[arg-type]  # names of settings
    axes.plot(numbers[::step], _rolling(values, window, is_share)[::step], color=colour(_REQUESTS), linewidth=1.8)
    if is_share:
        axes.set_ylim(-0.02, 1.02 if max(_rolling(values, window, True)) > 0.5 else 0.52)
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g}%")
        axes.set_ylabel(f"Share of {window} requests")
        return
    scale(axes.yaxis, [value for value in (*values, *comparison.baseline) if value > 0])
    if axes.get_yscale() == "linear":
        axes.set_ylim(bottom=0)
    axes.set_ylabel(
        "Times the evaluation's" if comparison.relative else quantity.style.capitalize().replace("Ms", "ms")
    )


def _paint_baseline(axes: "Axes", comparison: Comparison, is_share: bool) -> None:
    """Draw the level of the baseline in a band: the middle 90% of its values, or the 95% interval of its share."""
    baseline = comparison.baseline
    if not baseline:
        return
    if is_share:
        middle = statistics.fmean(baseline)
        low, high = share_interval(round(sum(baseline)), len(baseline)) or (middle, middle)
    else:
        ordered = sorted(baseline)
        middle, low, high = statistics.median(ordered), _quantile(ordered, 0.05), _quantile(ordered, 0.95)
    axes.axhspan(low, high, color=colour(_BASELINE), alpha=0.16, linewidth=0)
    axes.axhline(middle, color=colour(_BASELINE), linewidth=1.4, linestyle="--")


def _paint_capital(axes: "Axes", comparison: Comparison) -> None:
    step = max(1, len(comparison.capital) // _DOTS)
    # The test has decided at the alarm line. Above it, the capital may grow beyond all bounds.
    top = 30 * comparison.alarm_line
    capital = [min(max(value, 1e-3), top) for value in comparison.capital]
    axes.plot(range(1, len(capital) + 1)[::step], capital[::step], color=colour(_REQUESTS), linewidth=1.8)
    axes.axhline(comparison.alarm_line, color=colour(_ALARM), linewidth=1.4)
    axes.annotate(
        f"alarm line, {plain(comparison.alarm_line)}",
        (0.01, comparison.alarm_line),
        (0, 2),
        ("axes fraction", "data"),
        "offset points",
        ha="left",
        va="bottom",
        color=INK,
        fontsize=9,
    )
    axes.set_yscale("log")
    axes.set_ylim(min(0.1, *capital) / 1.5, 2 * top)
    axes.yaxis.set_major_formatter(lambda value, _: plain(value))
    axes.set_ylabel("Evidence of a drift")


def _label_times(axes: "Axes", comparison: Comparison) -> None:
    """Label the requests by their number and their time."""
    count = len(comparison.values)
    numbers = sorted({1 + (count - 1) * part // 3 for part in range(4)})
    times = [moment(comparison.times_ms[number - 1]) for number in numbers]
    one_day = len({time[:10] for time in times}) == 1
    axes.set_xticks(numbers)
    axes.set_xticklabels(
        [f"{n:,}\n{time[11:16] if one_day else time[5:16]}" for n, time in zip(numbers, times, strict=True)]
    )
    axes.set_xlabel(f"Request, and its time in UTC{f' on {times[0][:10]}' if one_day else ''}")


def _rolling(values: Sequence[float], window: int, is_share: bool) -> list[float]:
    """Return the share or the median of each value and those before it, `window` in all."""
    level = statistics.fmean if is_share else statistics.median
    return [level(values[max(0, end - window) : end]) for end in range(1, len(values) + 1)]


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
