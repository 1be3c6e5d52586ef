"""evaluate: model URIs and a fetch_model run -> a run that holds metrics per model, `evaluation.json`, the verdicts.

With a registered model: its versions get their verdicts as tags, and the fastest that passed gets the alias `champion`.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steps.checkpoint.manifest import sha256
from steps.conversion.convert import RUNTIMES, installed_versions
from steps.errors import StepError
from steps.evaluation.evalset import Item, read_evalset
from steps.evaluation.gates import choose_champion, failures, read_gates
from steps.evaluation.measure import MAX_TOKENS, SPEED, Measured, environment, figures, measure
from steps.evaluation.table import COLUMNS, markdown_table, row, verdict
from steps.tracking.checkpoint import verified_checkpoint
from steps.tracking.inputs import check_run_id
from steps.tracking.project import ROOT
from steps.tracking.registry import move_champion, versions_by_model
from steps.tracking.step import Step, run_entry_point
from steps.tracking.tags import EVALUATION

if TYPE_CHECKING:
    from mlflow.models.model import ModelInfo

_PACKAGES = ("mlflow", "torch", "transformers", *RUNTIMES)


def check(params: dict[str, str]) -> None:
    """Refuse a bad evaluation set, bad gates or no models, before any model is loaded."""
    if not all(uri.strip() for uri in params["models"].split(",")):
        raise StepError(f"models is {params['models']!r}; expected MLflow model URIs separated by commas")
    check_run_id("reference_run", params["reference_run"])
    read_evalset(ROOT / params["evalset"])
    read_gates(ROOT / params["gates"])


def evaluate(step: Step, models: str, reference_run: str, evalset: str, gates: str, registered_model: str) -> None:
    """Answer the evaluation set with each model and with PyTorch; measure, judge, record."""
    del reference_run  # read by name below
    items, limits = read_evalset(ROOT / evalset), read_gates(ROOT / gates)
    digest = sha256(ROOT / evalset)
    infos = {uri.strip(): _model_info(uri.strip()) for uri in models.split(",")}
    versions = _versions(step, registered_model, infos)
    folder, manifest = verified_checkpoint(step, "reference_run")
    with step.console.bar_class()(total=len(items) * (1 + len(infos)), unit="answer", desc="evaluating") as bar:
        reference = measure("reference", str(folder), items, step.scratch, bar.update)
        measured = {uri: measure("model", uri, items, step.scratch, bar.update) for uri in infos}

    entries = []
    for uri, info in infos.items():
        metrics = figures(measured[uri], items, reference.answers)
        version = versions.get(info.model_id)
        entries.append(
            {
                "model": _label(uri, info, [entry["model"] for entry in entries]),
                "uri": uri,
                "model_id": info.model_id,
                "version": version.version if version else None,
                "metrics": metrics,
                "failed_gates": failures(limits, metrics),
                "samples": {"ttft_s": measured[uri].ttft_s, "decode_s_and_tokens": measured[uri].decode},
            }
        )
    able = [entry for entry in entries if entry["version"] or not registered_model]  # to bear the alias
    champion = choose_champion({entry["uri"]: entry["metrics"] for entry in able if not entry["failed_gates"]})
    for entry in entries:
        entry["champion"] = entry["uri"] == champion
    evaluation = {
        "checkpoint": manifest["source"],
        "evalset": {"path": evalset, "items": len(items), "sha256": digest},
        "gates": {"path": gates, "limits": [vars(limit) for limit in limits]},
        "answers": {"max_tokens": MAX_TOKENS},
        "speed": SPEED,
        "environment": environment(installed_versions(_PACKAGES)),
        "models": entries,
    }
    _log(step, evaluation, items, reference, measured)
    if registered_model:
        _judge_versions(step, registered_model, entries)
    _summarise(step, evaluation, registered_model)


def _model_info(uri: str) -> "ModelInfo":
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        info = mlflow.models.get_model_info(uri)
    except (MlflowException, OSError) as error:
        raise StepError(f"models: {uri!r} is not an MLflow model ({' '.join(str(error).split())})") from None
    if info.signature and "messages" not in info.signature.inputs.input_names():
        raise StepError(
            f"models: {uri!r} takes {', '.join(info.signature.inputs.input_names())}; expected messages, a model of "
            "the task llm/v1/chat"
        )
    return info


def _versions(step: Step, registered_model: str, infos: dict[str, "ModelInfo"]) -> dict[str, Any]:
    """Logged model ID -> registered version, of the models that are versions of it."""
    if not registered_model:
        return {}
    versions = versions_by_model(step.client, registered_model)
    if not any(info.model_id in versions for info in infos.values()):
        raise StepError(
            f"registered_model is {registered_model!r}, and none of the models is a version of it: register them with "
            "the wrap steps' registered_model, or leave it out here"
        )
    return versions


def _label(uri: str, info: "ModelInfo", taken: list[str]) -> str:
    """A short name for tables, of letters that a metric's name may have; the URI's for models of other projects."""
    label = re.sub(r"[^\w.-]+", "-", (info.metadata or {}).get("variant") or uri.partition(":/")[2] or uri).strip("-")
    return label if label not in taken else f"{label}-{len(taken) + 1}"


def _log(step: Step, evaluation: dict, items: list[Item], reference: Measured, measured: dict[str, Measured]) -> None:
    """Inputs, metrics of the run and of each logged model, the table of all answers, and last the evaluation itself."""
    import mlflow
    import pandas as pd
    from mlflow.entities import LoggedModelInput

    place = evaluation["evalset"]["path"]
    asked = pd.DataFrame({"question": [item.question for item in items], "expected": [item.expected for item in items]})
    mlflow.log_input(mlflow.data.from_pandas(asked, source=place, name=Path(place).stem), context="evaluation")
    model_ids = [entry["model_id"] for entry in evaluation["models"] if entry["model_id"]]
    step.client.log_inputs(step.run_id, models=[LoggedModelInput(model_id) for model_id in model_ids])
    answers = {"reference": reference.answers}
    for entry in evaluation["models"]:
        answers[entry["model"]] = measured[entry["uri"]].answers
        for metric, value in entry["metrics"].items():
            if value is not None:
                step.client.log_metric(
                    step.run_id, f"{metric}/{entry['model']}", value, model_id=entry["model_id"] or None
                )
    step.client.log_table(step.run_id, asked.assign(**answers), "answers.json")
    step.log_json(evaluation, EVALUATION)


def _judge_versions(step: Step, registered_model: str, entries: list[dict]) -> None:
    judged = [entry for entry in entries if entry["version"]]
    for entry in judged:
        shown = row(entry)
        tags = {
            "gates": "; ".join(entry["failed_gates"]) or "passed",
            "evaluation_run": step.run_id,
            "accuracy": shown["accuracy"],
            "agreement": shown["agreement"],
            "decode_tokens_per_s": shown["decode tok/s"],
        }
        for key, value in tags.items():
            step.client.set_model_version_tag(registered_model, entry["version"], key, value)
    champion = next((entry["version"] for entry in judged if entry["champion"]), None)
    move_champion(step.client, registered_model, champion, [str(entry["version"]) for entry in judged])


def _summarise(step: Step, evaluation: dict, registered_model: str) -> None:
    entries = evaluation["models"]
    step.tag(champion=next((entry["model"] for entry in entries if entry["champion"]), "none"))
    step.summarise(
        f"{len(entries)} models on {evaluation['evalset']['items']} questions, {verdict(entries)}",
        f"**{verdict(entries)}**{f' of `{registered_model}`' if registered_model else ''}\n\n"
        + markdown_table([row(entry) for entry in entries], COLUMNS)
        + f"\n\n{evaluation['evalset']['items']} questions of `{evaluation['evalset']['path']}`, gates of "
        f"`{evaluation['gates']['path']}`, on {evaluation['environment']['usable_cpus']} CPUs "
        f"({evaluation['environment']['cpu']}). Raw samples: `{EVALUATION}`; every answer: `answers.json`.",
    )


if __name__ == "__main__":
    run_entry_point("evaluate", evaluate, check)
