"""Step reuse: the same step with the same inputs, code and environment is not run twice.

A step's fingerprint is a SHA-256 over its name, its parameters, its code and conda.yaml. Runs among the parameters
count by their own fingerprints and files by their content, so equal work is equal in another clone or another tracking
store. Models count by their URIs: an evaluation is of just those, and moves their alias.
"""

import ast
import hashlib
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from steps.checkpoint.source import parse_source
from steps.project.mlproject import ROOT
from steps.runs.tags import ENTRY_POINT_TAG, FINGERPRINT_TAG, MODEL_URI_TAG, VERSION_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

RUN_PARAMETERS = {"checkpoint_run": "fetch_model", "reference_run": "fetch_model", "onnx_run": "convert_onnx"}
FILE_PARAMETERS = ("source", "adapter", "evalset", "text", "gates")
RESULTS = {  # the artifacts without which a finished run is of no use to the next step
    "fetch_model": ["checkpoint/manifest.json"],
    "convert_onnx": ["conversion.json", "onnx/genai_config.json"],
    "wrap_transformer": [],
    "wrap_custom": [],
    "evaluate": ["evaluation.json"],
}
_CODE = (".py", ".j2")
_HASHED_WHOLE = 64 << 20  # bytes; a larger file counts by size and time of change, as make and rsync do


def fingerprint(client: "MlflowClient", entry_point: str, params: dict[str, str]) -> str:
    """SHA-256, hex, of everything that the result of a step depends on.

    Args:
        params: every parameter of the entry point, defaults filled in, names that may change meaning resolved.
    """
    content = {
        "entry_point": entry_point,
        "parameters": {key: _identity(client, key, value) for key, value in params.items()},
        "code": code_digest(entry_point),
        "environment": _file_digest(ROOT / "conda.yaml"),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def find_finished(client: "MlflowClient", experiment_id: str, entry_point: str, wanted: str) -> "Run | None":
    """The latest FINISHED run of the experiment with the fingerprint `wanted` whose results are still there."""
    runs = client.search_runs(
        [experiment_id],
        f"tags.{FINGERPRINT_TAG} = '{wanted}' and attributes.status = 'FINISHED'",
        order_by=["attributes.end_time DESC"],
        max_results=5,
    )
    return next((run for run in runs if _is_intact(client, entry_point, run)), None)


def code_digest(entry_point: str) -> str:
    """SHA-256, hex, of the entry point's module and of every package of ours that it imports, templates included."""
    seen: dict[str, Path] = {}
    waiting = [ROOT / "steps" / f"{entry_point}.py"]
    while waiting:
        path = waiting.pop()
        files = sorted(file for file in path.rglob("*") if file.suffix in _CODE) if path.is_dir() else [path]
        for file in files:
            name = file.relative_to(ROOT).as_posix()
            if name not in seen:
                seen[name] = file
                waiting += _imported(file) if file.suffix == ".py" else []
    digest = hashlib.sha256()
    for name in sorted(seen):
        digest.update(f"{name}\0{_file_digest(seen[name])}\n".encode())
    return digest.hexdigest()


def _imported(file: Path) -> list[Path]:
    """The packages and modules right under steps/ that a file imports, at its top or inside a function."""
    names = []
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    found = []
    for name in names:
        parts = name.split(".")
        if parts[0] == "steps" and len(parts) > 1:
            place = ROOT / "steps" / parts[1]
            found.append(place if place.is_dir() else place.with_suffix(".py"))
    return found


def _identity(client: "MlflowClient", key: str, value: str) -> object:
    if key in RUN_PARAMETERS and value:
        return _run_identity(client, value)
    if key in FILE_PARAMETERS and value and (ROOT / value).exists():
        digest = _tree_digest(ROOT / value)
        return [value, digest] if key in ("source", "adapter") else digest  # later steps read those where they are
    if key == "adapter" and value and parse_source(value, ROOT, key).moves:
        return [value, time.time()]  # always read again, as a source there is by its revision
    return value


def _run_identity(client: "MlflowClient", run_id: str) -> str:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(run_id).data.tags.get(FINGERPRINT_TAG, run_id)
    except MlflowException:  # the step will say what is wrong with it
        return run_id


def _tree_digest(path: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            name = file.relative_to(path).as_posix()
            digest.update(f"{name}\0{_file_digest(file)}\n".encode())
    return "sha256:" + digest.hexdigest()


def _file_digest(file: Path) -> str:
    stat = file.stat()
    if stat.st_size > _HASHED_WHOLE:
        return f"{stat.st_size} bytes, changed at {stat.st_mtime_ns}"
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _is_intact(client: "MlflowClient", entry_point: str, run: "Run") -> bool:
    """Whether what a finished run produced is still in the artifact store and the registry."""
    import mlflow
    from mlflow.exceptions import MlflowException

    tags = run.data.tags
    if tags.get(ENTRY_POINT_TAG) != entry_point:
        return False
    try:
        for path in RESULTS[entry_point]:
            folder = path.rpartition("/")[0] or None
            if path not in [artifact.path for artifact in client.list_artifacts(run.info.run_id, folder)]:
                return False
        if uri := tags.get(MODEL_URI_TAG):
            files = [artifact.path for artifact in mlflow.artifacts.list_artifacts(artifact_uri=uri)]
            if "MLmodel" not in files:
                return False
        if version := tags.get(VERSION_TAG):
            client.get_model_version(*version.rsplit("/", 1))
    except (MlflowException, OSError):
        return False
    return True
