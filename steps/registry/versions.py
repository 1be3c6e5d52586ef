"""Logged models and registered versions."""

import re
from typing import TYPE_CHECKING, Any

from steps.common.errors import StepError
from steps.registry.names import ensure_registered_model, refusals
from steps.runs.step import Step
from steps.runs.tags import MODEL_URI_TAG, VERSION_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models.model import ModelInfo

_TAGGED = ("accuracy", "agreement", "kl_mean", "ln_perplexity_ratio", "decode_tokens_per_s", "ttft_ms", "size_mb")
_EVALUATION_BELOW = "\n\n---\n\n"


def publish(step: Step, info: "ModelInfo", registered_model: str, tags: dict[str, str], description: str) -> str:
    """Record the logged model on its run, and register it as a version with tags and description where asked.

    Returns:
        what was done, for the step's summary line.

    Raises:
        StepError: the name is a prompt's, or somebody else's.
    """
    step.tag(**{MODEL_URI_TAG: info.model_uri}, **tags)
    step.client.set_logged_model_tags(info.model_id, tags)
    if not registered_model:
        return info.model_uri
    ensure_registered_model(step, registered_model)
    with refusals(registered_model):
        version = step.client.create_model_version(
            registered_model,
            source=info.model_uri,
            run_id=step.run_id,
            tags=tags,
            description=description,
            model_id=info.model_id,
        )
    step.tag(**{VERSION_TAG: f"{registered_model}/{version.version}"})
    return f"{registered_model} version {version.version}"


def versions_by_model(client: "MlflowClient", registered_model: str) -> dict[str, "ModelVersion"]:
    """Logged model ID -> the latest version of the registered model that was made from it."""
    found: dict[str, Any] = {}
    for version in client.search_model_versions(f"name = '{registered_model}'"):
        # Not every registry keeps model_id. The source has it then: models:/m-..., or a folder with its name.
        in_source = re.search(r"(?<![^/])m-[0-9a-f]{32}(?![^/])", version.source or "")
        model_id = version.model_id or (in_source[0] if in_source else None)
        if model_id and (model_id not in found or int(version.version) > int(found[model_id].version)):
            found[model_id] = version
    return found


def pinned_model(uri: str, parameter: str = "source") -> str:
    """`models:/name@alias` as `models:/name/version`; any other URI as it is.

    Raises:
        StepError: no such model or alias.
    """
    name, _, alias = uri.removeprefix("models:/").partition("@")
    if not uri.startswith("models:/") or not alias:
        return uri
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        return f"models:/{name}/{MlflowClient().get_model_version_by_alias(name, alias).version}"
    except MlflowException as error:
        raise StepError(f"{parameter} is {uri!r}: {' '.join(str(error).split())}") from None


def record_verdicts(step: Step, registered_model: str, entries: list[dict[str, Any]], description: str) -> None:
    """Leave on each evaluated version what it scored, its verdict and the reason, as tags and in its description.

    Args:
        entries: models of evaluation.json.
        description: Markdown, put in the place of an earlier evaluation's.
    """
    for entry in entries:
        if not entry["version"]:
            continue
        version, metrics = str(entry["version"]), entry["metrics"]
        tags = {
            "gates": "; ".join(entry["failed_gates"]) or "passed",
            "promotion": entry["reason"],
            "evaluation_run": step.run_id,
            **{name: f"{metrics[name]:.6g}" for name in _TAGGED if metrics.get(name) is not None},
        }
        for key, value in tags.items():
            step.client.set_model_version_tag(registered_model, version, key, value)
        own = step.client.get_model_version(registered_model, version).description or ""
        own = own.partition(_EVALUATION_BELOW)[0]
        step.client.update_model_version(registered_model, version, own + _EVALUATION_BELOW + description)
