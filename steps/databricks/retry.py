"""The workspace's answers that mean "later", and those that a person has to mend."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from steps.common.errors import StepError

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

T = TypeVar("T")
_PATIENCE_S = 300  # as databricks-sdk's own for 429 and 503


def connect() -> "tuple[WorkspaceClient, str]":
    """A client of the workspace that the environment or ~/.databrickscfg names, and the user whom it takes us for.

    Raises:
        StepError: there are none, or the workspace refuses them or does not answer.
    """
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.errors import DatabricksError

    try:
        client = WorkspaceClient()
    except (ValueError, DatabricksError, OSError) as error:
        raise StepError(
            "no credentials of a Databricks workspace: set DATABRICKS_HOST and DATABRICKS_TOKEN, or "
            f"DATABRICKS_CONFIG_PROFILE to a profile of ~/.databrickscfg ({_first_line(error)})"
        ) from None
    try:
        user = patiently(client, client.current_user.me).user_name
    except DatabricksError as error:
        raise StepError(
            f"the workspace {client.config.host} refuses the credentials ({_first_line(error)}): check "
            "DATABRICKS_TOKEN, or log in again"
        ) from None
    return client, user


def patiently(client: "WorkspaceClient", call: Callable[[], T], notice: Callable[[str], object] | None = None) -> T:
    """The result of a call that may be made again: it is, while the workspace fails or can't be reached.

    databricks-sdk itself makes calls again after 429 and 503, for `retry_timeout_seconds` of its configuration; this
    does so, as long, after other failures of the server and of the network.

    Args:
        notice: called with a line for the user before the second attempt.

    Raises:
        StepError: it went on for too long.
        databricks.sdk.errors.DatabricksError: the call was refused.
    """
    from databricks.sdk.errors import DatabricksError, InternalError, TemporarilyUnavailable, TooManyRequests

    patience = client.config.retry_timeout_seconds or _PATIENCE_S
    started, pause = time.monotonic(), 0.5
    while True:
        try:
            return call()
        except OSError as error:  # as requests' errors are, and the SDK's own, and the TimeoutError of its patience
            later = isinstance(error, InternalError | TemporarilyUnavailable | TooManyRequests)
            if isinstance(error, DatabricksError) and not later:
                raise
            waited = time.monotonic() - started
            if waited + pause > patience:
                raise StepError(
                    f"the workspace {client.config.host} has failed for {waited:.0f} s ({_first_line(error)}): run "
                    "again when it answers"
                ) from None
            if notice and pause == 0.5:
                notice(f"the workspace does not answer ({_first_line(error)}): trying again")
            time.sleep(pause)
            pause = min(2 * pause, 30)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
