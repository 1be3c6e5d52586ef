"""Find what an earlier step produced, through MLflow and by run ID. No step reads a path that another step left."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlparse
from urllib.request import url2pathname

from steps.common.documents import Document
from steps.common.errors import StepError
from steps.project.plan import RUN_PARAMETERS
from steps.runs.tags import ENTRY_POINT_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_RUN_ID = re.compile(r"[0-9a-f]{32}")
_Document = TypeVar("_Document", bound=Document)


def check_run_id(parameter: str, run_id: str) -> None:
    """Raise StepError if the value of a parameter that takes a run ID is not 32 hexadecimal digits."""
    if not _RUN_ID.fullmatch(run_id):
        raise StepError(
            f"{parameter} is {run_id!r}; expected the run ID (32 hexadecimal digits) of a finished "
            f"{RUN_PARAMETERS[parameter]} run: the step printed it, and the MLflow UI shows it"
        )


def finished_run(client: "MlflowClient", parameter: str, run_id: str) -> "Run":
    """Return the run with this ID, if it is a FINISHED run of the step that the parameter needs.

    Args:
        parameter: the parameter that the user gave the run ID in. It says which step's run is needed.

    Raises:
        StepError: the run does not exist, is a run of another step, or did not finish.
    """
    from mlflow.exceptions import MlflowException

    needed = RUN_PARAMETERS[parameter]
    check_run_id(parameter, run_id)
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise StepError(
            f"{parameter} is {run_id!r}: no such run in this tracking store; "
            f"give the ID of a finished {needed} run, or run {needed} first"
        ) from None
    entry_point = run.data.tags.get(ENTRY_POINT_TAG)
    if entry_point != needed:
        actual = f"a {entry_point} run" if entry_point else "a run of another project"
        raise StepError(f"{parameter} is {run_id!r}, {actual}; expected a {needed} run")
    if run.info.status != "FINISHED":
        raise StepError(f"{parameter} is {run_id!r}, which is {run.info.status}; expected FINISHED: run {needed} again")
    return run


def read_document(client: "MlflowClient", run_id: str, path: str, document_class: type[_Document]) -> _Document:
    """Download a JSON artifact of a run, and return it as the typed document that it is.

    Args:
        path: the artifact's path in the run.

    Raises:
        StepError: the artifact is missing, or it is not a document of this class; the line names the file.
    """
    from mlflow.exceptions import MlflowException

    name = f"{path} of run {run_id}"
    try:
        text = Path(client.download_artifacts(run_id, path)).read_text(encoding="utf-8")
    except (MlflowException, OSError, ValueError) as error:
        cause = " ".join(str(error).split())
        raise StepError(f"{name} cannot be read ({cause}): run {document_class.written_by} again") from None
    return document_class.parse(text, name)


def local_store(artifact_uri: str, size: int) -> list[tuple[Path, int]]:
    """Return `size` bytes in the artifact store as a need for `disk.need_space`.

    Args:
        artifact_uri: the artifact URI of the run that will log the files.

    Returns:
        One need; none if the store is not on a local disk.
    """
    address = urlparse(artifact_uri)
    return [(Path(url2pathname(address.path)), size)] if address.scheme in ("", "file") else []


def download(run_id: str, path: str) -> Path:
    """Return a local path of a run's artifact.

    A store on a local disk returns its own path. Any other store is downloaded to a temporary folder.
    """
    import mlflow

    return Path(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=path))
