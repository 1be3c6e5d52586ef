"""Names of registered models."""

import contextlib
import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from steps.common.errors import StepError
from steps.runs.step import Step
from steps.runs.tags import CREATED_MODEL_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient

UC_SCHEMA = "PHI_MLFLOW_UC_SCHEMA"
_REFUSALS = ("PERMISSION_DENIED", "RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


def with_full_name(params: dict[str, str]) -> dict[str, str]:
    """The parameters with `registered_model` as its registry has it: in Unity Catalog `catalog.schema.model`.

    There, a name without a dot gets the schema that PHI_MLFLOW_UC_SCHEMA names.

    Raises:
        StepError: it can't be the name of a model in this registry.
    """
    import mlflow

    name = params["registered_model"]
    if re.search(r"[/:]", name) or name != name.strip():
        raise StepError(f"registered_model is {name!r}; expected a name without '/', ':' and spaces at its ends")
    if not name or not mlflow.get_registry_uri().startswith(("databricks-uc", "uc:")):
        return params
    schema = os.environ.get(UC_SCHEMA, "")
    full = f"{schema}.{name}" if schema and "." not in name else name
    if not re.fullmatch(r"[^.\s]+\.[^.\s]+\.[^.\s]+", full):
        raise StepError(
            f"registered_model is {full!r}; Unity Catalog wants catalog.schema.model: give it so, or set "
            f"{UC_SCHEMA} to the catalog.schema of names without a dot"
        )
    return params | {"registered_model": full}


def model_name(checkpoint: str, variant: str) -> str:
    """A name for a logged model: MLflow allows none of / : . % \" '."""
    return re.sub(r"[^\w-]+", "-", f"{checkpoint.rpartition('/')[2]}-{variant}")


def ensure_registered_model(step: Step, registered_model: str) -> None:
    """Create the registered model where there is none, so that a name that can't be had is known before any work.

    It is deleted again if the run fails and nobody has registered a version by then.

    Args:
        registered_model: its full name; empty for none.

    Raises:
        StepError: the name is a prompt's, or the registry refuses it.
    """
    from mlflow.exceptions import MlflowException

    # Asked for first: who may add versions to a model need not have the right to create one.
    if not registered_model or _exists(step.client, registered_model):
        return
    with refusals(registered_model):
        try:
            step.client.create_registered_model(registered_model)
        except MlflowException as error:
            faster = error.error_code == "RESOURCE_ALREADY_EXISTS" and _exists(step.client, registered_model)
            if not faster:  # than this run somebody else was; or what has the name is a prompt, which is no model
                raise
        else:
            step.tag(**{CREATED_MODEL_TAG: registered_model})


def _exists(client: "MlflowClient", registered_model: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(registered_model)
    except MlflowException:  # registries differ in how they say so; creating it tells what else is wrong
        return False
    return True


@contextlib.contextmanager
def refusals(registered_model: str) -> Iterator[None]:
    """Word what the registry says to a name that can't be had."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code not in _REFUSALS:
            raise
        raise StepError(
            f"registered_model is {registered_model!r}, which the registry refuses ({' '.join(str(error).split())}): "
            "choose another name, or ask for the right to it"
        ) from None
