"""The report of an evaluation: one HTML page that needs nothing else, and a few lines for MLflow's own pages.

Takes what evaluation.json holds. Questions, answers and names come from outside: the page escapes them.
"""

import html as escaping
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from steps.evaluation.plots import quality_metric
from steps.evaluation.significance import SIGNIFICANT
from steps.evaluation.svg import COLOURS
from steps.evaluation.table import markdown_table

Evaluation = dict[str, Any]
Model = dict[str, Any]

_LONGEST = 2_000  # characters of an answer or a question on the page
_FIDELITY = ("perplexity", "ln_perplexity_ratio", "kl_mean", "kl_median", "kl_99", "kl_max", "same_top", "rms_dp")


def _percent(value: float) -> str:
    return f"{100 * value:.1f}%" if abs(value) >= 5e-4 or value == 0 else f"{_figure(100 * value)}%"


def _figure(value: float) -> str:
    """Three digits, or all of those before the point."""
    if abs(value) >= 1e-4 or value == 0:
        digits = 2 - math.floor(math.log10(abs(value))) if value else 0
        return f"{value:,.{max(0, digits)}f}"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def _decimals(value: float) -> str:
    """Four, for what is often close to 1."""
    return f"{value:,.4f}"


@dataclass(frozen=True)
class _Row:
    """A metric in a table of the page."""

    title: str
    metric: str
    form: Callable[[float], str] = _figure
    best: Callable[..., float] | None = None  # max or min


_COMPARISON = {
    "Quality": (
        _Row("Accuracy", "accuracy", _percent, max),
        _Row("Accuracy by a judge", "judged", _percent, max),
        _Row("Agreement", "agreement", _percent, max),
        _Row("Perplexity, ratio", "perplexity_ratio", _decimals, min),
        _Row("KL divergence, mean, nats", "kl_mean", best=min),
        _Row("Same top token", "same_top", _percent, max),
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
        _Row("Perplexity", "perplexity", _decimals, min),
        _Row("KL divergence, median, nats", "kl_median", best=min),
        _Row("KL divergence, 99th percentile, nats", "kl_99", best=min),
        _Row("KL divergence, most, nats", "kl_max", best=min),
        _Row("RMS Δp", "rms_dp", _percent, min),
    ),
    "Speed and cost": (
        _Row("First call, ms", "first_call_ms", best=min),
        _Row("Share of the memory bandwidth", "bandwidth_share", _percent, max),
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
    environment.filters |= {"figure": _figure, "percent": _percent, "shorten": _shorten}
    models = [_with_ratio(model) for model in evaluation["models"]]
    clients = sorted(
        {name for model in models for name in model["metrics"] if name.startswith("requests_per_s_")},
        key=lambda name: int(name.rpartition("_")[2]),
    )
    rates = tuple(_Row(f"Requests/s, {name.rpartition('_')[2]} at a time", name, best=max) for name in clients)
    return environment.get_template("report.html.j2").render(
        evaluation | {"models": models},
        headline=_headline(evaluation),
        failed=_failed(evaluation),
        all_passed=_all_passed(evaluation),
        highlights=_highlights(evaluation),
        tables=[_table(models, _COMPARISON), _table(models, {**_FURTHER, "Throughput": rates})],
        notes=_notes(evaluation),
        pairs=[_pair(entry, evaluation["evalset"]["asked"]) for entry in evaluation.get("comparisons") or []],
        quality=quality_metric(evaluation),
        significant=SIGNIFICANT,
        plots={name: Markup(svg) for name, svg in plots.items() if svg},
        colours=len(COLOURS),
    )


def markdown(evaluation: Evaluation) -> str:
    """The same in brief, for the description of a run or of a model version."""
    columns = ("model", "accuracy", "KL mean", "TTFT ms", "decode tok/s", "memory MB", "size MB", "verdict")
    rows = (
        _Row("accuracy", "accuracy", _percent),
        _Row("KL mean", "kl_mean"),
        _Row("TTFT ms", "ttft_ms"),
        _Row("decode tok/s", "decode_tokens_per_s"),
        _Row("memory MB", "peak_memory_mb"),
        _Row("size MB", "size_mb"),
    )
    cells = [
        {"model": _inline(model["model"]), "verdict": _inline(_verdict(model))}
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
        f" {machine['usable_cpus']} CPUs of {_inline(machine['cpu'] or 'an unknown kind')}."
    )
    return "\n\n".join(
        [
            f"**{_inline(_headline(evaluation))}** {_inline(evaluation['champion'].get('decision') or '')}".strip(),
            " ".join(_inline(line) for line in _failed(evaluation)) or _all_passed(evaluation),
            markdown_table(cells, columns),
            " ".join(measured),
            "Charts, tests of the differences and the worst answers are in `report.html`; every figure and sample in"
            " `evaluation.json`.",
        ]
    )


def _headline(evaluation: Evaluation) -> str:
    champion = evaluation["champion"]
    name, after = champion.get("name"), champion.get("after")
    label = champion.get("label") or next((model["model"] for model in evaluation["models"] if model["champion"]), None)
    if label:
        return f"{label} is the champion" + (f": version {after} of {name}." if name and after else ".")
    if after:
        return f"Version {after} of {name} stays the champion; it was not evaluated here."
    return "No model is the champion."


def _failed(evaluation: Evaluation) -> list[str]:
    """A sentence for each model that failed gates."""
    return [
        f"{model['model']} failed {_count(len(model['failed_gates']), 'gate')}: {'; '.join(model['failed_gates'])}."
        for model in evaluation["models"]
        if model.get("failed_gates")
    ]


def _all_passed(evaluation: Evaluation) -> str:
    if not any(model.get("gates") for model in evaluation["models"]):
        return "There were no gates to pass."
    return "Every gate passed."


def _verdict(model: Model) -> str:
    if model["champion"]:
        return "champion"
    if failed := model.get("failed_gates"):
        return f"failed {_count(len(failed), 'gate')}"
    return model.get("alias") or "passed"


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
            faster = f"{_figure(ratio)} times as fast as {pair['against' if forward else 'model']}"
            break
    metrics = model["metrics"]
    shown = (
        ("Right answers", "accuracy", _percent, "", _spread(model, _Row("", "accuracy", _percent))),
        ("Decode", "decode_tokens_per_s", _figure, " tokens/s", faster),
        ("First token", "ttft_ms", _figure, " ms", _with("p95 {} ms", metrics.get("ttft_p95_ms"))),
        ("Peak memory", "peak_memory_mb", _figure, " MB", _with("{} MB on disk", metrics.get("size_mb"))),
    )
    return [
        (title, form(metrics[metric]) + unit, beside)
        for title, metric, form, unit, beside in shown
        if _known(metrics.get(metric))
    ]


def _table(models: list[Model], groups: dict[str, tuple[_Row, ...]]) -> dict[str, list[dict[str, Any]]]:
    """The rows of each group: title and a cell for each model."""
    found: dict[str, list[dict[str, Any]]] = {}
    for group, rows in groups.items():
        for row in rows:
            values = [value for model in models if _known(value := model["metrics"].get(row.metric))]
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
    if _known(value):
        return {"text": row.form(value), "spread": _spread(model, row), "missing": False}
    blind = row.metric in (*_FIDELITY, "perplexity_ratio") and not any(
        _known(model["metrics"].get(name)) for name in _FIDELITY
    )
    return {"text": "not compared" if blind else "not measured", "spread": "", "missing": True}


def _spread(model: Model, row: _Row) -> str:
    """The interval, or the standard error, of a figure."""
    interval = (model.get("intervals") or {}).get(row.metric)
    if interval:
        return f"{row.form(interval[0])} to {row.form(interval[1])}"
    error = (model.get("errors") or {}).get(row.metric)
    if not _known(error):
        return ""
    return f"± {_figure(error) if row.form is _decimals else row.form(error)}"  # it may be a millionth


def _with_ratio(model: Model) -> Model:
    """The model with the ratio of perplexities, whose standard error is that of its logarithm times the ratio."""
    metrics, errors = dict(model["metrics"]), dict(model.get("errors") or {})
    ln, error = metrics.get("ln_perplexity_ratio"), errors.get("ln_perplexity_ratio")
    if _known(ln):
        metrics["perplexity_ratio"] = math.exp(min(ln, 700))
        errors["perplexity_ratio"] = metrics["perplexity_ratio"] * error if _known(error) else None
    return model | {"metrics": metrics, "errors": errors}


def _notes(evaluation: Evaluation) -> list[str]:
    """What the tables cannot say in a cell."""
    notes = []
    reference = evaluation["reference"]
    metrics = reference.get("metrics") or {}
    if _known(accuracy := metrics.get("accuracy")):
        interval = (reference.get("intervals") or {}).get("accuracy")
        within = f" ({_percent(interval[0])} to {_percent(interval[1])})" if interval else ""
        notes.append(f"The reference, PyTorch in {reference['dtype']}, is right in {_percent(accuracy)}{within}.")
    if _known(metrics.get("perplexity")):
        notes.append(f"The reference has a perplexity of {_decimals(metrics['perplexity'])}.")
    for model in evaluation["models"]:
        label = model["model"]
        if not any(_known(model["metrics"].get(name)) for name in _FIDELITY):
            why = model.get("missing") or "no logits, not a model of a kind that evaluate can look into"
            notes.append(f"{label} is not compared with the reference token by token: {why}.")
        if not _known(model["metrics"].get("decode_tokens_per_s")):
            notes.append(f"{label}, decode not measured: its answers were too short or too irregular to time.")
        if not model["eos_off"]:
            notes.append(f"{label} may end its answers early: it has no way to switch its end token off.")
        if not model["given"]:
            notes.append(f"{label} was champion already, and was added for comparison.")
        if lost := sum(run.get("failed") or 0 for run in (model.get("samples") or {}).get("throughput") or []):
            notes.append(f"{label} failed to answer {_count(lost, 'request')} while throughput was measured.")
    return notes


def _pair(entry: dict[str, Any], questions: int) -> dict[str, str]:
    """Two models' difference, in words, with the figures behind them."""
    return {
        "model": entry["model"],
        "against": entry["against"],
        "answers": _answers(entry, questions),
        "answers_detail": _answers_detail(entry),
        "speed": _speed(entry),
        "speed_detail": _speed_detail(entry),
    }


def _answers(entry: dict[str, Any], questions: int) -> str:
    p, difference = entry.get("mcnemar_p"), entry.get("accuracy_difference")
    if not _known(p):
        return "not compared"
    if p < SIGNIFICANT and _known(difference):
        return f"{'better' if difference > 0 else 'worse'}: p = {_p(p)}"
    return f"no worse, as far as {_count(questions, 'question')} can tell: p = {_p(p)}"


def _answers_detail(entry: dict[str, Any]) -> str:
    parts, won, lost = [], entry.get("only_model_right"), entry.get("only_against_right")
    if won == lost == 0:
        return "right and wrong on the same questions"
    if _known(entry.get("accuracy_difference")):
        interval = entry.get("accuracy_interval")
        within = f" ({_points(interval[0])} to {_points(interval[1])})" if interval else ""
        parts.append(f"accuracy {_points(entry['accuracy_difference'])} points{within}")
    if won is not None and lost is not None:
        parts.append(f"{won:,} right only here, {lost:,} only there")
    return "; ".join(parts)


def _speed(entry: dict[str, Any]) -> str:
    ratio, interval = entry.get("speed_ratio"), entry.get("speed_interval")
    if not ratio:
        return "not compared"
    if interval and interval[0] <= 1 <= interval[1]:
        return f"no difference shown: {_figure(ratio)} times as fast in decode"
    if ratio < 1:
        return f"slower: {entry['against']} is {_figure(1 / ratio)} times as fast in decode"
    return f"faster: {_figure(ratio)} times as fast in decode"


def _speed_detail(entry: dict[str, Any]) -> str:
    interval, p = entry.get("speed_interval"), entry.get("speed_p")
    parts = []
    if interval:
        low, high = sorted(1 / end for end in interval) if interval[1] < 1 else interval
        parts.append(f"95% interval {_figure(low)} to {_figure(high)}")
    return "; ".join(parts + ([f"one-sided test of slower: p = {_p(p)}"] if _known(p) else []))


def _p(value: float) -> str:
    return f"{value:.2g}" if value >= 1e-4 else _figure(value)


def _points(share: float) -> str:
    return f"{100 * share:+.1f}".replace("-", "\N{MINUS SIGN}")


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _with(text: str, value: float | None) -> str:
    return text.format(_figure(value)) if _known(value) else ""


def _known(value: Any) -> bool:
    return value is not None and math.isfinite(value)


def _shorten(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} … ({len(text):,} characters in all)"


def _inline(text: str) -> str:
    """Text as one cell or line of Markdown."""
    return " ".join(escaping.escape(text, quote=False).replace("|", "\\|").split())
