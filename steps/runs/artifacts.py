"""How a step finds what an earlier step made: by run ID, through MLflow, and never by a path left on a disk."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse
from urllib.request import url2pathname

from steps.common.errors import StepError
from steps.runs.reuse import RUN_PARAMETERS
from steps.runs.step import Step
from steps.runs.tags import ENTRY_POINT_TAG

if TYPE_CHECKING:
    from mlflow.entities import Run

_RUN_ID = re.compile(r"[0-9a-f]{32}")


def check_run_id(parameter: str, run_id: str) -> None:
    """Refuse what cannot be a run ID.

    Raises:
        StepError: it is not 32 hexadecimal digits.
    """
    if not _RUN_ID.fullmatch(run_id):
        raise StepError(
            f"{parameter} is {run_id!r}; expected the run ID (32 hexadecimal digits) of a finished "
            f"{RUN_PARAMETERS[parameter]} run, as the step printed it and the MLflow UI shows it"
        )


def finished_run(step: Step, parameter: str) -> "Run":
    """The run that the parameter names, if it is a FINISHED run of the step that the parameter needs.

    Raises:
        StepError: there is no such run, it is another step's, or it did not finish.
    """
    from mlflow.exceptions import MlflowException

    run_id, needed = step.params[parameter], RUN_PARAMETERS[parameter]
    check_run_id(parameter, run_id)
    try:
        run = step.client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise StepError(
            f"{parameter} is {run_id!r}: no such run in this tracking store; "
            f"give the ID of a finished {needed} run, or run {needed} first"
        ) from None
    found = run.data.tags.get(ENTRY_POINT_TAG, "run of another project")
    if found != needed:
        raise StepError(f"{parameter} is {run_id!r}, a {found} run; expected a {needed} run")
    if run.info.status != "FINISHED":
        raise StepError(f"{parameter} is {run_id!r}, which is {run.info.status}; expected FINISHED: run {needed} again")
    return run


def read_json(step: Step, run_id: str, path: str) -> Any:
    """The content of a JSON artifact.

    Raises:
        StepError: the artifact is missing or is not JSON.
    """
    from mlflow.exceptions import MlflowException

    try:
        return json.loads(download(step, run_id, path).read_text(encoding="utf-8"))
    except (MlflowException, OSError, ValueError) as error:
        raise StepError(f"artifact {path} of run {run_id} cannot be read ({error}): run that step again") from None


def local_store(step: Step, size: int) -> list[tuple[Path, int]]:
    """`size` bytes in the artifact store as a need for disk.need_space; nothing where the store is not a local disk."""
    place = urlparse(step.run.info.artifact_uri)
    return [(Path(url2pathname(place.path)), size)] if place.scheme in ("", "file") else []


def download(step: Step, run_id: str, path: str) -> Path:
    """A local path of a run's artifact: the store's own file where that is local, else a download in the scratch."""
    import mlflow

    return Path(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=path))
