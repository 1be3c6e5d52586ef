"""What MLproject declares: the entry points, their parameters and defaults, read from the file itself."""

from collections.abc import Collection
from functools import cache
from pathlib import Path

import yaml

from steps.common.errors import StepError, nearest

ROOT = Path(__file__).parents[2]
STEPS = ("fetch_model", "convert_onnx", "wrap_transformer", "wrap_custom", "evaluate")


@cache
def entry_points() -> dict[str, dict[str, str | None]]:
    """Entry point -> parameter -> default (None where a value is required)."""
    declared = yaml.safe_load((ROOT / "MLproject").read_text(encoding="utf-8"))["entry_points"]
    return {
        name: {key: spec.get("default") for key, spec in entry.get("parameters", {}).items()}
        for name, entry in declared.items()
    }


def pinned_packages(names: Collection[str] | None = None) -> list[str]:
    """The pip requirements of conda.yaml, `name==version`, all or those of the names, in the file's order."""
    environment = yaml.safe_load((ROOT / "conda.yaml").read_text(encoding="utf-8"))
    (lines,) = [part["pip"] for part in environment["dependencies"] if isinstance(part, dict)]
    return [line for line in lines if names is None or line.partition("==")[0] in names]


def parse_parameters(entry_point: str, argv: list[str]) -> dict[str, str]:
    """Values from `--name=value` arguments, as MLproject's command passes them; defaults where one is absent.

    Raises:
        StepError: an unknown parameter (MLflow hands those on without a word), or a required one without a value.
    """
    declared = entry_points()[entry_point]
    values = dict(declared)
    rest = list(argv)
    while rest:
        name, _, value = rest.pop(0).removeprefix("--").partition("=")
        if name not in declared:
            raise StepError(f"parameter {name!r} is unknown to {entry_point}; {nearest(name, declared)}")
        values[name] = value
    missing = [name for name, value in values.items() if not value and declared[name] is None]
    if missing:
        raise StepError(f"{entry_point} needs a value for {', '.join(missing)}: -P {missing[0]}=...")
    return values
