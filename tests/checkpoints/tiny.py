"""The shipped checkpoint in tests: where it comes from, and how its files are edited."""

import json
from pathlib import Path
from typing import Any

from steps.checkpoint.manifest import Origin

ORIGIN = Origin(kind="folder", location="params/tiny-phi3", name="tiny-phi3", commit="")


def edit_json(file: Path, **changes: Any) -> None:
    """Change fields of a JSON file that holds an object, such as config.json."""
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def drop(file: Path, *fields: str) -> None:
    """Delete fields of a JSON file that holds an object."""
    content = json.loads(file.read_text())
    file.write_text(json.dumps({key: value for key, value in content.items() if key not in fields}))


def set_config(folder: Path, without: tuple[str, ...] = (), **fields: Any) -> None:
    """Delete the fields `without` of a folder's config.json, and change the other fields."""
    drop(folder / "config.json", *without)
    edit_json(folder / "config.json", **fields)
