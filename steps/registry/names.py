"""Names of registered models: what a registry accepts, and who creates a name that does not exist yet."""

import contextlib
import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from steps.common.errors import StepError
from steps.runs.tags import CREATED_MODEL_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient

UC_SCHEMA = "PHI_MLFLOW_UC_SCHEMA"  # environment variable: the catalog.schema of names without a dot
_REJECTED_NAME = ("PERMISSION_DENIED", "RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


def with_full_name(params: dict[str, str]) -> dict[str, str]:
    """Return the parameters with `registered_model` as the registry knows it.

    Unity Catalog names a model `catalog.schema.model`. There, a name without a dot gets the schema that the environment
    variable PHI_MLFLOW_UC_SCHEMA holds. Every other registry takes the name as it is.

    Raises:
        StepError: this registry does not accept the name.
    """
    import mlflow

    name = params["registered_model"]
    if re.search(r"[/:]", name) or name != name.strip():
        raise StepError(f"registered_model is {name!r}; expected a name without '/' or ':', and no space at either end")
    if not name or not mlflow.get_registry_uri().startswith(("databricks-uc", "uc:")):
        return params
    schema = os.environ.get(UC_SCHEMA, "")
    full_name = f"{schema}.{name}" if schema and "." not in name else name
    if not re.fullmatch(r"[^.\s]+\.[^.\s]+\.[^.\s]+", full_name):
        raise StepError(
            f"registered_model is {full_name!r}; Unity Catalog expects catalog.schema.model: give the full name, or "
            f"set {UC_SCHEMA} to the catalog.schema of names without a dot"
        )
    return params | {"registered_model": full_name}


def model_name(checkpoint: str, variant: str) -> str:
    """Return a name for a logged model. MLflow allows none of the characters / : . % \" ' in it."""
    return re.sub(r"[^\w-]+", "-", f"{checkpoint.rpartition('/')[2]}-{variant}")


def ensure_registered_model(client: "MlflowClient", run_id: str, registered_model: str) -> None:
    """Create the registered model if it does not exist, so that a rejected name is known before any work.

    A tag of the run names the created model. If the run fails, cleanup deletes the model, unless it has a version.

    Args:
        run_id: the open run that needs the model.
        registered_model: the full name; empty if the run registers nothing.

    Raises:
        StepError: the name belongs to a prompt, or the registry rejects the name.
    """
    from mlflow.exceptions import MlflowException

    # A user who may add versions to a model need not have the permission to create a model: look before creating.
    if not registered_model or _exists(client, registered_model):
        return
    with explained_rejection(registered_model):
        try:
            client.create_registered_model(registered_model)
        except MlflowException as error:
            # Another run created the model first, or the name belongs to a prompt. Only a model can be read back.
            if error.error_code == "RESOURCE_ALREADY_EXISTS" and _exists(client, registered_model):
                return
            raise
        client.set_tag(run_id, CREATED_MODEL_TAG, registered_model)


def _exists(client: "MlflowClient", registered_model: str) -> bool:
    """Return whether the registry has a model of this name that this user may read."""
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(registered_model)
    except MlflowException:
        # Registries report a missing model in different ways. If something else is wrong, the attempt to create tells.
        return False
    return True


@contextlib.contextmanager
def explained_rejection(registered_model: str) -> Iterator[None]:
    """Turn the registry's rejection of a name into a StepError that says what to do."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code not in _REJECTED_NAME:
            raise
        raise StepError(
            f"registered_model is {registered_model!r}, and the registry rejected it ({' '.join(str(error).split())}): "
            "choose another name, or ask for permission to use this name"
        ) from None
