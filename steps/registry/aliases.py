"""Promotion: the aliases `champion`, `challenger` and `previous` of a registered model.

Invariant: once a model has a champion, the alias `champion` always names a version. Aliases can't be moved together
in one transaction, and people serve `models:/name@champion` meanwhile. So each move is one call, in this order:

    before        champion -> 3
    1. previous   -> 3            a rollback target exists before the champion changes
    2. champion   -> 5            one call: no moment without a champion
    3. challenger -> 4
    4. delete `challenger` and `previous` if they name the champion

If the process dies between two calls, the aliases are still valid, and the next evaluation completes them.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"


def champion_version(client: "MlflowClient", registered_model: str) -> str | None:
    """Return the version that the alias `champion` names now; None if no version has the alias."""
    version = client.get_registered_model(registered_model).aliases.get(CHAMPION)
    return None if version is None else str(version)


def has_aliases(client: "MlflowClient", registered_model: str) -> bool:
    """Return whether the registry supports aliases.

    The workspace registry of Databricks and MLflow servers before 2.3 do not.
    """
    from mlflow.exceptions import MlflowException

    try:
        client.get_model_version_by_alias(registered_model, CHAMPION)
    except MlflowException as error:
        return error.error_code != "ENDPOINT_NOT_FOUND" and "unsupported" not in str(error)
    return True


def promote(client: "MlflowClient", registered_model: str, champion: int | None, challenger: int | None) -> None:
    """Move the aliases `champion` and `challenger`; `previous` gets the version that was the champion.

    Args:
        champion: the version that becomes the champion; None if the champion stays.
        challenger: the best version that does not become the champion; None if the alias stays where it is.
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
