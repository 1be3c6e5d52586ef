"""Find out which model the user means, and by what its traces are known."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from steps.common.errors import StepError
from steps.registry.versions import model_id_of, pinned_model
from steps.serving.traces import MODEL, MODEL_ID

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class Watched:
    """The model whose requests are compared."""

    text: str  # what it is called in messages
    filter: str  # of MLflow's search for traces
    registered_model: str = ""
    version: str = ""  # empty: not registered, or every version
    model_id: str = ""  # of the logged model; empty if it is not known


def find_watched(client: "MlflowClient", model: str) -> Watched:
    """Return the model that the user named.

    Args:
        model: models:/NAME@ALIAS, models:/NAME/VERSION, NAME or models:/NAME for all versions, models:/m-..., or the
            address that `serve` was given.

    Raises:
        StepError: the registry has no such model, version or alias.
    """
    if "'" in model:
        raise StepError(f"model is {model!r}; expected a URI without a quotation mark")
    uri = pinned_model(model if re.search(r"[/:]", model) else f"models:/{model}", "model")
    if re.fullmatch(r"models:/+m-[0-9a-f]{32}", uri):
        return _logged_model(client, uri)
    registered = re.fullmatch(r"models:/+([^/]+)(?:/([^/]+))?", uri)
    if not registered:
        return Watched(uri, f"tags.`{MODEL}` = '{uri}'")
    name, version = registered[1], registered[2] or ""
    return _version(client, name, version) if version else _every_version(client, name)


def _logged_model(client: "MlflowClient", uri: str) -> Watched:
    from mlflow.exceptions import MlflowException

    model_id = uri.rpartition("/")[2]
    try:
        client.get_logged_model(model_id)
    except MlflowException as error:
        raise _unknown(uri, error) from None
    return Watched(uri, f"tags.`{MODEL_ID}` = '{model_id}'", model_id=model_id)


def _version(client: "MlflowClient", name: str, version: str) -> Watched:
    from mlflow.exceptions import MlflowException

    uri = f"models:/{name}/{version}"
    try:
        model_id = model_id_of(client.get_model_version(name, version)) or ""
    except MlflowException as error:
        raise _unknown(uri, error) from None
    by = f"tags.`{MODEL_ID}` = '{model_id}'" if model_id else f"tags.`{MODEL}` = '{uri}'"
    return Watched(uri, by, name, version, model_id)


def _every_version(client: "MlflowClient", name: str) -> Watched:
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(name)
    except MlflowException as error:
        raise _unknown(name, error) from None
    return Watched(f"all versions of {name}", f"tags.`{MODEL}` LIKE 'models:/{name}/%'", name)


def _unknown(model: str, error: Exception) -> StepError:
    return StepError(f"model is {model!r}: {' '.join(str(error).split())}")
