"""Describe the cause of a failure in one line. For common failures, the line tells the user what to do."""

import errno
import re

from steps.common.errors import StepError
from steps.runs.redaction import redact

_NO_ANSWER = re.compile(r"failed with exception .*?(Connection|Timeout|Max retries)", re.DOTALL)
_DENIED = re.compile(r"error code (401|403)\b|PERMISSION_DENIED|UNAUTHENTICATED")


def one_line(error: BaseException) -> str:
    """Return the cause as one line without secrets; with the type of the error unless the line is for the user."""
    text = " ".join(str(error).split())
    if advice := _advice(error, text):
        return redact(advice)
    return redact(text if isinstance(error, StepError) else f"{type(error).__name__}: {text}")


def is_for_the_user(error: BaseException) -> bool:
    """Return whether the line says all that the user needs, so that a traceback would tell no more."""
    return isinstance(error, StepError) or bool(_advice(error, str(error)))


def _advice(error: BaseException, text: str) -> str:
    """Return what happened and what to do, for a failure of the machine or of the tracking server; else nothing."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return (
            f"the disk is full ({error.filename or text}): free some space, or set TMPDIR to a folder on a larger "
            "disk, and run again"
        )
    from mlflow import get_tracking_uri
    from mlflow.exceptions import MlflowException

    if not isinstance(error, MlflowException):
        return ""
    if _DENIED.search(text):
        return (
            f"the tracking server {get_tracking_uri()} rejected the credentials or denied the permission "
            f"({text[:300]}): check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
        )
    if _NO_ANSWER.search(text):
        return (
            f"the tracking server {get_tracking_uri()} does not answer: check MLFLOW_TRACKING_URI, and run again when "
            "it answers; finished steps are reused"
        )
    return ""
