"""Extras: packages that one entry point needs beside conda.yaml, in an environment layered over the project's own.

Each entry point with needs of its own has a locked file of requirements beside its code. Its environment is a virtual
environment of the extras alone. A .pth file in it leads to the packages of the project's environment:

    <MLflow's environment folder>/phi-mlflow-extras-<digest>/   the extras; `layered.pth` names the folders below
    <MLflow's environment folder>/mlflow-<digest>/              the project's environment, which MLflow builds

The digest covers the requirements and the environment below, so a change of either makes a new environment. It is built
once, under a lock. A marker file is written last, so that an environment whose building was killed is built again.
"""

import fcntl
import hashlib
import importlib.metadata
import os
import shutil
import site
import subprocess
import sys
from pathlib import Path

from steps.common.errors import StepError

_MARKER = "complete"
_LAYER = "layered.pth"


def python_with(requirements: Path) -> Path:
    """Return a Python that has the project's packages and those of a file of requirements.

    Return the running Python if it has the packages. Otherwise build the layered environment on the first call. Later
    calls find it.

    Args:
        requirements: lines `name==version`, with every dependency that conda.yaml lacks.

    Raises:
        StepError: the packages can't be installed; the line says what to do.
    """
    if not _missing(requirements):
        return Path(sys.executable)
    folder = _environments() / f"phi-mlflow-extras-{_digest(requirements)}"
    python = folder / "bin" / "python"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / _MARKER).is_file():
            _build(folder, python, requirements)
            (folder / _MARKER).touch()
    return python


def _missing(requirements: Path) -> list[str]:
    """Return the required `name==version` lines that the running Python does not have."""
    return [line for line in _lines(requirements) if not _is_installed(*line.split("=="))]


def _lines(requirements: Path) -> list[str]:
    stripped = (line.partition("#")[0].strip() for line in requirements.read_text(encoding="utf-8").splitlines())
    return [line for line in stripped if line]


def _is_installed(name: str, version: str) -> bool:
    try:
        return importlib.metadata.version(name) == version
    except importlib.metadata.PackageNotFoundError:
        return False


def _environments() -> Path:
    """Return the folder where MLflow keeps environments."""
    return Path(os.environ.get("MLFLOW_ENV_ROOT") or Path.home() / ".mlflow" / "envs")


def _digest(requirements: Path) -> str:
    parts = ["\n".join(_lines(requirements)), sys.version, *_package_folders()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:40]


def _package_folders() -> list[str]:
    """Return the running Python's package folders, and those below it where it is a layered one itself.

    Python reads no .pth file in a folder that another .pth file has added.
    """
    own = site.getsitepackages()
    layers = [Path(folder, _LAYER) for folder in own]
    below = [line for layer in layers if layer.is_file() for line in layer.read_text(encoding="utf-8").splitlines()]
    return own + below


def _build(folder: Path, python: Path, requirements: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # what a killed build has left
    print(f"installing {requirements.name} of {requirements.parent.name}/ beside the project's environment")
    uv = [sys.executable, "-m", "uv"]
    packages = ["--quiet", "--no-deps", "--python", str(python), "--requirement", str(requirements)]
    for command in (
        [*uv, "venv", "--quiet", "--python", sys.executable, str(folder)],
        [*uv, "pip", "install", *packages],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = " ".join(done.stderr.split())[-300:]
            raise StepError(
                f"the packages of {requirements} could not be installed ({reason}): connect to a package index and run "
                f"again, or install them into this environment with: {sys.executable} -m pip install -r {requirements}"
            )
    (own,) = folder.glob("lib/python*/site-packages")
    (own / _LAYER).write_text("\n".join(_package_folders()) + "\n", encoding="utf-8")
