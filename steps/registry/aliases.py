"""Aliases of registered models."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"  # aliases


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
