"""Logged models, registered versions and their aliases."""

import contextlib
import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from steps.common.errors import StepError, one_of
from steps.runs.step import Step
from steps.runs.tags import CREATED_MODEL_TAG, MODEL_URI_TAG, VERSION_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models.model import ModelInfo

TASKS = ("llm/v1/chat", "llm/v1/completions")
QUESTION = "What is the capital of France?"
INPUT_EXAMPLES = {  # with the parameters, where a task has any
    "llm/v1/chat": {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 16},
    "llm/v1/completions": ({"prompt": f"<|user|>\n{QUESTION}<|end|>\n<|assistant|>\n"}, {"max_tokens": 16}),
}
MAX_TOKENS = 256  # of an answer where the request says nothing, in both wrappers
CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"  # aliases
_TAGGED = ("accuracy", "agreement", "kl_mean", "ln_perplexity_ratio", "decode_tokens_per_s", "ttft_ms", "size_mb")
UC_SCHEMA = "PHI_MLFLOW_UC_SCHEMA"
_REFUSALS = ("PERMISSION_DENIED", "RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
_EVALUATION_BELOW = "\n\n---\n\n"


def check_wrapping(params: dict[str, str]) -> None:
    """Refuse what can't be wrapped so, before any work."""
    one_of("task", params["task"], TASKS)
    with_full_name(params)


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
    with _refusals(registered_model):
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
    with _refusals(registered_model):
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
def _refusals(registered_model: str) -> Iterator[None]:
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


def champion_version(client: "MlflowClient", registered_model: str) -> str | None:
    """The version that bears the alias `champion` now."""
    version = client.get_registered_model(registered_model).aliases.get(CHAMPION)
    return None if version is None else str(version)


def has_aliases(client: "MlflowClient", registered_model: str) -> bool:
    """Whether the registry knows aliases. Databricks' workspace registry and servers before MLflow 2.3 don't."""
    from mlflow.exceptions import MlflowException

    try:
        client.get_model_version_by_alias(registered_model, CHAMPION)
    except MlflowException as error:
        return error.error_code != "ENDPOINT_NOT_FOUND" and "unsupported" not in str(error)
    return True


def promote(client: "MlflowClient", registered_model: str, champion: int | None, challenger: int | None) -> None:
    """Move the aliases: `champion`, which leaves `previous` where it was, and `challenger`.

    Args:
        champion: the version that takes the alias over; None where it stays.
        challenger: the best version that does not; None leaves that alias where it is.
    """
    before = champion_version(client, registered_model)
    if champion is not None and str(champion) != before:
        if before is not None:
            client.set_registered_model_alias(registered_model, PREVIOUS, before)
        client.set_registered_model_alias(registered_model, CHAMPION, str(champion))
    if challenger is not None:
        client.set_registered_model_alias(registered_model, CHALLENGER, str(challenger))
    aliases = client.get_registered_model(registered_model).aliases
    for alias in (CHALLENGER, PREVIOUS):
        if alias in aliases and str(aliases[alias]) == str(aliases.get(CHAMPION)):
            client.delete_registered_model_alias(registered_model, alias)


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
