"""Extras: packages beside conda.yaml, in a layered environment. uv itself runs, without a network."""

import importlib.metadata
import os
import subprocess
import zipfile
from pathlib import Path

import pytest

from steps.common.errors import StepError
from steps.project.extras import python_with

pytestmark = pytest.mark.e2e
NAME = "phi_mlflow_sample"


def make_wheel(folder: Path, name: str) -> None:
    """Write a wheel of one module that knows its version, 1.0 (PEP 427)."""
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", "VERSION = '1.0'\n")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def requirements(tmp_path, monkeypatch) -> Path:
    """A file of requirements that a folder of wheels can satisfy, and an empty folder for environments."""
    (tmp_path / "wheels").mkdir()
    make_wheel(tmp_path / "wheels", NAME)
    monkeypatch.setenv("MLFLOW_ENV_ROOT", str(tmp_path / "a folder of environments"))
    monkeypatch.setenv("UV_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_NO_CACHE", "1")
    file = tmp_path / "requirements.txt"
    file.write_text(f"# a comment\n{NAME}==1.0  # another\n")
    return file


def run(python: Path, code: str) -> str:
    return subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_the_layered_python_has_the_extras_and_the_packages_below(requirements):
    python = python_with(requirements)
    assert run(python, f"import {NAME}; print({NAME}.VERSION)") == "1.0"
    assert run(python, "import mlflow; print(mlflow.__version__)") == importlib.metadata.version("mlflow")


def test_a_python_layered_over_a_layered_one_has_the_packages_of_both(requirements, tmp_path):
    lower = python_with(requirements)
    make_wheel(tmp_path / "wheels", "phi_mlflow_other")
    other = tmp_path / "other.txt"
    other.write_text("phi_mlflow_other==1.0\n")
    code = f"import pathlib, steps.project.extras as e; print(e.python_with(pathlib.Path({str(other)!r})))"
    upper = Path(run(lower, code).splitlines()[-1])
    code = f"import {NAME}, phi_mlflow_other, mlflow; print(mlflow.__version__)"
    assert run(upper, code) == importlib.metadata.version("mlflow")


def test_the_environment_below_is_left_as_it_is(requirements):
    python_with(requirements)
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version(NAME)


def test_it_is_built_once(requirements, monkeypatch):
    python = python_with(requirements)
    monkeypatch.setenv("UV_FIND_LINKS", os.devnull)  # building again would fail
    assert python_with(requirements) == python


def test_other_requirements_make_another_environment(requirements, tmp_path):
    python = python_with(requirements)
    make_wheel(tmp_path / "wheels", "phi_mlflow_other")
    requirements.write_text(requirements.read_text() + "phi_mlflow_other==1.0\n")
    assert python_with(requirements) != python


def test_an_environment_whose_building_was_killed_is_built_again(requirements):
    python = python_with(requirements)
    folder = python.parents[1]
    (folder / "complete").unlink()
    next(folder.rglob(f"{NAME}.py")).unlink()
    assert python_with(requirements) == python
    assert run(python, f"import {NAME}; print({NAME}.VERSION)") == "1.0"


def test_what_the_running_environment_has_needs_no_other(requirements, tmp_path):
    requirements.write_text(f"mlflow=={importlib.metadata.version('mlflow')}\n")
    python_with(requirements)
    assert not (tmp_path / "a folder of environments").exists()


def test_without_an_index_one_line_says_what_to_install(requirements):
    requirements.write_text("phi_mlflow_nowhere==1.0\n")
    with pytest.raises(
        StepError, match=r"could not be installed \(.*\): connect to a package index .* pip install -r"
    ) as error:
        python_with(requirements)
    assert "\n" not in str(error.value)
