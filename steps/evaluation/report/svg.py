"""How a chart becomes SVG text that stands in a page.

Colours are CSS variables with a default, so that a chart follows its page into dark mode and is legible as a file of
its own; ids begin with the chart's name, so that one page can hold all of them.
"""

import html
import io
import re
from collections.abc import Callable, Sequence
from typing import Any

Evaluation = dict[str, Any]
Drawn = dict[int, Any]  # a model's place in the evaluation, which decides its colour and marker -> what is drawn of it

# Okabe and Ito's colours for the colour-blind, some of them darker to be read on white; the page has others for black.
COLOURS = ("#0072b2", "#d55e00", "#00805c", "#aa4499", "#8a6a00", "#555555")
_MARKERS = "os^DvPX"  # not as many as colours, so that pairs of them repeat late
INK, _GRID, _PAPER = "#010203", "#040506", "#070809"  # stand for what the page decides
_CSS = {INK: "currentColor", _GRID: "var(--grid, #dddddd)", _PAPER: "var(--paper, #ffffff)"} | {
    colour: f"var(--series-{i}, {colour})" for i, colour in enumerate(COLOURS)
}
_WIDTH, _ROW = 4.4, 0.19  # inches: of a chart, of a line of its legend
_WIDE = 5  # the ratio of the ends of an axis from which on it is logarithmic
_RC = {
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


def series(i: int) -> dict[str, str]:
    """Colour and marker of the i-th model."""
    return {"color": COLOURS[i % len(COLOURS)], "marker": _MARKERS[i % len(_MARKERS)]}


def scale(axis: Any, values: Sequence[float], wide: float = _WIDE) -> None:
    """Logarithmic where the values need it; figures in plain digits as far as they can be read so."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    ratio = max(values) / min(values) if values and min(values) > 0 else 1
    if ratio > wide:
        axis.axes.set(**{f"{axis.axis_name}scale": "log"})
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if ratio < 100 else (1,), numticks=7))
        axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))


def plain(value: float) -> str:
    """A figure in plain digits, or as a power of ten where they would be too many."""
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        return f"{value:,.6g}"
    mantissa, exponent = f"{value:.2e}".split("e")
    power = "10" + str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return power if mantissa == "1.00" else f"{float(mantissa):g}×{power}"


def draw(
    name: str,
    title: str,
    evaluation: Evaluation,
    drawn: Drawn,
    paint: Callable[[Any], None],
    panels: int = 1,
    height: float = 2.8,
) -> str:
    """A chart as SVG text.

    Args:
        name: begins its ids.
        drawn: the models in its legend.
        paint: draws on the axes that it is given, one for each of the `panels`.
        height: inches, without the legend.
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    with matplotlib.rc_context(_RC):
        figure = Figure(figsize=(_WIDTH, height + _ROW * len(drawn)), layout="constrained")
        paint(figure.subplots(panels, 1, squeeze=False)[:, 0])
        figure.legend(
            handles=[Line2D([], [], **series(i), linewidth=1.8, label=evaluation["models"][i]["model"]) for i in drawn],
            loc="outside upper left",
            frameon=False,
            borderaxespad=0,
            labelspacing=0.25,
        )
        buffer = io.StringIO()
        none = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=none)
    return _for_page(buffer.getvalue(), name, title)


def _for_page(svg: str, name: str, title: str) -> str:
    """Own ids, colours of the page, and a name for those who listen to it."""

    def tag(found: re.Match[str]) -> str:
        text = re.sub(r'(\sid="|href="#|url\(#)', rf"\g<1>{name}-", found[0])
        return re.sub(r"(?<=: )#[0-9a-f]{6}", lambda colour: _CSS.get(colour[0], colour[0]), text)

    svg = re.sub(r"<[^>]*>", tag, svg[svg.index("<svg") :])
    svg = svg.replace("*{", f"#{name} *{{", 1)  # its <style> would hold for the whole page
    label = html.escape(title)
    opening = f'<svg id="{name}" role="img" aria-labelledby="{name}-title"'
    return svg.replace("<svg", opening, 1).replace(">", f'>\n <title id="{name}-title">{label}</title>', 1)
