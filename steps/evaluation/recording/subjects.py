"""Find the models that an evaluation is of, and the champion that they are compared with."""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from steps.common.errors import StepError
from steps.evaluation.subject import Subject, input_names
from steps.registry.aliases import champion_version
from steps.registry.versions import pinned_model, versions_by_model

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models.model import ModelInfo


def find_subjects(client: "MlflowClient", uris: Iterable[str], registered_model: str) -> tuple[Subject, ...]:
    """Return the given models, and the present champion of the registered model.

    A champion that cannot be read is included, so that measuring it can say so. A model that is given twice counts
    once.

    Args:
        registered_model: empty for none.

    Raises:
        StepError: a given model does not have the task llm/v1/chat, or none of them is a version of the registered
            model.
    """
    versions = versions_by_model(client, registered_model) if registered_model else {}
    champion = champion_version(client, registered_model) if registered_model else None
    subjects: dict[str, Subject] = {}  # by label
    for uri, info in {uri: _model_info(uri) for uri in uris}.items():
        if info.model_id and info.model_id in [subject.model_id for subject in subjects.values()]:
            continue
        version = _version_of(uri, info, registered_model, versions)
        label = _label(uri, info, version, subjects)
        is_champion = champion is not None and str(version) == champion
        subjects[label] = Subject(label, uri, info.model_id, version, given=True, is_champion=is_champion)
    if registered_model and not any(subject.version for subject in subjects.values()):
        raise StepError(
            f"registered_model is {registered_model!r}, and none of the models is a version of it: register them with "
            "the wrap steps' registered_model, or leave it out here"
        )
    given = tuple(subjects.values())
    if champion is None or any(subject.is_champion for subject in given):
        return given
    return (*given, _present_champion(registered_model, int(champion), subjects))


def _version_of(uri: str, info: "ModelInfo", registered_model: str, versions: "dict[str, ModelVersion]") -> int | None:
    """Return the version of the registered model that a model is; None if it is none.

    Args:
        versions: of the registered model, by model ID.
    """
    if info.model_id in versions:
        return int(versions[info.model_id].version)
    name, _, number = pinned_model(uri).removeprefix("models:/").rpartition("/")
    return int(number) if registered_model and name == registered_model and number.isdigit() else None


def _present_champion(registered_model: str, version: int, others: dict[str, Subject]) -> Subject:
    uri = f"models:/{registered_model}/{version}"
    try:
        info = _model_info(uri)
        label, model_id = _label(uri, info, version, others), info.model_id
    except StepError:
        label, model_id = f"{registered_model}-v{version}", None
    return Subject(label, uri, model_id, version, given=False, is_champion=True)


def _model_info(uri: str) -> "ModelInfo":
    """Return what MLflow knows of a model.

    Raises:
        StepError: the URI names no model, or the model takes no messages.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        info = mlflow.models.get_model_info(uri)
    except (MlflowException, OSError) as error:
        raise StepError(f"models: {uri!r} is not an MLflow model ({' '.join(str(error).split())})") from None
    names = input_names(info)
    if "messages" not in names:
        raise StepError(
            f"models: {uri!r} takes {', '.join(names)}; expected a model that takes messages, of the task llm/v1/chat"
        )
    return info


def _label(uri: str, info: "ModelInfo", version: int | None, taken: dict[str, Subject]) -> str:
    """Return a short name for tables, in letters that the name of a metric may have.

    It is the variant that a wrap step recorded, else the end of the URI. A version or a number tells equal names apart.
    """
    name = (info.metadata or {}).get("variant") or uri.partition(":/")[2] or uri
    label = re.sub(r"[^\w.-]+", "-", name).strip("-")
    if label not in taken:
        return label
    if version and f"{label}-v{version}" not in taken:
        return f"{label}-v{version}"
    return f"{label}-{len(taken) + 1}"
