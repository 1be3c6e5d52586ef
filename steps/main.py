"""main: a profile -> the whole pipeline, each step a child run; the comparison and the champion on this run's page."""

import json
import shlex
from typing import Any

from steps import convert_onnx, evaluate, fetch_model, wrap_custom, wrap_transformer
from steps.common.errors import Rejected, one_of
from steps.evaluation.report.tables import COLUMNS, markdown_table, row, text_table, verdict
from steps.project.mlproject import STEPS
from steps.project.profiles import read_profile
from steps.registry.aliases import CHAMPION, champion_version
from steps.registry.names import ensure_registered_model, with_full_name
from steps.runs.artifacts import read_json
from steps.runs.child_runs import Pipeline
from steps.runs.step import Step, run_entry_point
from steps.runs.tags import EVALUATION, MODEL_URI_TAG, SUMMARY_TAG

_UPSTREAM = {
    "fetch_model": (),
    "convert_onnx": ("fetch_model",),
    "wrap_transformer": ("fetch_model",),
    "wrap_custom": ("convert_onnx",),
    "evaluate": ("wrap_transformer", "wrap_custom"),
}
_ANY_RUN = "0" * 32  # stands for the run of a step that has not run yet


def check(params: dict[str, str]) -> None:
    """Refuse a profile, a list of steps or a step's parameter that cannot be right, before the first step."""
    one_of("reuse", params["reuse"], ("true", "false"))
    _wanted(params["steps"])
    sections = read_profile(params["profile"])
    for values in sections["fetch_model"]:
        fetch_model.check(values)
    for values in sections["convert_onnx"]:
        convert_onnx.check(values | {"checkpoint_run": _ANY_RUN})
    for values in sections["wrap_transformer"]:
        wrap_transformer.check(values | {"checkpoint_run": _ANY_RUN})
    for values in sections["wrap_custom"]:
        wrap_custom.check(values | {"onnx_run": _ANY_RUN})
    for values in sections["evaluate"]:
        evaluate.check(values | {"reference_run": _ANY_RUN, "models": "models:/any"})


def main(step: Step, profile: str, steps: str, reuse: str, experiment_note: str) -> None:
    """Fetch, convert, wrap in both ways, evaluate."""
    sections = read_profile(profile)
    wanted = _wanted(steps)
    pipeline = Pipeline(step, wanted, reuse == "true")
    for name in ("wrap_transformer", "wrap_custom"):
        if name in wanted:
            for section in sections[name]:
                registered_model = with_full_name(section)["registered_model"]
                ensure_registered_model(step.client, step.run_id, registered_model)
    rejected = None
    try:
        _run_steps(pipeline, sections, _with_upstream(wanted))
    except Rejected as error:  # what it was rejected for is worth showing
        rejected = error
    finally:
        _describe(step, pipeline, profile, experiment_note, None)
    evaluated = next((run for name, run, _ in pipeline.done if name == "evaluate"), None)
    evaluation = read_json(step, evaluated.info.run_id, EVALUATION) if evaluated else None
    if evaluation:
        _log_comparison(step, evaluation)
        registered_model = with_full_name(sections["evaluate"][0])["registered_model"]
        for line in _closing_lines(step, evaluation, registered_model):
            step.console.line(line)
    _describe(step, pipeline, profile, experiment_note, evaluation)
    if rejected:
        raise rejected


def _wanted(steps: str) -> tuple[str, ...]:
    if steps == "all":
        return STEPS
    return tuple(one_of("steps", name.strip(), STEPS) for name in steps.split(","))


def _with_upstream(wanted: tuple[str, ...]) -> set[str]:
    """The wanted steps and all that they depend on."""
    found, waiting = set(), list(wanted)
    while waiting:
        name = waiting.pop()
        found.add(name)
        waiting += _UPSTREAM[name]
    return found


def _run_steps(pipeline: Pipeline, sections: dict[str, list[dict[str, str]]], names: set[str]) -> None:
    """Every step of `names`; a step's upstream runs become its parameters."""
    checkpoint = pipeline.run("fetch_model", fetch_model.resolve(sections["fetch_model"][0])).info.run_id
    conversions = []
    if "convert_onnx" in names:
        for values in sections["convert_onnx"]:
            conversions.append(pipeline.run("convert_onnx", {"checkpoint_run": checkpoint} | values))
    models = []
    if "wrap_transformer" in names:
        values = with_full_name(sections["wrap_transformer"][0])
        models.append(pipeline.run("wrap_transformer", {"checkpoint_run": checkpoint} | values))
    if "wrap_custom" in names:
        values = with_full_name(sections["wrap_custom"][0])
        models += [pipeline.run("wrap_custom", {"onnx_run": run.info.run_id} | values) for run in conversions]
    if "evaluate" in names:
        uris = ",".join(run.data.tags[MODEL_URI_TAG] for run in models)
        values = with_full_name(sections["evaluate"][0])
        pipeline.run("evaluate", {"models": uris, "reference_run": checkpoint} | values)


def _log_comparison(step: Step, evaluation: dict[str, Any]) -> None:
    import pandas as pd
    from mlflow.entities import LoggedModelOutput

    made = [LoggedModelOutput(entry["model_id"], 0) for entry in evaluation["models"]]
    step.client.log_outputs(step.run_id, made)  # so that this run's page leads to the models
    step.client.log_table(step.run_id, pd.DataFrame([row(entry) for entry in evaluation["models"]]), "comparison.json")
    champion = next((entry for entry in evaluation["models"] if entry["champion"]), None)
    step.tag(champion=champion["model"] if champion else "none")
    for metric, value in (champion["metrics"] if champion else {}).items():
        if value is not None:
            step.client.log_metric(step.run_id, f"champion/{metric}", value)


def _closing_lines(step: Step, evaluation: dict[str, Any], registered_model: str) -> list[str]:
    """The table, and the exact commands for looking at it and serving it."""
    import mlflow

    store = mlflow.get_tracking_uri()
    page = f"#/experiments/{step.run.info.experiment_id}/runs/{step.run_id}"
    prefix = f"MLFLOW_TRACKING_URI={shlex.quote(store)} "
    if store.startswith("sqlite:"):
        look = f"mlflow ui --backend-store-uri {shlex.quote(store)}   then open http://127.0.0.1:5000/{page}"
    elif store.startswith("http") and "@" not in store:
        look = f"{store.rstrip('/')}/{page}"
    else:  # Databricks, or an address with a password in it
        look, prefix = f"run {step.run_id} in the MLflow UI of your tracking store", ""
    lines = ["", text_table([row(entry) for entry in evaluation["models"]]), "", f"look   {look}"]
    champion = next((entry for entry in evaluation["models"] if entry["champion"]), None)
    if not champion:
        return [*lines, verdict(evaluation)]
    uri = champion["uri"]
    if registered_model:
        uri = f"models:/{registered_model}@{CHAMPION}"
        has_alias = evaluation["champion"]["aliases"]
        bearer = champion_version(step.client, registered_model) if has_alias else None
        if bearer != str(champion["version"]):
            uri = f"models:/{registered_model}/{champion['version']}"
        if bearer != str(champion["version"]) and has_alias:
            lines.append(f"note   the alias champion has been moved since, to {bearer or 'no version'}")
    question = json.dumps({"messages": [{"role": "user", "content": "What is the capital of France?"}]})
    return [
        *lines,
        f"serve  {prefix}mlflow models serve -m {uri} --env-manager uv -p 5001",
        f"ask    curl -H 'Content-Type: application/json' -d {shlex.quote(question)} http://127.0.0.1:5001/invocations",
    ]


def _describe(step: Step, pipeline: Pipeline, profile: str, note: str, evaluation: dict[str, Any] | None) -> None:
    """This run's page: what came out, each step with a link to its run, the comparison, and the user's note."""
    experiment = step.run.info.experiment_id
    rows = []
    for name, run, reused in pipeline.done:
        link = f"[{run.info.run_id[:8]}](#/experiments/{run.info.experiment_id or experiment}/runs/{run.info.run_id})"
        summary = run.data.tags.get(SUMMARY_TAG, "").replace("|", "\\|")
        rows.append({"step": name, "run": link, "": "reused" if reused else "ran", "result": summary})
    tags: dict[str, list[str]] = {}
    for name, run, _ in pipeline.done:
        tags.setdefault(f"{name}_run", []).append(run.info.run_id)
    step.tag(profile=profile, **{key: ",".join(ids) for key, ids in tags.items()})
    outcome, parts = "not evaluated", []
    if evaluation:
        entries = evaluation["models"]
        outcome = verdict(evaluation)
        headline = f"**{outcome[0].upper()}{outcome[1:]}**"
        for cells in (row(entry) for entry in entries if entry["champion"]):
            headline += f", {cells['accuracy']} exact answers, {cells['agreement']} as in PyTorch, "
            headline += f"{cells['decode tok/s']} tokens/s in {cells['memory MB']} MB"
        parts += [headline, markdown_table([row(entry) for entry in entries], COLUMNS)]
    if rows:
        parts += ["**Steps**", markdown_table(rows, ("step", "run", "", "result"))]
    parts += [f"**Note**: {note}"] if note else []
    step.summarise(f"profile {profile}, {outcome}", "\n\n".join(parts))


if __name__ == "__main__":
    run_entry_point("main", main, check)
