"""The one line that a failure becomes, and the secrets that are removed from it."""

import errno

import pytest
from mlflow.exceptions import MlflowException

from steps.common.errors import StepError
from steps.runs.failures import is_for_the_user, one_line

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def server(monkeypatch):
    """A tracking URI, for messages that name the server."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (StepError("profile is\n 'tinny'"), "profile is 'tinny'"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/scratch/model.onnx"),
            "the disk is full (/scratch/model.onnx): free some space, or set TMPDIR to a folder on a larger disk, and "
            "run again",
        ),
        (
            MlflowException("API request failed with error code 403"),
            "the tracking server http://127.0.0.1:5000 rejected the credentials or denied the permission (API request "
            "failed with error code 403): check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
            "MLFLOW_TRACKING_TOKEN",
        ),
        (
            MlflowException("API request to http://x failed with exception HTTPConnectionPool: Max retries exceeded"),
            "the tracking server http://127.0.0.1:5000 does not answer: check MLFLOW_TRACKING_URI, and run again when "
            "it answers; finished steps are reused",
        ),
    ],
)
def test_a_failure_that_the_user_can_correct_is_one_line_without_a_traceback(error, line):
    assert one_line(error) == line
    assert is_for_the_user(error)


@pytest.mark.parametrize("error", [ValueError("no\nwords"), MlflowException("Run not found"), OSError("gone")])
def test_any_other_failure_keeps_its_type_and_its_traceback(error):
    assert one_line(error) == f"{type(error).__name__}: {' '.join(str(error).split())}"
    assert not is_for_the_user(error)


def test_secrets_of_the_environment_and_of_addresses_are_removed(monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "planted-token")
    error = ValueError("GET https://someone:password@host/x with planted-token")
    assert one_line(error) == "ValueError: GET https://<credentials>@host/x with <SOME_TOKEN>"
