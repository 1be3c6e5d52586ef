"""Step reuse: the same step with the same inputs, code and environment is not run twice.

The fingerprint of a step is a SHA-256 over its name, its parameters, the code that it runs and conda.yaml. A run among
the parameters counts by its own fingerprint, and a file by its content. So equal work has an equal fingerprint, also in
another clone or another tracking store. A model counts by its URI, because an evaluation moves the alias of that model.
"""

import hashlib
import json
import time
from functools import cache
from modulefinder import ModuleFinder
from pathlib import Path
from typing import TYPE_CHECKING

from steps.checkpoint.source import parse_source
from steps.common.hashing import sha256
from steps.project.mlproject import ROOT
from steps.project.plan import PLAN, RUN_PARAMETERS
from steps.runs.tags import ENTRY_POINT_TAG, FINGERPRINT_TAG, MODEL_URI_TAG, VERSION_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_HASHED_WHOLE = 64 << 20  # bytes; a larger file counts by size and time of change, as for make and rsync
_NOT_CODE = {"__pycache__", ".DS_Store"}


def fingerprint(client: "MlflowClient", entry_point: str, params: dict[str, str]) -> str:
    """Return the SHA-256 (hex) of everything that the result of a step depends on.

    Args:
        params: every parameter of the entry point. Defaults are filled in, and branches and aliases are resolved.
    """
    content = {
        "entry_point": entry_point,
        "parameters": {key: _identity(client, entry_point, key, value) for key, value in params.items()},
        "code": code_digest(entry_point),
        "environment": _file_digest(ROOT / "conda.yaml"),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def find_finished(client: "MlflowClient", experiment_id: str, entry_point: str, wanted: str) -> "Run | None":
    """Return the latest FINISHED run with the fingerprint `wanted` whose results still exist; None if there is none."""
    runs = client.search_runs(
        [experiment_id],
        f"tags.{FINGERPRINT_TAG} = '{wanted}' and attributes.status = 'FINISHED'",
        order_by=["attributes.end_time DESC"],
        max_results=5,
    )
    return next((run for run in runs if _is_intact(client, entry_point, run)), None)


def code_digest(entry_point: str) -> str:
    """Return the SHA-256 (hex) of the code that a step runs. See `code_files`."""
    digest = hashlib.sha256()
    for file in code_files(entry_point):
        digest.update(f"{file.relative_to(ROOT).as_posix()}\0{_file_digest(file)}\n".encode())
    return digest.hexdigest()


def code_files(entry_point: str) -> list[Path]:
    """Return the project's files that a step runs, sorted.

    A step runs its entry point, the files that the plan names, and every module that these files import, at any depth.
    Imports inside functions count too.
    """
    declared = PLAN[entry_point].code if entry_point in PLAN else ()
    extras = [file for name in declared for file in _files_of(ROOT / name)]
    scripts = [ROOT / "steps" / f"{entry_point}.py", *(file for file in extras if file.suffix == ".py")]
    return sorted({*extras, *_imported_by(ROOT, tuple(scripts))})


def _files_of(path: Path) -> list[Path]:
    """Return the file, or the files of the folder."""
    if path.is_file():
        return [path]
    return [file for file in path.rglob("*") if file.is_file() and not _NOT_CODE.intersection(file.parts)]


@cache
def _imported_by(root: Path, scripts: tuple[Path, ...]) -> frozenset[Path]:
    """Return the scripts and every module below `root` that they import, directly or not."""
    finder = ModuleFinder(path=[str(root)])  # other packages are not on this path: conda.yaml stands for them
    for script in scripts:
        name = ".".join(script.relative_to(root).with_suffix("").parts)
        finder.import_hook(name.removesuffix(".__init__"))
    files = (getattr(module, "__file__", None) for module in finder.modules.values())
    return frozenset(Path(file) for file in files if file)


def _identity(client: "MlflowClient", entry_point: str, key: str, value: str) -> object:
    """Return what a parameter counts as, ready for JSON."""
    step = PLAN.get(entry_point)
    if key in RUN_PARAMETERS and value:
        return _run_identity(client, value)
    if step and key in step.file_parameters and value and (ROOT / value).exists():
        digest = _tree_digest(ROOT / value)
        return [value, digest] if key in step.place_parameters else digest
    if key == "adapter" and value and parse_source(value, ROOT, key).is_mutable:
        return [value, time.time()]  # read again in every run, as a source of this kind is by its revision
    return value


def _run_identity(client: "MlflowClient", run_id: str) -> str:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(run_id).data.tags.get(FINGERPRINT_TAG, run_id)
    except MlflowException:  # the step itself says what is wrong with the run
        return run_id


def _tree_digest(path: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            digest.update(f"{file.relative_to(path).as_posix()}\0{_file_digest(file)}\n".encode())
    return "sha256:" + digest.hexdigest()


def _file_digest(file: Path) -> str:
    stat = file.stat()
    if stat.st_size > _HASHED_WHOLE:
        return f"{stat.st_size} bytes, changed at {stat.st_mtime_ns}"
    return sha256(file)


def _is_intact(client: "MlflowClient", entry_point: str, run: "Run") -> bool:
    """Return whether the results of a finished run are still in the artifact store and the registry."""
    import mlflow
    from mlflow.exceptions import MlflowException

    tags = run.data.tags
    if tags.get(ENTRY_POINT_TAG) != entry_point:
        return False
    try:
        for path in PLAN[entry_point].results:
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
