"""Turn a chart into SVG text that can stand in a page.

Colours are CSS variables with a default. So a chart follows its page into dark mode, and is legible as a file of its
own. IDs begin with the chart's name, so that one page can hold every chart.
"""

import html
import io
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from steps.evaluation.results import Evaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import XAxis, YAxis

# Okabe and Ito's colours for the colour-blind, some of them darker to be legible on white. The page has other colours
# for its dark mode.
COLOURS = ("#0072b2", "#d55e00", "#00805c", "#aa4499", "#8a6a00", "#555555")
_MARKERS = "os^DvPX"  # not as many as colours, so that a pair of colour and marker repeats late
# matplotlib knows no CSS variables. So it draws with these colours, and _for_page puts what the page decides in their
# place.
INK, _GRID, _PAPER = "#010203", "#040506", "#070809"
_CSS = {INK: "currentColor", _GRID: "var(--grid, #dddddd)", _PAPER: "var(--paper, #ffffff)"} | {
    colour: f"var(--series-{i}, {colour})" for i, colour in enumerate(COLOURS)
}
_WIDTH, _LEGEND_LINE = 4.4, 0.19  # inches
_WIDE = 5  # an axis is logarithmic if its last value is more than this many times its first
_RC: dict[str, object] = {
    "axes.axisbelow": True,
    "axes.edgecolor": INK,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 10,
    "grid.color": _GRID,
    "grid.linewidth": 0.8,
    "legend.labelcolor": INK,
    "svg.fonttype": "none",
    "svg.hashsalt": "evaluation",
    "text.color": INK,
    "text.parse_math": False,  # a name may have two dollar signs
    "xtick.color": INK,
    "ytick.color": INK,
}


@dataclass(frozen=True)
class Chart:
    """A chart of some of an evaluation's models."""

    name: str  # its IDs begin with it
    title: str
    labels: dict[int, str]  # a model's position in the evaluation, which decides its colour and marker -> its label
    panels: int = 1  # one below the other
    height: float = 2.8  # inches, without the legend


def labels(evaluation: Evaluation, drawn: Iterable[int]) -> dict[int, str]:
    """Return the labels of the models that are drawn, by the models' positions in the evaluation."""
    return {i: evaluation.models[i].label for i in drawn}


def colour(model: int) -> str:
    """Return the colour of a model.

    Args:
        model: its position in the evaluation.
    """
    return COLOURS[model % len(COLOURS)]


def marker(model: int) -> str:
    """Return the marker of a model. See `colour`."""
    return _MARKERS[model % len(_MARKERS)]


def scale(axis: "XAxis | YAxis", values: Sequence[float], wide: float = _WIDE) -> None:
    """Make an axis logarithmic if its values need it, and write its figures in plain digits.

    Args:
        wide: the ratio of the largest to the smallest value from which on the axis is logarithmic.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    ratio = max(values) / min(values) if values and min(values) > 0 else 1
    if ratio > wide:
        axis.axes.set(**{f"{axis.axis_name}scale": "log"})
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if ratio < 100 else (1,), numticks=7))
        axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))


def plain(value: float) -> str:
    """Return a number in plain digits, or as a power of ten where the digits would be too many."""
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        return f"{value:,.6g}"
    mantissa, exponent = f"{value:.2e}".split("e")
    power = "10" + str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return power if mantissa == "1.00" else f"{float(mantissa):g}×{power}"


def draw(chart: Chart, paint: "Callable[[list[Axes]], None]") -> str:
    """Return a chart as SVG text.

    Args:
        paint: draws on the axes of the chart's panels.
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    settings: Any = _RC  # matplotlib declares a literal type for each of its setting names
    with matplotlib.rc_context(settings):
        height = chart.height + _LEGEND_LINE * len(chart.labels)
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        paint(list(figure.subplots(chart.panels, 1, squeeze=False)[:, 0]))
        figure.legend(
            handles=[
                Line2D([], [], color=colour(model), marker=marker(model), linewidth=1.8, label=label)
                for model, label in chart.labels.items()
            ],
            loc="outside upper left",
            frameon=False,
            borderaxespad=0,
            labelspacing=0.25,
        )
        buffer = io.StringIO()
        no_metadata: dict[str, Any] = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=no_metadata)
    return _for_page(buffer.getvalue(), chart)


def _for_page(svg: str, chart: Chart) -> str:
    """Return SVG text with IDs of its own, with the page's colours, and with a title for screen readers."""

    def rewritten(tag: re.Match[str]) -> str:
        with_ids = re.sub(r'(\sid="|href="#|url\(#)', rf"\g<1>{chart.name}-", tag[0])
        return re.sub(r"(?<=: )#[0-9a-f]{6}", lambda drawn: _CSS.get(drawn[0], drawn[0]), with_ids)

    svg = re.sub(r"<[^>]*>", rewritten, svg[svg.index("<svg") :])
    svg = svg.replace("*{", f"#{chart.name} *{{", 1)  # else its <style> would hold for the whole page
    opening = f'<svg id="{chart.name}" role="img" aria-labelledby="{chart.name}-title"'
    title = f'<title id="{chart.name}-title">{html.escape(chart.title)}</title>'
    return svg.replace("<svg", opening, 1).replace(">", f">\n {title}", 1)
