"""The report of an evaluation: one HTML page that needs nothing else, and a few lines for MLflow's own pages.

Takes what evaluation.json holds. Questions, answers and names come from outside: the page escapes them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from steps.evaluation.report import wording
from steps.evaluation.report.formatting import decimals, figure, inline, known, percent, shorten
from steps.evaluation.report.plots import quality_metric
from steps.evaluation.report.svg import COLOURS
from steps.evaluation.report.tables import markdown_table
from steps.evaluation.report.wording import FIDELITY, Evaluation, Model
from steps.evaluation.statistics import SIGNIFICANT


@dataclass(frozen=True)
class _Row:
    """A metric in a table of the page."""

    title: str
    metric: str
    form: Callable[[float], str] = figure
    best: Callable[..., float] | None = None  # max or min


_COMPARISON = {
    "Quality": (
        _Row("Accuracy", "accuracy", percent, max),
        _Row("Accuracy by a judge", "judged", percent, max),
        _Row("Agreement", "agreement", percent, max),
        _Row("Perplexity, ratio", "perplexity_ratio", decimals, min),
        _Row("KL divergence, mean, nats", "kl_mean", best=min),
        _Row("Same top token", "same_top", percent, max),
    ),
    "Speed": (
        _Row("TTFT p50, ms", "ttft_ms", best=min),
        _Row("TTFT p95, ms", "ttft_p95_ms", best=min),
        _Row("TPOT p50, ms", "tpot_ms", best=min),
        _Row("TPOT p95, ms", "tpot_p95_ms", best=min),
        _Row("Prefill, tokens/s", "prefill_tokens_per_s", best=max),
        _Row("Decode, tokens/s", "decode_tokens_per_s", best=max),
    ),
    "Cost": (
        _Row("Peak memory, MB", "peak_memory_mb", best=min),
        _Row("Size, MB", "size_mb", best=min),
        _Row("Load time, s", "load_s", best=min),
    ),
}
_FURTHER = {
    "Quality": (
        _Row("Perplexity", "perplexity", decimals, min),
        _Row("KL divergence, median, nats", "kl_median", best=min),
        _Row("KL divergence, 99th percentile, nats", "kl_99", best=min),
        _Row("KL divergence, most, nats", "kl_max", best=min),
        _Row("RMS Δp", "rms_dp", percent, min),
    ),
    "Speed and cost": (
        _Row("First call, ms", "first_call_ms", best=min),
        _Row("Share of the memory bandwidth", "bandwidth_share", percent, max),
    ),
}


def html(evaluation: Evaluation, plots: dict[str, str]) -> str:
    """The page.

    Args:
        plots: the functions of plots.PLOTS, by name, to the SVG that each gave; those without one are left out.
    """
    # A null that the template prints is in words.
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: "unknown" if value is None else value,
    )
    environment.filters |= {"figure": figure, "percent": percent, "shorten": shorten}
    models = [_with_ratio(model) for model in evaluation["models"]]
    clients = sorted(
        {name for model in models for name in model["metrics"] if name.startswith("requests_per_s_")},
        key=lambda name: int(name.rpartition("_")[2]),
    )
    rates = tuple(_Row(f"Requests/s, {name.rpartition('_')[2]} at a time", name, best=max) for name in clients)
    return environment.get_template("page.html.j2").render(
        evaluation | {"models": models},
        headline=wording.headline(evaluation),
        failed=wording.failed_gates(evaluation),
        all_passed=wording.all_passed(evaluation),
        highlights=_highlights(evaluation),
        tables=[_table(models, _COMPARISON), _table(models, {**_FURTHER, "Throughput": rates})],
        notes=wording.notes(evaluation),
        pairs=[wording.pair(entry, evaluation["evalset"]["asked"]) for entry in evaluation.get("comparisons") or []],
        quality=quality_metric(evaluation),
        significant=SIGNIFICANT,
        plots={name: Markup(svg) for name, svg in plots.items() if svg},
        colours=len(COLOURS),
    )


def markdown(evaluation: Evaluation) -> str:
    """The same in brief, for the description of a run or of a model version."""
    columns = ("model", "accuracy", "KL mean", "TTFT ms", "decode tok/s", "memory MB", "size MB", "verdict")
    rows = (
        _Row("accuracy", "accuracy", percent),
        _Row("KL mean", "kl_mean"),
        _Row("TTFT ms", "ttft_ms"),
        _Row("decode tok/s", "decode_tokens_per_s"),
        _Row("memory MB", "peak_memory_mb"),
        _Row("size MB", "size_mb"),
    )
    cells = [
        {"model": inline(model["model"]), "verdict": inline(wording.verdict(model))}
        | {row.title: _cell(model, row)["text"] for row in rows}
        for model in evaluation["models"]
    ]
    evalset, text, effort = evaluation["evalset"], evaluation.get("text") or {}, evaluation["effort"]
    machine = evaluation["environment"]
    measured = [f"Answers: {evalset['asked']:,} of the {evalset['items']:,} questions of `{evalset['path']}`."]
    if text.get("scored_tokens"):
        measured.append(
            f"KL divergence from PyTorch in float32, in nats: {text['scored_tokens']:,} tokens of `{text['path']}`."
        )
    turns = ", the models in turn" if evaluation["interleaved"] else ""
    measured.append(
        f"Speed: effort {effort['name']}, up to {effort['repetitions']} repetitions{turns}, on"
        f" {machine['usable_cpus']} CPUs of {inline(machine['cpu'] or 'an unknown kind')}."
    )
    decision = evaluation["champion"].get("decision") or ""
    return "\n\n".join(
        [
            f"**{inline(wording.headline(evaluation))}** {inline(decision)}".strip(),
            " ".join(inline(line) for line in wording.failed_gates(evaluation)) or wording.all_passed(evaluation),
            markdown_table(cells, columns),
            " ".join(measured),
            "Charts, tests of the differences and the worst answers are in `report.html`; every figure and sample in"
            " `evaluation.json`.",
        ]
    )


def _highlights(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    """The champion's few figures for the top of the page: what, how much, beside what."""
    model = next((model for model in evaluation["models"] if model["champion"]), None)
    if model is None:
        return []
    faster = ""
    for pair in evaluation.get("comparisons") or []:
        if model["model"] in (pair["model"], pair["against"]) and pair.get("speed_ratio"):
            forward = pair["model"] == model["model"]
            ratio = pair["speed_ratio"] if forward else 1 / pair["speed_ratio"]
            faster = f"{figure(ratio)} times as fast as {pair['against' if forward else 'model']}"
            break
    metrics = model["metrics"]
    shown = (
        ("Right answers", "accuracy", percent, "", _spread(model, _Row("", "accuracy", percent))),
        ("Decode", "decode_tokens_per_s", figure, " tokens/s", faster),
        ("First token", "ttft_ms", figure, " ms", _with("p95 {} ms", metrics.get("ttft_p95_ms"))),
        ("Peak memory", "peak_memory_mb", figure, " MB", _with("{} MB on disk", metrics.get("size_mb"))),
    )
    return [
        (title, form(metrics[metric]) + unit, beside)
        for title, metric, form, unit, beside in shown
        if known(metrics.get(metric))
    ]


def _table(models: list[Model], groups: dict[str, tuple[_Row, ...]]) -> dict[str, list[dict[str, Any]]]:
    """The rows of each group: title and a cell for each model."""
    found: dict[str, list[dict[str, Any]]] = {}
    for group, rows in groups.items():
        for row in rows:
            values = [value for model in models if known(value := model["metrics"].get(row.metric))]
            if not values and row.metric == "judged":  # only where there was a judge
                continue
            cells = [_cell(model, row) for model in models]
            texts = {cell["text"] for cell in cells if not cell["missing"]}
            if row.best and len(texts) > 1:
                best = row.form(row.best(values))
                cells = [cell | {"best": cell["text"] == best} for cell in cells]
            found.setdefault(group, []).append({"title": row.title, "cells": cells})
    return found


def _cell(model: Model, row: _Row) -> dict[str, Any]:
    value = model["metrics"].get(row.metric)
    if known(value):
        return {"text": row.form(value), "spread": _spread(model, row), "missing": False}
    blind = row.metric in (*FIDELITY, "perplexity_ratio") and not any(
        known(model["metrics"].get(name)) for name in FIDELITY
    )
    return {"text": "not compared" if blind else "not measured", "spread": "", "missing": True}


def _spread(model: Model, row: _Row) -> str:
    """The interval, or the standard error, of a figure."""
    interval = (model.get("intervals") or {}).get(row.metric)
    if interval:
        return f"{row.form(interval[0])} to {row.form(interval[1])}"
    error = (model.get("errors") or {}).get(row.metric)
    if not known(error):
        return ""
    return f"± {figure(error) if row.form is decimals else row.form(error)}"  # it may be a millionth


def _with_ratio(model: Model) -> Model:
    """The model with the ratio of perplexities, whose standard error is that of its logarithm times the ratio."""
    metrics, errors = dict(model["metrics"]), dict(model.get("errors") or {})
    ln, error = metrics.get("ln_perplexity_ratio"), errors.get("ln_perplexity_ratio")
    if known(ln):
        metrics["perplexity_ratio"] = math.exp(min(ln, 700))
        errors["perplexity_ratio"] = metrics["perplexity_ratio"] * error if known(error) else None
    return model | {"metrics": metrics, "errors": errors}


def _with(text: str, value: float | None) -> str:
    return text.format(figure(value)) if known(value) else ""
