"""The cause of a failure as one line, in the words of the person who is to mend it where that can be told."""

import errno
import re

from steps.common.errors import StepError
from steps.runs.redaction import redact

_NO_ANSWER = re.compile(r"failed with exception .*?(Connection|Timeout|Max retries)", re.DOTALL)
_NOT_ALLOWED = re.compile(r"error code (401|403)\b|PERMISSION_DENIED|UNAUTHENTICATED")


def one_line(error: BaseException) -> str:
    """The cause as one line, with the type's name unless it was written for the user."""
    text = " ".join(str(error).split())
    if known := _known(error, text):
        return redact(known)
    return redact(text if isinstance(error, StepError) else f"{type(error).__name__}: {text}")


def is_for_the_user(error: BaseException) -> bool:
    """Whether the line says all: what is to be mended is not in this project, and a traceback tells no more."""
    return isinstance(error, StepError) or bool(_known(error, str(error)))


def _known(error: BaseException, text: str) -> str:
    """What is to be done, for a failure of the machine or of the tracking server; else nothing."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return (
            f"the disk is full ({error.filename or text}): free some space, or set TMPDIR to a larger disk, and rerun"
        )
    from mlflow import get_tracking_uri
    from mlflow.exceptions import MlflowException

    if not isinstance(error, MlflowException):
        return ""
    if _NOT_ALLOWED.search(text):
        return (
            f"the tracking server {get_tracking_uri()} refuses the credentials, or this to them ({text[:300]}): check "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
        )
    if _NO_ANSWER.search(text):
        return (
            f"the tracking server {get_tracking_uri()} does not answer: check MLFLOW_TRACKING_URI, and run again when "
            "it does; finished steps are reused"
        )
    return ""
