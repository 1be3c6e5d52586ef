"""The report of an evaluation: one HTML page that needs nothing else.

Questions, answers and names come from outside: the page escapes them.
"""

from dataclasses import dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup

from steps.evaluation.metrics import METRICS, Metric
from steps.evaluation.report import wording
from steps.evaluation.report.formatting import (
    capitalised,
    format_error,
    format_value,
    percent,
    shorten,
    significant,
)
from steps.evaluation.report.plots import quality_metric
from steps.evaluation.report.svg import COLOURS
from steps.evaluation.report.tables import value_text
from steps.evaluation.results import EvaluatedModel, Evaluation
from steps.evaluation.statistics import SIGNIFICANT


@dataclass(frozen=True)
class _Cell:
    """A model's value of a metric."""

    text: str
    error: str  # its interval or standard error
    is_missing: bool
    is_best: bool


@dataclass(frozen=True)
class _Row:
    """A metric in a table of the page: its label, and a cell for each model."""

    label: str
    cells: tuple[_Cell, ...]


@dataclass(frozen=True)
class _Tile:
    """One of the champion's few figures at the top of the page."""

    title: str
    value: str
    beside: str


def html(evaluation: Evaluation, plots: dict[str, str]) -> str:
    """Return the page.

    Args:
        plots: SVG text by the names of plots.PLOTS. The page says of a missing plot why it is not drawn.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"significant": significant, "shorten": shorten}
    return environment.get_template("page.html.j2").render(
        evaluation=evaluation,
        headline=capitalised(wording.verdict_sentence(evaluation)),
        failed=wording.failed_gates(evaluation),
        tiles=_tiles(evaluation),
        tables=(_table(evaluation.models, further=False), _table(evaluation.models, further=True)),
        notes=wording.notes(evaluation),
        pairs=[wording.pair_in_words(pair, evaluation.question_set.asked) for pair in evaluation.pairs],
        bandwidth_shares=[_bandwidth_share(model) for model in evaluation.models],
        definitions=[m for m in METRICS.values() if m.definition and (evaluation.judge or not m.optional)],
        quality=quality_metric(evaluation),
        significance=SIGNIFICANT,
        plots={name: Markup(svg) for name, svg in plots.items()},
        colours=len(COLOURS),
    )


def _tiles(evaluation: Evaluation) -> list[_Tile]:
    """Return the champion's tiles; none without a champion."""
    champion = evaluation.champion_model
    if champion is None:
        return []
    beside = {
        "accuracy": format_error(METRICS["accuracy"], champion.figure("accuracy")),
        "decode_tokens_per_s": _speed_beside(evaluation, champion.label),
        "ttft_ms": _with("p95 {} ms", champion, "ttft_p95_ms"),
        "peak_memory_mb": _with("{} MB on disk", champion, "size_mb"),
    }
    tiles = []
    for name, remark in beside.items():
        metric, value = METRICS[name], champion.value(name)
        if value is not None:
            unit = f" {metric.unit}" if metric.unit else ""
            tiles.append(_Tile(metric.title, format_value(metric, value) + unit, remark))
    return tiles


def _speed_beside(evaluation: Evaluation, champion: str) -> str:
    """Return how many times as fast the champion is, of the first pair that it was timed in."""
    for pair in evaluation.pairs:
        if pair.speed_ratio and champion == pair.model:
            return f"{significant(pair.speed_ratio)} times as fast as {pair.against}"
        if pair.speed_ratio and champion == pair.against:
            return f"{significant(1 / pair.speed_ratio)} times as fast as {pair.model}"
    return ""


def _with(text: str, model: EvaluatedModel, name: str) -> str:
    value = model.value(name)
    return "" if value is None else text.format(format_value(METRICS[name], value))


def _bandwidth_share(model: EvaluatedModel) -> str:
    share = model.value("bandwidth_share")
    return f"{'an unknown share' if share is None else percent(share)} with {model.label}"


def _table(models: tuple[EvaluatedModel, ...], further: bool) -> dict[str, list[_Row]]:
    """Return the rows of a table by their group.

    Args:
        further: of the second table.
    """
    groups: dict[str, list[_Row]] = {}
    for metric in METRICS.values():
        is_measured = any(model.value(metric.name) is not None for model in models)
        if metric.further == further and (is_measured or not metric.optional):
            groups.setdefault(metric.group, []).append(_Row(metric.label, _cells(models, metric)))
    return groups


def _cells(models: tuple[EvaluatedModel, ...], metric: Metric) -> tuple[_Cell, ...]:
    """Return the cells of a metric. The best are marked, unless all look the same."""
    values = [value for model in models if (value := model.value(metric.name)) is not None]
    best = ""
    if len({format_value(metric, value) for value in values}) > 1:
        best = format_value(metric, max(values) if metric.best == "max" else min(values))
    cells = []
    for model in models:
        text, is_missing = value_text(model, metric), model.value(metric.name) is None
        error = "" if is_missing else format_error(metric, model.figure(metric.name))
        cells.append(_Cell(text, error, is_missing, is_best=not is_missing and text == best))
    return tuple(cells)
