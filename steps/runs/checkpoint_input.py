"""The checkpoint of a fetch_model run, on this machine, verified, and with its adapter merged where it has one."""

from pathlib import Path
from typing import Any

from steps.checkpoint.hub import fetch
from steps.checkpoint.manifest import total_size, verify
from steps.checkpoint.merge import merge_adapter
from steps.common.errors import StepError
from steps.project.mlproject import ROOT
from steps.runs.artifacts import finished_run, read_json
from steps.runs.step import Step

MANIFEST = "checkpoint/manifest.json"


def verified_checkpoint(step: Step, parameter: str) -> tuple[Path, dict[str, Any]]:
    """The folder and the manifest of the checkpoint that the run ID in `parameter` stands for.

    Read where fetch_model found it; fetched again from the hub or the artifact store where it is not here. With an
    adapter, a folder of the same files in the step's scratch folder, where the weights have the adapter merged in.

    Raises:
        StepError: the run is not a finished fetch_model run, its manifest is damaged, a source is gone, or a file
            differs from the manifest; the line names the file.
    """
    run = finished_run(step.client, parameter, step.params[parameter])
    manifest = read_json(step, run.info.run_id, MANIFEST)
    folder = _verified(step, run.info.run_id, manifest, "source")
    if not manifest.get("adapter"):
        return folder, manifest
    adapter = _verified(step, run.info.run_id, manifest["adapter"], "adapter")
    merged, files = step.scratch / "merged", [entry["path"] for entry in manifest["files"]]
    with step.console.bar_class()(unit="B", unit_scale=True, total=total_size(manifest), desc="merging") as bar:
        merge_adapter(folder, adapter, merged, files, bar.update)
    return merged, manifest


def _verified(step: Step, run_id: str, manifest: dict[str, Any], parameter: str) -> Path:
    """The folder of a checkpoint (`source`) or an adapter, every file of which is as its manifest says."""
    try:
        location, kind, commit = (manifest["source"][key] for key in ("location", "kind", "commit"))
    except (KeyError, TypeError):
        raise StepError(f"{MANIFEST} of run {run_id} is damaged: run fetch_model again") from None
    is_adapter = parameter == "adapter"
    if kind == "folder":
        folder = ROOT / location
        if not folder.is_dir():
            raise StepError(
                f"the {parameter} of run {run_id} is the folder {location}, which this machine does not have: bring it "
                f"here, or log it to MLflow and run fetch_model with its runs:/ URI as the {parameter}"
            )
    else:
        with step.console.phase(f"looking for {location}"):
            folder = (
                download_artifact(step, location, parameter)
                if kind == "artifact"
                else fetch(location, commit, step.console.bar_class(), is_adapter)[0]
            )
    if kind == "hub":
        _mend_cache(step, folder, manifest, is_adapter)
    with step.console.bar_class()(unit="B", unit_scale=True, desc=f"verifying the {parameter}") as bar:
        verify(folder, manifest, bar.update)
    return folder


def _mend_cache(step: Step, folder: Path, manifest: dict[str, Any], is_adapter: bool) -> None:
    """Fetch again what is of another size in the hub's cache, as a crash may leave it; the client would not look."""
    broken = [folder / entry["path"] for entry in manifest["files"]]
    sizes = {entry["path"]: entry["size"] for entry in manifest["files"]}
    broken = [path for path in broken if path.exists() and path.stat().st_size != sizes[path.name]]
    for path in broken:
        path.resolve().unlink()
        path.unlink(missing_ok=True)
    if broken:
        fetch(manifest["source"]["location"], manifest["source"]["commit"], step.console.bar_class(), is_adapter)


def download_artifact(step: Step, uri: str, parameter: str = "source") -> Path:
    """The folder behind an artifact URI: the store's own where that is local, else a download in the scratch folder.

    Raises:
        StepError: nothing is there, or the store cannot be read.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))
    except (MlflowException, OSError, ImportError) as error:
        raise StepError(f"{parameter} {uri} cannot be read: {' '.join(str(error).split())}") from None
    if not folder.is_dir():
        raise StepError(f"{parameter} {uri} is a file; expected a folder")
    return folder
