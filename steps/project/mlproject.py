"""What MLproject and conda.yaml declare: the entry points, their parameters and defaults, and the pinned packages."""

from collections.abc import Collection
from functools import cache
from pathlib import Path

import yaml

from steps.common.errors import StepError, nearest

ROOT = Path(__file__).parents[2]
"""The project's folder."""


@cache
def entry_points() -> dict[str, dict[str, str | None]]:
    """Return entry point -> parameter -> default. The default is None where a value is required."""
    declared = yaml.safe_load((ROOT / "MLproject").read_text(encoding="utf-8"))["entry_points"]
    return {
        name: {key: spec.get("default") for key, spec in entry.get("parameters", {}).items()}
        for name, entry in declared.items()
    }


def pinned_packages(names: Collection[str] | None = None) -> list[str]:
    """Return the pip requirements of conda.yaml, `name==version`, in the file's order.

    Args:
        names: the packages to return; None for all.
    """
    environment = yaml.safe_load((ROOT / "conda.yaml").read_text(encoding="utf-8"))
    (lines,) = [part["pip"] for part in environment["dependencies"] if isinstance(part, dict)]
    return [line for line in lines if names is None or line.partition("==")[0] in names]


def parse_parameters(entry_point: str, argv: list[str]) -> dict[str, str]:
    """Return every parameter of an entry point: the values of `--name=value` arguments, defaults for the others.

    MLproject's commands pass parameters in this form. MLflow hands on unknown parameters too.

    Raises:
        StepError: a parameter is unknown, or a required parameter has no value.
    """
    declared = entry_points()[entry_point]
    values = dict(declared)
    for argument in argv:
        name, _, value = argument.removeprefix("--").partition("=")
        if name not in declared:
            raise StepError(f"parameter {name!r} is unknown to {entry_point}; {nearest(name, declared)}")
        values[name] = value
    missing = [name for name, value in values.items() if not value and declared[name] is None]
    if missing:
        raise StepError(f"{entry_point} needs a value for {', '.join(missing)}: -P {missing[0]}=...")
    return {name: value or "" for name, value in values.items()}
