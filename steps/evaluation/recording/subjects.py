"""The models that an evaluation is of: the given ones, and the champion that they are to be compared with."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from steps.common.errors import StepError
from steps.registry.aliases import champion_version
from steps.registry.versions import pinned_model, versions_by_model
from steps.runs.step import Step

if TYPE_CHECKING:
    from mlflow.models.model import ModelInfo


@dataclass(frozen=True)
class Subject:
    """A model that is evaluated: one of the given ones, or the present champion, to compare with."""

    uri: str
    model_id: str | None
    version: int | None
    given: bool
    incumbent: bool


def find_subjects(step: Step, models: str, registered_model: str) -> dict[str, Subject]:
    """The given models, and the present champion of the registered model, by label.

    A champion that can't be looked into is among them: that it can't be measured is then known.

    Args:
        models: URIs separated by commas; what is given twice counts once.

    Raises:
        StepError: one is not a model of the task llm/v1/chat, or none is a version of the registered model.
    """
    infos = {uri: _model_info(uri) for uri in (uri.strip() for uri in models.split(","))}
    versions = versions_by_model(step.client, registered_model) if registered_model else {}
    present = champion_version(step.client, registered_model) if registered_model else None
    found: dict[str, Subject] = {}
    for uri, info in infos.items():
        if info.model_id and info.model_id in [subject.model_id for subject in found.values()]:
            continue
        name, _, number = pinned_model(uri).removeprefix("models:/").rpartition("/")
        if info.model_id in versions:
            number = versions[info.model_id].version
        elif not registered_model or name != registered_model:
            number = None
        version = int(number) if number else None
        incumbent = present is not None and str(version) == present
        found[_label(uri, info, version, found)] = Subject(uri, info.model_id, version, True, incumbent)
    if registered_model and not any(subject.version for subject in found.values()):
        raise StepError(
            f"registered_model is {registered_model!r}, and none of the models is a version of it: register them with "
            "the wrap steps' registered_model, or leave it out here"
        )
    if present is not None and not any(subject.incumbent for subject in found.values()):
        uri, version = f"models:/{registered_model}/{present}", int(present)
        try:
            info = _model_info(uri)
            label, model_id = _label(uri, info, version, found), info.model_id
        except StepError:
            label, model_id = f"{registered_model}-v{present}", None
        found[label] = Subject(uri, model_id, version, False, True)
    return found


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


def _label(uri: str, info: "ModelInfo", version: int | None, taken: dict[str, Subject]) -> str:
    """A short name for tables, of letters that a metric's name may have; the URI's for models of other projects."""
    label = re.sub(r"[^\w.-]+", "-", (info.metadata or {}).get("variant") or uri.partition(":/")[2] or uri).strip("-")
    if label in taken:
        label += f"-v{version}" if version and f"{label}-v{version}" not in taken else f"-{len(taken) + 1}"
    return label
