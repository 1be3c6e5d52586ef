"""The shipped checkpoint in tests: where it comes from, and how its files are edited."""

import json
from pathlib import Path
from typing import Any

from steps.checkpoint.manifest import Origin

ORIGIN = Origin(kind="folder", location="params/tiny-phi3", name="tiny-phi3", commit="")


def edit_json(file: Path, **changes: Any) -> None:
    """Change fields of a JSON file that holds an object, such as config.json."""
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
