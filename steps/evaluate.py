"""evaluate: model URIs and a fetch_model run -> a run that holds metrics per model, `report.html`, `evaluation.json`.

With a registered model: its versions get their verdicts as tags, and the alias `champion` moves if the evidence
says so. The run fails, and keeps what it found, if none of the models passes every gate.
"""

import re
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from steps.common.errors import Rejected, StepError, one_of
from steps.common.hashing import sha256
from steps.common.packages import RUNTIMES, installed_versions
from steps.evaluation import summary as made
from steps.evaluation.inputs.effort import EFFORTS
from steps.evaluation.inputs.evalset import Item, read_evalset, spread
from steps.evaluation.inputs.scored_text import read_text
from steps.evaluation.measure.fidelity import WINDOW
from steps.evaluation.measure.machine import environment
from steps.evaluation.measure.measuring import (
    MAX_TOKENS,
    Measured,
    Models,
    Reference,
    measure_models,
    measure_reference,
    rounds,
)
from steps.evaluation.recording.answers import ask_through_mlflow, import_early
from steps.evaluation.recording.subjects import Subject, find_subjects
from steps.evaluation.report.page import html, markdown
from steps.evaluation.report.tables import verdict
from steps.evaluation.verdict.gates import read_gates
from steps.evaluation.verdict.promotion import PREFERENCES, Decision, decide
from steps.project.mlproject import ROOT
from steps.registry.aliases import CHALLENGER, CHAMPION, PREVIOUS, has_aliases, promote
from steps.registry.names import with_full_name
from steps.registry.versions import record_evaluation
from steps.runs.artifacts import check_run_id
from steps.runs.checkpoint_input import verified_checkpoint
from steps.runs.entry_point import run_entry_point
from steps.runs.step import Step
from steps.runs.tags import EVALUATION

_PACKAGES = ("mlflow", "torch", "transformers", *RUNTIMES)
_BAR = "{desc} {percentage:3.0f}%|{bar}| {elapsed}"
_TAGGED = ("accuracy", "agreement", "kl_mean", "ln_perplexity_ratio", "decode_tokens_per_s", "ttft_ms", "size_mb")
_JUDGE = re.compile(r"[a-z_]+:/.+|databricks")


def check(params: dict[str, str]) -> None:
    """Refuse a bad evaluation set, text or gates, or no models, before any model is loaded."""
    if not all(uri.strip() for uri in params["models"].split(",")):
        raise StepError(f"models is {params['models']!r}; expected MLflow model URIs separated by commas")
    check_run_id("reference_run", params["reference_run"])
    one_of("effort", params["effort"], EFFORTS)
    one_of("prefer", params["prefer"], PREFERENCES)
    if params["judge"] and not _JUDGE.fullmatch(params["judge"]):
        raise StepError(
            f"judge is {params['judge']!r}; expected a model as MLflow's judges take it, such as endpoints:/name or "
            "openai:/gpt-5, or nothing"
        )
    with_full_name(params)
    read_evalset(ROOT / params["evalset"])
    read_text(ROOT / params["text"])
    read_gates(ROOT / params["gates"])


def evaluate(
    step: Step,
    models: str,
    reference_run: str,
    evalset: str,
    text: str,
    gates: str,
    registered_model: str,
    effort: str,
    prefer: str,
    judge: str,
) -> None:
    """Measure each model and PyTorch; compare, judge, promote, record."""
    amount, limits, whole = EFFORTS[effort], read_gates(ROOT / gates), read_evalset(ROOT / evalset)
    items = spread(whole, amount.questions)
    subjects = find_subjects(step, models, registered_model)
    checkpoint = verified_checkpoint(step, "reference_run", reference_run)
    folder, manifest = checkpoint.folder, checkpoint.manifest
    surroundings = environment(installed_versions(_PACKAGES))
    asked: dict[str, dict[str, Any]] = {}

    def ask(label: str, answer: Any) -> list[dict[str, Any]]:
        model_id = subjects[label].model_id
        found, asked[label] = ask_through_mlflow(
            step, label, model_id, items, reference.answers, answer, judge, bar.update
        )
        return found

    import_early()
    total = rounds(amount, len(items), len(subjects))
    with (
        step.console.bar_class()(total=total, desc="evaluating", bar_format=_BAR) as bar,
        Models({label: subject.uri for label, subject in subjects.items()}, step.scratch) as processes,
    ):
        reference = measure_reference(folder, items, read_text(ROOT / text), amount, step.scratch, bar.update)
        optional = [label for label, subject in subjects.items() if not subject.given]
        measured, broken, together = measure_models(
            processes, optional, reference, amount, ask, step.scratch, bar.update
        )
    for reason in broken.values():
        step.console.error(f"evaluate: the present champion is left out of the comparison: {reason}")

    bandwidth = 1e9 * surroundings["memory_bandwidth_gb_s"]
    found = {label: made.figures(one, items, reference, bandwidth) for label, one in measured.items()}
    for label, one in found.items():
        one["metrics"]["judged"] = asked[label]["judged"]
    of_reference = made.reference_figures(items, reference, list(measured.values()))
    champion = next((label for label, subject in subjects.items() if subject.incumbent), None)
    of_champion = None if champion is None else found[champion]["metrics"] if champion in found else {}
    entries = [
        made.entry(
            label,
            vars(subjects[label]) | {"evaluation_run": asked[label]["run_id"]},
            one,
            found[label],
            limits,
            of_reference["metrics"],
            of_champion,
        )
        for label, one in measured.items()
    ]
    evidence = {label: made.evidence(one, items) for label, one in measured.items()}
    able = [entry for entry in entries if entry["version"] or not registered_model]  # to bear an alias
    decision = decide(able, evidence, prefer)
    aliases = bool(registered_model) and has_aliases(step.client, registered_model)
    _mark(registered_model, entries, decision, subjects)
    evaluation = {
        "run": step.run_id,
        "checkpoint": manifest.origin.model_dump(),
        "reference": {"dtype": manifest.architecture.dtype, **of_reference},
        "evalset": {
            "path": evalset,
            "items": len(whole),
            "asked": len(items),
            "sha256": sha256(ROOT / evalset),
            "kinds": dict(Counter(item.kind for item in items)),
        },
        "text": {
            "path": text,
            "sha256": sha256(ROOT / text),
            "windows": len(reference.windows),
            "window": WINDOW,
            "scored_tokens": reference.targets,
        },
        "gates": {"path": gates, "limits": [vars(limit) for limit in limits]},
        "prefer": prefer,
        "judge": judge,
        "effort": {"name": effort, **asdict(amount)},
        "interleaved": together,
        "answers": {"max_tokens": MAX_TOKENS},
        "environment": surroundings,
        "champion": _champion(registered_model, entries, decision, subjects[champion].version if champion else None)
        | {"aliases": aliases},
        "models": entries,
        "comparisons": made.comparisons(evidence),
        "worst": made.worst(items, reference, measured),
        "reproduce": [_command(step)],
    }
    _log(step, evaluation, items, reference, measured)
    _summarise(step, evaluation)
    if registered_model:  # last, when the evidence is recorded
        for entry in entries:
            if entry["version"]:
                tags = _version_tags(entry) | {"evaluation_run": step.run_id}
                version = str(entry["version"])
                record_evaluation(step.client, registered_model, version, tags, markdown(evaluation))
    if aliases:
        numbers = {label: subject.version for label, subject in subjects.items()}
        promote(step.client, registered_model, numbers.get(decision.champion), numbers.get(decision.challenger))
    given = [entry for entry in entries if entry["given"]]
    if all(entry["failed_gates"] for entry in given):
        reasons = "; ".join(f"{entry['model']}: {', '.join(entry['failed_gates'])}" for entry in given)
        raise Rejected(f"no model passes every gate of {gates} ({reasons}): see report.html of run {step.run_id}")


def _version_tags(entry: dict[str, Any]) -> dict[str, str]:
    """Return the verdict, its reason and the main metrics of a model, as tags of its version."""
    metrics = entry["metrics"]
    return {
        "gates": "; ".join(entry["failed_gates"]) or "passed",
        "promotion": entry["reason"],
        **{name: f"{metrics[name]:.6g}" for name in _TAGGED if metrics.get(name) is not None},
    }


def _mark(registered_model: str, entries: list[dict], decision: Decision, subjects: dict[str, Subject]) -> None:
    """Say on each entry what becomes of it."""
    incumbent = next((label for label, subject in subjects.items() if subject.incumbent), None)
    champion = decision.champion or incumbent
    for entry in entries:
        label = entry["model"]
        was_champion = label == incumbent and label != champion
        aliases = {champion: CHAMPION, decision.challenger: CHALLENGER}
        entry["champion"] = label == champion
        entry["alias"] = PREVIOUS if was_champion else aliases.get(label, "")
        no_version = f"no version of {registered_model}" if registered_model and not entry["version"] else ""
        entry["reason"] = decision.reasons.get(label, no_version)


def _champion(registered_model: str, entries: list[dict], decision: Decision, before: int | None) -> dict[str, Any]:
    entry = next((entry for entry in entries if entry["champion"]), None)
    after = entry["version"] if decision.champion else before
    return {
        "name": registered_model,
        "before": None if before is None else str(before),
        "after": None if after is None else str(after),
        "label": entry["model"] if entry else None,
        "decision": decision.summary,
    }


def _command(step: Step) -> str:
    import shlex

    given = " ".join(f"-P {name}={shlex.quote(value)}" for name, value in step.params.items() if value)
    return f"mlflow run . -e evaluate {given}"


def _log(step: Step, evaluation: dict, items: list[Item], reference: Reference, measured: dict[str, Measured]) -> None:
    """Inputs, metrics of the run and of each logged model, all answers, the report, and last the evaluation itself."""
    import mlflow
    import pandas as pd
    from mlflow.entities import LoggedModelInput

    from steps.evaluation.report.plots import PLOTS

    place = evaluation["evalset"]["path"]
    rows = {"question": [i.question for i in items], "expected": [i.expected_text for i in items]}
    asked = pd.DataFrame(rows)
    mlflow.log_input(mlflow.data.from_pandas(asked, source=place, name=Path(place).stem), context="evaluation")
    model_ids = [entry["model_id"] for entry in evaluation["models"] if entry["model_id"]]
    step.client.log_inputs(step.run_id, models=[LoggedModelInput(model_id) for model_id in model_ids])
    answers = {"reference": reference.answers}
    for entry in evaluation["models"]:
        label = entry["model"]
        answers[label] = [answer["text"] for answer in measured[label].answers]
        for metric, value in entry["metrics"].items():
            if value is not None:
                step.client.log_metric(step.run_id, f"{metric}/{label}", value, model_id=entry["model_id"] or None)
        if measured[label].fidelity is not None:
            step.client.log_artifact(step.run_id, str(step.scratch / f"{label}.npy"), "fidelity")
    step.client.log_table(step.run_id, asked.assign(**answers), "answers.json")
    drawn = {name: drawing for name, draw in PLOTS.items() if (drawing := draw(evaluation))}
    for name, drawing in drawn.items():
        step.client.log_text(step.run_id, drawing, f"plots/{name}.svg")
    step.client.log_text(step.run_id, html(evaluation, drawn), "report.html")
    step.log_json(evaluation, EVALUATION)


def _summarise(step: Step, evaluation: dict) -> None:
    step.tag(champion=evaluation["champion"]["label"] or "none")
    count = sum(entry["given"] for entry in evaluation["models"])
    line = f"{count} models on {evaluation['evalset']['asked']} questions, {verdict(evaluation)}"
    if evaluation["champion"]["name"] and not evaluation["champion"]["aliases"]:
        line += " (said in its tag `promotion`: this registry has no aliases)"
    step.summarise(line, markdown(evaluation))


if __name__ == "__main__":
    run_entry_point("evaluate", evaluate, check, with_full_name)
