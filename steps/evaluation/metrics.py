"""The one table of metrics: what gates, tables, the report, the plots and registry tags know of each.

A new metric needs a row here and its value in summary.py.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """One metric of a model."""

    name: str  # in evaluation.json, in gates and in MLflow
    title: str  # in the report
    unit: str = ""
    best: Literal["max", "min"] = "min"
    style: Literal["share", "figure", "decimals"] = "figure"  # how a value is shown; see report/formatting.py
    of_reference: bool = False  # the reference has it too, so that a gate can compare with it
    of_text: bool = False  # measured token by token against the reference
    column: str = ""  # heading in the short tables; empty: not in them
    group: str = ""  # of the report's tables
    further: bool = False  # in the report's second table, "Further figures"
    tagged: bool = False  # becomes a tag of a registered version


_ROWS = (
    Metric(
        "accuracy", "Accuracy", "", "max", "share", of_reference=True, column="accuracy", group="Quality", tagged=True
    ),
)
METRICS: dict[str, Metric] = {metric.name: metric for metric in _ROWS}
