"""The comparison of an evaluation's models as one short table, for terminals and for Markdown pages."""

from dataclasses import dataclass

from steps.evaluation.metrics import METRICS, Metric
from steps.evaluation.report.formatting import format_value, inline
from steps.evaluation.results import EvaluatedModel, Evaluation


@dataclass(frozen=True)
class Table:
    """A table of text: headings, and rows with a cell for each heading."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def comparison_table(evaluation: Evaluation) -> Table:
    """Return the comparison: a row for each model with the metrics that have a column, and what became of the model."""
    shown = [metric for metric in METRICS.values() if metric.column]
    return Table(
        columns=("model", *(metric.column for metric in shown), "verdict"),
        rows=tuple(
            (model.label, *(value_text(model, metric) for metric in shown), outcome(model))
            for model in evaluation.models
        ),
    )


def value_text(model: EvaluatedModel, metric: Metric) -> str:
    """Return the value of a metric, or why there is none."""
    value = model.value(metric.name)
    if value is not None:
        return format_value(metric, value)
    return "not compared" if metric.of_text and not is_compared(model) else "not measured"


def is_compared(model: EvaluatedModel) -> bool:
    """Return whether the model was compared with the reference token by token."""
    return any(metric.of_text and model.value(metric.name) is not None for metric in METRICS.values())


def outcome(model: EvaluatedModel) -> str:
    """Return what became of a model: its alias, else whether it passed, and the gates that it failed."""
    alias = "champion" if model.is_champion else model.alias
    failed = f"failed: {'; '.join(model.failed_gates)}" if model.failed_gates else ""
    return ", ".join(part for part in (alias, failed) if part) or "passed"


def text_table(table: Table) -> str:
    """Return a table for a terminal: aligned columns, the first and the last to the left, the others to the right."""
    lines = (table.columns, *table.rows)
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    last = len(widths) - 1

    def aligned(cells: tuple[str, ...]) -> str:
        columns = enumerate(zip(cells, widths, strict=True))
        return "  ".join(cell.ljust(width) if n in (0, last) else cell.rjust(width) for n, (cell, width) in columns)

    return "\n".join(aligned(cells).rstrip() for cells in lines)


def markdown_table(table: Table) -> str:
    """Return a table as Markdown, with markup in its cells escaped."""
    # MLflow's pages draw cells without space between them, so each cell ends in a space.
    heading, *lines = (
        f"| {' | '.join(f'{inline(cell)}&emsp;' for cell in cells)} |" for cells in (table.columns, *table.rows)
    )
    return "\n".join([heading, f"| {' | '.join('---' for _ in table.columns)} |", *lines])
