"""The report of a monitoring: one HTML page that needs nothing else.

Questions, answers and names come from outside: the page escapes them.
"""

from dataclasses import dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup

from steps.evaluation.report import page as evaluation_page
from steps.evaluation.report.formatting import capitalised, count, significant
from steps.monitoring.quantities import QUANTITIES, Quantity
from steps.monitoring.results import Comparison, Monitoring
from steps.monitoring.wording import level, verdict_line

_LARGEST = 100_000  # evidence that is shown
_BADGES = {"drift": "bad", "no drift": "good", "too few values": ""}


@dataclass(frozen=True)
class _Row:
    """A quantity on the page."""

    quantity: Quantity
    comparison: Comparison
    badge: str  # the class of its badge
    before: str
    now: str
    evidence: str


def html(monitoring: Monitoring, charts: dict[str, str]) -> str:
    """Return the page.

    Args:
        charts: SVG text by the names of quantities.
    """
    folders = [Path(__file__).parent, Path(evaluation_page.__file__).parent]  # the style is the evaluation's
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folders),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"significant": significant, "capitalised": capitalised}
    rows = [_row(comparison) for comparison in monitoring.comparisons]
    return environment.get_template("monitoring.html.j2").render(
        monitoring=monitoring,
        headline=capitalised(verdict_line(monitoring)),
        requests=_requests(monitoring),
        rows=rows,
        drifts=[row for row in rows if row.comparison.verdict == "drift"],
        charted=sorted(rows, key=lambda row: row.comparison.verdict != "drift"),
        tests=len(monitoring.comparisons),
        charts={name: Markup(svg) for name, svg in charts.items()},
    )


def _row(comparison: Comparison) -> _Row:
    quantity = QUANTITIES[comparison.name]
    values = comparison.values[(comparison.since or 1) - 1 :]
    return _Row(
        quantity=quantity,
        comparison=comparison,
        badge=_BADGES[comparison.verdict],
        before=level(quantity, comparison.baseline, comparison.relative) if comparison.baseline else "no baseline",
        now=level(quantity, values, comparison.relative),
        evidence=_evidence(max(comparison.capital, default=1.0)),
    )


def _evidence(capital: float) -> str:
    return significant(capital) if capital < _LARGEST else f"over {_LARGEST:,}"


def _requests(monitoring: Monitoring) -> str:
    """Return how many requests were read, and which were not compared, in words."""
    requests = monitoring.requests
    text = count(requests.read, "request")
    if requests.left_out:
        text += f", the latest of the period: older ones are over the limit of {requests.limit:,}"
    if requests.gone:
        text += f"; {requests.gone:,} of them are not compared, because the client went away"
    return text
