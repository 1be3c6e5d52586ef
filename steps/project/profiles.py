"""Profiles: params/<name>.yaml, one section per step, with the parameters that one model needs beside the defaults."""

from typing import Any

import yaml

from steps.common.errors import StepError, nearest
from steps.project.mlproject import ROOT, entry_points
from steps.project.plan import PLAN, STEPS

Section = dict[str, str]
"""Every parameter of one step that `main` does not fill in itself, with its value."""


def read_profile(name: str) -> dict[str, list[Section]]:
    """Return step -> sections. A step has one section, unless the plan calls it repeatable.

    Raises:
        StepError: there is no such profile, it is not YAML, or it has an unknown section or key.
    """
    folder = ROOT / "params"
    names = [path.stem for path in folder.glob("*.yaml")]
    if name not in names:
        raise StepError(f"profile is {name!r}; {nearest(name, names)}")
    file = f"params/{name}.yaml"
    try:
        content = yaml.safe_load((folder / f"{name}.yaml").read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StepError(f"{file} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise StepError(f"{file}: expected one section per step: {', '.join(STEPS)}")
    for section in content:
        if section not in STEPS:
            raise StepError(f"{file}: no section {str(section)!r}; {nearest(str(section), STEPS)}")
    return {step: _sections(file, step, content.get(step)) for step in STEPS}


def _sections(file: str, step: str, content: Any) -> list[Section]:
    repeated = PLAN[step].repeatable and isinstance(content, list) and content
    return [
        _section(f"{file}, section {step}", step, section) for section in (content if repeated else [content or {}])
    ]


def _section(where: str, step: str, content: Any) -> Section:
    """Return one section with defaults filled in.

    Args:
        where: the file and the section, for errors.
    """
    declared = entry_points()[step]
    valid = [key for key in declared if key not in PLAN[step].handed_over]
    if not isinstance(content, dict):
        raise StepError(f"{where}: expected `key: value` lines; valid keys: {', '.join(valid)}")
    values = {key: declared[key] or "" for key in valid}
    for key, value in content.items():
        if key in PLAN[step].handed_over:
            raise StepError(f"{where}: {key} is filled in by main; leave it out")
        if key not in valid:
            raise StepError(f"{where}: no key {str(key)!r}; {nearest(str(key), valid)}")
        if isinstance(value, dict | list):
            raise StepError(f"{where}: {key} is {value!r}; expected a single value")
        values[key] = _as_parameter(value)
    missing = [key for key in valid if declared[key] is None and not values[key]]
    if missing:
        raise StepError(f"{where}: {missing[0]} is missing and has no default")
    return values


def _as_parameter(value: Any) -> str:
    """Return a YAML value in the words of a command line: `true`, and nothing for null."""
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)
