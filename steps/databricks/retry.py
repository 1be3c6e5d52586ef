"""Connect to a workspace, and make calls again while the workspace fails for a time."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from steps.common.errors import StepError

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

_Answer = TypeVar("_Answer")
_PATIENCE_S = 300  # databricks-sdk's own limit for 429 and 503
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0


def connect() -> "tuple[WorkspaceClient, str]":
    """Return a client of the workspace that the environment or ~/.databrickscfg names, and the user's name there.

    Raises:
        StepError: there are no credentials, or the workspace rejects them or does not answer.
    """
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.errors import DatabricksError

    try:
        client = WorkspaceClient()
    except (ValueError, DatabricksError, OSError) as error:
        raise StepError(
            "no credentials of a Databricks workspace: set DATABRICKS_HOST and DATABRICKS_TOKEN, or set "
            f"DATABRICKS_CONFIG_PROFILE to a profile of ~/.databrickscfg ({_first_line(error)})"
        ) from None
    try:
        user = patiently(client, client.current_user.me).user_name
    except DatabricksError as error:
        raise StepError(
            f"the workspace {client.config.host} rejected the credentials ({_first_line(error)}): check "
            "DATABRICKS_TOKEN, or log in again"
        ) from None
    if not user:
        raise StepError(
            f"the workspace {client.config.host} knows no user name for these credentials: log in as a user"
        )
    return client, user


def patiently(
    client: "WorkspaceClient", call: Callable[[], _Answer], notice: Callable[[str], object] | None = None
) -> _Answer:
    """Return the result of a call, and make the call again while the workspace fails or can't be reached.

    databricks-sdk repeats calls after 429 and 503, for `retry_timeout_seconds` of its configuration. This function
    does so for the same time after other failures of the server and of the network.

    Args:
        call: may be made more than once without harm.
        notice: called with a line for the user before the second attempt.

    Raises:
        StepError: the failures went on for too long.
        databricks.sdk.errors.DatabricksError: the workspace rejected the call.
    """
    from databricks.sdk.errors import DatabricksError, InternalError, TemporarilyUnavailable, TooManyRequests

    patience = client.config.retry_timeout_seconds or _PATIENCE_S
    started, pause = time.monotonic(), _FIRST_PAUSE_S
    while True:
        try:
            return call()
        # The errors of requests and of the SDK are OSErrors, and so is the SDK's TimeoutError.
        except OSError as error:
            is_temporary = isinstance(error, InternalError | TemporarilyUnavailable | TooManyRequests)
            if isinstance(error, DatabricksError) and not is_temporary:
                raise
            waited = time.monotonic() - started
            if waited + pause > patience:
                raise StepError(
                    f"the workspace {client.config.host} has failed for {waited:.0f} s ({_first_line(error)}): run "
                    "again when it answers"
                ) from None
            if notice and pause == _FIRST_PAUSE_S:
                notice(f"the workspace does not answer ({_first_line(error)}): trying again")
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)


def _first_line(error: BaseException) -> str:
    """Return the first line of an error's text, at most 300 characters; the error's type if it has no text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
