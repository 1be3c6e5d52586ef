"""main: a profile -> the whole pipeline, each step a child run; the comparison and the champion on this run's page."""

import itertools
import json
import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from steps import convert_onnx, evaluate, fetch_model, wrap_custom, wrap_transformer
from steps.common.errors import Rejected, one_of
from steps.evaluation.metrics import METRICS
from steps.evaluation.report.formatting import capitalised
from steps.evaluation.report.tables import Table, comparison_table, markdown_table, text_table, value_text
from steps.evaluation.report.wording import verdict_sentence
from steps.evaluation.results import EvaluatedModel, Evaluation
from steps.project.plan import PLAN, STEPS, with_upstream
from steps.project.profiles import Section, read_profile
from steps.registry.aliases import CHAMPION, champion_version
from steps.registry.names import ensure_registered_model, with_full_name
from steps.runs.artifacts import read_document
from steps.runs.child_runs import Pipeline
from steps.runs.entry_point import run_entry_point
from steps.runs.step import Step
from steps.runs.tags import EVALUATION, MODEL_URI_TAG, SUMMARY_TAG

if TYPE_CHECKING:
    from mlflow.entities import Run

_ANY_RUN = "0" * 32  # stands for the run of a step that has not run yet


class _Callbacks(NamedTuple):
    """What a step's module does with its parameters before the step runs."""

    check: Callable[[Section], None]
    resolve: Callable[[Section], Section] = lambda section: section


_CALLBACKS = {
    "fetch_model": _Callbacks(fetch_model.check, fetch_model.resolve),
    "convert_onnx": _Callbacks(convert_onnx.check),
    "wrap_transformer": _Callbacks(wrap_transformer.check, with_full_name),
    "wrap_custom": _Callbacks(wrap_custom.check, with_full_name),
    "evaluate": _Callbacks(evaluate.check, with_full_name),
}


def check(params: dict[str, str]) -> None:
    """Raise StepError if the profile, the list of steps or a step's parameter can't be right. No step has run yet."""
    one_of("reuse", params["reuse"], ("true", "false"))
    _wanted(params["steps"])
    for name, sections in read_profile(params["profile"]).items():
        placeholders = dict.fromkeys(PLAN[name].run_parameters, _ANY_RUN)
        if PLAN[name].models_of:
            placeholders["models"] = "models:/any"
        for section in sections:
            _CALLBACKS[name].check(section | placeholders)


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
        _run_steps(pipeline, sections, with_upstream(wanted))
    except Rejected as error:  # the evidence against the models is worth showing
        rejected = error
    finally:
        _describe(step, pipeline, profile, experiment_note, None)
    evaluated = next((run for name, run, _ in pipeline.done if name == "evaluate"), None)
    evaluation = read_document(step.client, evaluated.info.run_id, EVALUATION, Evaluation) if evaluated else None
    if evaluation:
        _log_comparison(step, evaluation)
        registered_model = with_full_name(sections["evaluate"][0])["registered_model"]
        for line in _closing_lines(step, evaluation, registered_model):
            step.console.line(line)
    _describe(step, pipeline, profile, experiment_note, evaluation)
    if rejected:
        raise rejected


def _wanted(steps: str) -> tuple[str, ...]:
    """Return the steps that the parameter `steps` names."""
    if steps == "all":
        return STEPS
    return tuple(one_of("steps", name.strip(), STEPS) for name in steps.split(","))


def _run_steps(pipeline: Pipeline, sections: dict[str, list[Section]], names: tuple[str, ...]) -> None:
    """Run the named steps in the order of the plan, once for each section and each combination of upstream runs."""
    runs: dict[str, list[Run]] = {}
    for name in names:
        runs[name] = [
            pipeline.run(name, inputs | _CALLBACKS[name].resolve(section))
            for inputs in _inputs(name, runs)
            for section in sections[name]
        ]


def _inputs(name: str, runs: dict[str, list["Run"]]) -> list[dict[str, str]]:
    """Return the parameters that hand upstream runs to a step, one dictionary for each combination of runs."""
    planned = PLAN[name]
    models = {}
    if planned.models_of:
        uris = [run.data.tags[MODEL_URI_TAG] for upstream in planned.models_of for run in runs[upstream]]
        models["models"] = ",".join(uris)
    upstream_runs = [runs[upstream] for upstream in planned.run_parameters.values()]
    return [
        models | {key: run.info.run_id for key, run in zip(planned.run_parameters, combination, strict=True)}
        for combination in itertools.product(*upstream_runs)
    ]


def _log_comparison(step: Step, evaluation: Evaluation) -> None:
    """Log the comparison as a table, link the models to this run, and log the champion's metrics."""
    import pandas as pd
    from mlflow.entities import LoggedModelOutput

    models = [LoggedModelOutput(model.model_id, 0) for model in evaluation.models if model.model_id]
    step.client.log_outputs(step.run_id, models)  # so that this run's page leads to the models
    table = comparison_table(evaluation)
    step.client.log_table(step.run_id, pd.DataFrame(table.rows, columns=list(table.columns)), "comparison.json")
    champion = evaluation.champion_model
    step.tag(champion=champion.label if champion else "none")
    for name, figure in (champion.figures if champion else {}).items():
        if figure.value is not None:
            step.client.log_metric(step.run_id, f"champion/{name}", figure.value)


def _closing_lines(step: Step, evaluation: Evaluation, registered_model: str) -> list[str]:
    """Return the table, and the exact commands that show the run and serve the champion."""
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
    lines = ["", text_table(comparison_table(evaluation)), "", f"look   {look}"]
    champion = evaluation.champion_model
    if not champion:
        return [*lines, verdict_sentence(evaluation)]
    uri = champion.uri
    if registered_model:
        uri = f"models:/{registered_model}@{CHAMPION}"
        has_aliases = evaluation.champion.has_aliases
        version_now = champion_version(step.client, registered_model) if has_aliases else None
        if version_now != str(champion.version):
            uri = f"models:/{registered_model}/{champion.version}"
        if version_now != str(champion.version) and has_aliases:
            lines.append(f"note   the alias champion has been moved since, to {version_now or 'no version'}")
    question = json.dumps({"messages": [{"role": "user", "content": "What is the capital of France?"}]})
    return [
        *lines,
        f"serve  {prefix}mlflow models serve -m {uri} --env-manager uv -p 5001",
        f"ask    curl -H 'Content-Type: application/json' -d {shlex.quote(question)} http://127.0.0.1:5001/invocations",
    ]


def _describe(step: Step, pipeline: Pipeline, profile: str, note: str, evaluation: Evaluation | None) -> None:
    """Write this run's page: the verdict, the comparison, each step with a link to its run, and the user's note."""
    experiment = step.run.info.experiment_id
    rows = []
    for name, run, reused in pipeline.done:
        link = f"[{run.info.run_id[:8]}](#/experiments/{run.info.experiment_id or experiment}/runs/{run.info.run_id})"
        rows.append((name, link, "reused" if reused else "ran", run.data.tags.get(SUMMARY_TAG, "")))
    tags: dict[str, list[str]] = {}
    for name, run, _ in pipeline.done:
        tags.setdefault(f"{name}_run", []).append(run.info.run_id)
    step.tag(profile=profile, **{key: ",".join(ids) for key, ids in tags.items()})
    outcome = "not evaluated"
    parts: list[str] = []
    if evaluation:
        outcome = verdict_sentence(evaluation)
        headline = f"**{capitalised(outcome)}**"
        if evaluation.champion_model:
            headline += f", {_highlights(evaluation.champion_model)}"
        parts += [headline, markdown_table(comparison_table(evaluation))]
    if rows:
        parts += ["**Steps**", markdown_table(Table(("step", "run", "", "result"), tuple(rows)))]
    parts += [f"**Note**: {note}"] if note else []
    step.summarise(f"profile {profile}, {outcome}", "\n\n".join(parts))


def _highlights(champion: EvaluatedModel) -> str:
    """Return the champion's figures in a few words."""
    accuracy, agreement, speed, memory = (
        value_text(champion, METRICS[name])
        for name in ("accuracy", "agreement", "decode_tokens_per_s", "peak_memory_mb")
    )
    return f"{accuracy} exact answers, {agreement} as in PyTorch, {speed} tokens/s in {memory} MB"


if __name__ == "__main__":
    run_entry_point("main", main, check)
