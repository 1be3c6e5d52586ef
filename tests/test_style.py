"""The checks that `.ci/run` makes first: ruff's lint and format, mypy's types, and the direction of imports."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkout import ROOT

# Room of steps/ -> the rooms that it may import. A room is a folder; longer names win. chat/ imports nothing of ours.
MAY_IMPORT = {
    "common": (),
    "project": ("common",),
    "checkpoint": ("common", "chat.runtime"),
    "chat": (),
    "conversion": ("common", "checkpoint", "chat.runtime"),
    "runs": ("common", "project", "checkpoint"),
    "registry": ("common", "project", "runs"),
    "databricks": ("common",),
    "serving": ("common", "chat"),
    "wrapping": ("common", "project", "chat"),
    "monitoring": ("common", "evaluation"),
    "monitoring.recording": ("common", "evaluation", "monitoring", "registry", "runs", "serving"),
    "evaluation": ("common", "checkpoint", "conversion", "chat.runtime"),
    "evaluation.lm_eval": (
        "common",
        "checkpoint",
        "chat.runtime",
        "conversion",
        "evaluation",
        "registry",
    ),  # has a command line of its own
    "evaluation.recording": ("common", "checkpoint", "chat.runtime", "evaluation", "runs", "registry"),
}
MAY_USE_THE_TRACKING_SERVER = ("runs", "registry", "evaluation.recording", "monitoring.recording")
MODULES = sorted((ROOT / "steps").rglob("*.py"))


@pytest.mark.e2e
@pytest.mark.parametrize(
    "command", [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]], ids=" ".join
)
def test_a_check_of_the_whole_tree_passes(command, tmp_path):
    caches = {"MYPY_CACHE_DIR": str(tmp_path), "RUFF_CACHE_DIR": str(tmp_path)}  # nothing is left in the tree
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, env=caches | os.environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def room_of(module: str) -> str:
    """Return the room of a module: its folder below steps/, empty for an entry point."""
    parts = module.split(".")[1:]
    return max((room for room in MAY_IMPORT if parts[: room.count(".") + 1] == room.split(".")), key=len, default="")


def imports_of(file: Path) -> set[str]:
    """Return the absolute names that a file imports, at its top or inside a function."""
    package = file.relative_to(ROOT).with_suffix("").parts[:-1]
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            start = ".".join(filter(None, (base, node.module)))
            names.update(f"{start}.{alias.name}" for alias in node.names)
    return names


@pytest.mark.unit
@pytest.mark.parametrize("file", MODULES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_a_module_imports_only_what_its_room_may(file):
    module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
    room = room_of(module)
    ours = {name for name in imports_of(file) if name.startswith("steps.")}
    if not room:  # entry points may import everything, but of chat/ only those that pack it may import all
        above = {name for name in ours if name.startswith("steps.chat.") and not name.startswith("steps.chat.runtime.")}
        assert not above or file.name in ("wrap_custom.py", "wrap_transformer.py")
        return
    allowed = tuple(f"steps.{other}" for other in (room, *MAY_IMPORT[room]))
    assert not [name for name in ours if not any(name == start or name.startswith(f"{start}.") for start in allowed)]


@pytest.mark.unit
def test_rooms_do_not_import_each_other_in_a_circle():
    def reach(room: str, seen: tuple[str, ...] = ()) -> None:
        assert room not in seen, f"circle: {' -> '.join((*seen, room))}"
        for other in MAY_IMPORT[room]:
            if other in MAY_IMPORT:
                reach(other, (*seen, room))

    for room in MAY_IMPORT:
        reach(room)


@pytest.mark.unit
@pytest.mark.parametrize("file", MODULES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_only_a_few_rooms_speak_to_the_tracking_server(file):
    room = room_of(".".join(file.relative_to(ROOT).with_suffix("").parts))
    if not room or room in MAY_USE_THE_TRACKING_SERVER:
        return
    text = file.read_text(encoding="utf-8")
    assert "MlflowClient(" not in text
    assert "mlflow.start_run(" not in text
