"""Read the JSON files of a checkpoint: one reader, so that each damaged file is refused in the same words."""

import json
from pathlib import Path
from typing import Any, NoReturn

from steps.common.errors import StepError


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file. A byte order mark and Windows line ends are accepted.

    Raises:
        FileNotFoundError: there is no such file.
        StepError: the file is not UTF-8, is not JSON, or does not hold an object.
    """
    try:
        content = json.loads(path.read_bytes().decode("utf-8-sig"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        cause = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise StepError(f"{path.name} is not valid JSON ({cause}): fetch or save the checkpoint again") from None
    if not isinstance(content, dict):
        raise StepError(f"{path.name} is not valid JSON (not an object): fetch or save the checkpoint again")
    return content


def find_json_object(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; an empty one if there is no such file."""
    return read_json_object(path) if path.is_file() else {}


def _refuse_constant(name: str) -> NoReturn:
    """Refuse NaN, Infinity and -Infinity, which Python writes and the JSON standard (RFC 8259) does not have."""
    raise ValueError(f"{name} is not a JSON number")
