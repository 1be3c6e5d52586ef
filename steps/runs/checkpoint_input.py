"""Bring the checkpoint of a fetch_model run to this machine, verify it, and merge its adapter if it has one."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steps.checkpoint.canonical import canonical_form
from steps.checkpoint.end_tokens import EndTokens
from steps.checkpoint.headers import read_config
from steps.checkpoint.hub import Fetched, fetch, read_hub_config
from steps.checkpoint.manifest import MANIFEST, AdapterManifest, Manifest, Origin, verify
from steps.checkpoint.merge import merge_adapter
from steps.common.errors import StepError
from steps.common.hashing import FileEntry
from steps.project.mlproject import ROOT
from steps.project.tasks import check_task
from steps.runs.artifacts import finished_run, read_document
from steps.runs.console import Console
from steps.runs.step import Step


@dataclass(frozen=True)
class VerifiedCheckpoint:
    """A checkpoint in its canonical form, with its adapter merged if it has one, and the manifest of fetch_model."""

    folder: Path
    manifest: Manifest


def verified_checkpoint(step: Step, parameter: str, run_id: str) -> VerifiedCheckpoint:
    """Return the checkpoint of a fetch_model run.

    The files are read where fetch_model found them. If they are not on this machine, they are fetched again from the
    hub or the artifact store. The result is a folder in the step's scratch folder: the checkpoint in its canonical form
    (steps/checkpoint/canonical.py), with the adapter merged into the weights if there is one.

    Args:
        parameter: the parameter that holds the run ID, for errors.
        run_id: its value.

    Raises:
        StepError: the run is not a finished fetch_model run, its manifest is damaged, the source is gone, or a file
            differs from the manifest.
    """
    manifest = read_manifest(step, parameter, run_id)
    source = _verified_folder(manifest, "source", run_id, step.console)
    folder = step.scratch / "checkpoint"
    end_tokens = EndTokens(manifest.canonical.end_tokens, manifest.canonical.end_token_sources)
    canonical_form(source, end_tokens).write(source, folder)
    if manifest.adapter:
        adapter = _verified_folder(manifest.adapter, "adapter", run_id, step.console)
        folder = _merged(folder, adapter, step.scratch / "merged", step.console)
    return VerifiedCheckpoint(folder, manifest)


def read_manifest(step: Step, parameter: str, run_id: str) -> Manifest:
    """Return the manifest of a fetch_model run.

    Raises:
        StepError: the run is not a finished fetch_model run, or its manifest is damaged.
    """
    finished_run(step.client, parameter, run_id)
    return read_document(step.client, run_id, MANIFEST, Manifest)


def check_tasks(step: Step, run_id: str, tasks: Iterable[str]) -> None:
    """Raise StepError if one of the tasks needs the chat template that the checkpoint of a fetch_model run lacks."""
    has_chat_template = read_manifest(step, "checkpoint_run", run_id).canonical.has_chat_template
    for task in tasks:
        check_task(has_chat_template, task)


def bring(origin: Origin, parameter: str, console: Console) -> Fetched:
    """Bring a checkpoint or an adapter to this machine, if it is not here.

    Args:
        parameter: the parameter that names the origin: `source` or `adapter`.

    Raises:
        StepError: the hub or the artifact store does not have the files or cannot be reached, or the disk is too small.
    """
    if origin.kind == "folder":
        return Fetched(ROOT / origin.location)
    if origin.kind == "artifact":
        return Fetched(_artifact_folder(origin.location, parameter))
    return fetch(origin.location, origin.commit, console.bar_class(), adapter=parameter == "adapter")


def read_source_config(origin: Origin) -> dict[str, Any]:
    """Return config.json of a checkpoint, and bring no other file of it to this machine.

    Raises:
        StepError: there is no such file, or it is damaged, or the hub or the artifact store cannot be read.
    """
    if origin.kind == "folder":
        return read_config(ROOT / origin.location)
    if origin.kind == "hub":
        return read_hub_config(origin.location, origin.commit)
    return read_config(_download_artifact(f"{origin.location.rstrip('/')}/config.json", "source").parent)


def _verified_folder(manifest: Manifest | AdapterManifest, parameter: str, run_id: str, console: Console) -> Path:
    """Return the folder of a checkpoint or an adapter, after each file was compared with the manifest."""
    origin = manifest.origin
    if origin.kind == "folder" and not (ROOT / origin.location).is_dir():
        raise StepError(
            f"the {parameter} of run {run_id} is the folder {origin.location}, which this machine does not have: copy "
            f"it here, or log it to MLflow and run fetch_model with its runs:/ URI as the {parameter}"
        )
    with console.phase(f"looking for {origin.location}"):
        folder = bring(origin, parameter, console).folder
    if origin.kind == "hub" and _remove_truncated(folder, manifest.files):
        bring(origin, parameter, console)
    with console.bar_class()(unit="B", unit_scale=True, desc=f"verifying the {parameter}") as bar:
        verify(folder, manifest.files, bar.update)
    return folder


def _remove_truncated(folder: Path, files: Iterable[FileEntry]) -> bool:
    """Delete files of the hub's cache that have another size than the manifest, and return whether there were any.

    A crash can leave such a file. huggingface_hub does not compare sizes, so it would not download the file again.
    """
    truncated = [
        folder / file.path
        for file in files
        if (folder / file.path).exists() and (folder / file.path).stat().st_size != file.size
    ]
    for path in truncated:
        path.resolve().unlink()  # the blob that the link points to
        path.unlink(missing_ok=True)
    return bool(truncated)


def _merged(folder: Path, adapter: Path, out: Path, console: Console) -> Path:
    names = sorted(path.name for path in folder.iterdir())
    size = sum((folder / name).stat().st_size for name in names)
    with console.bar_class()(unit="B", unit_scale=True, total=size, desc="merging") as bar:
        merge_adapter(folder, adapter, out, names, bar.update)
    return out


def _artifact_folder(uri: str, parameter: str) -> Path:
    """Return the folder of an artifact URI. A store on a local disk returns its own folder.

    Raises:
        StepError: the URI names no folder, or the store cannot be read.
    """
    folder = _download_artifact(uri, parameter)
    if not folder.is_dir():
        raise StepError(f"{parameter} {uri} is a file; expected a folder")
    return folder


def _download_artifact(uri: str, parameter: str) -> Path:
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))
    except (MlflowException, OSError, ImportError) as error:
        raise StepError(f"{parameter} {uri} cannot be read: {' '.join(str(error).split())}") from None
