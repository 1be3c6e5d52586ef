"""Versions of registered models: publish a logged model as a version, find versions, write on a version."""

import re
from typing import TYPE_CHECKING

from steps.common.errors import StepError
from steps.registry.names import ensure_registered_model, explained_rejection
from steps.runs.tags import MODEL_URI_TAG, VERSION_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models.model import ModelInfo

_EVALUATION_BELOW = "\n\n---\n\n"  # in a version's description: the wrap step's text above, the evaluation's below


def publish(
    client: "MlflowClient",
    run_id: str,
    model: "ModelInfo",
    registered_model: str,
    tags: dict[str, str],
    description: str,
) -> str:
    """Record a logged model on its run; register it as a version if the user asked for that.

    Args:
        run_id: the run that logged the model.
        registered_model: the full name; empty to register nothing.
        tags: for the run, the logged model and the version.
        description: of the version, Markdown.

    Returns:
        The model's URI, or the name and version: the end of the step's summary line.

    Raises:
        StepError: the name belongs to a prompt, or the registry rejects the name.
    """
    for key, value in {MODEL_URI_TAG: model.model_uri, **tags}.items():
        client.set_tag(run_id, key, value)
    client.set_logged_model_tags(model.model_id, tags)
    if not registered_model:
        return model.model_uri
    ensure_registered_model(client, run_id, registered_model)
    with explained_rejection(registered_model):
        version = client.create_model_version(
            registered_model,
            source=model.model_uri,
            run_id=run_id,
            tags=tags,
            description=description,
            model_id=model.model_id,
        )
    client.set_tag(run_id, VERSION_TAG, f"{registered_model}/{version.version}")
    return f"{registered_model} version {version.version}"


def versions_by_model(client: "MlflowClient", registered_model: str) -> "dict[str, ModelVersion]":
    """Return logged model ID -> the latest version of the registered model that was made from that logged model."""
    latest: dict[str, ModelVersion] = {}
    for version in client.search_model_versions(f"name = '{registered_model}'"):
        model_id = model_id_of(version)
        if model_id and (model_id not in latest or int(version.version) > int(latest[model_id].version)):
            latest[model_id] = version
    return latest


def model_id_of(version: "ModelVersion") -> str | None:
    """Return the ID of the logged model that a version was made from; None if the registry does not tell."""
    # Some registries do not keep model_id. Their source holds the ID: models:/m-..., or a folder of that name.
    id_in_source = re.search(r"(?<![^/])m-[0-9a-f]{32}(?![^/])", version.source or "")
    return version.model_id or (id_in_source[0] if id_in_source else None)


def pinned_model(uri: str, parameter: str = "source") -> str:
    """Return `models:/name@alias` as `models:/name/version`; return any other URI as it is.

    Args:
        parameter: the parameter that the user gave the URI in, for errors.

    Raises:
        StepError: the model or the alias does not exist.
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


def record_evaluation(
    client: "MlflowClient", registered_model: str, version: str, tags: dict[str, str], description: str
) -> None:
    """Set tags on an evaluated version, and write the evaluation below the version's own description.

    Args:
        description: Markdown. It replaces the text of an earlier evaluation.
    """
    for key, value in tags.items():
        client.set_model_version_tag(registered_model, version, key, value)
    current = client.get_model_version(registered_model, version).description or ""
    without_evaluation = current.partition(_EVALUATION_BELOW)[0]
    client.update_model_version(registered_model, version, without_evaluation + _EVALUATION_BELOW + description)
