"""Profiles: params/<name>.yaml, one section per entry point with what one model needs other than the defaults."""

from typing import Any

import yaml

from steps.common.errors import StepError, nearest
from steps.project.mlproject import ROOT, STEPS, entry_points

HANDED_OVER = ("checkpoint_run", "onnx_run", "reference_run", "models")  # main fills these in itself
_REPEATED = "convert_onnx"  # a list of sections here makes one variant each


def read_profile(name: str) -> dict[str, list[dict[str, str]]]:
    """Step -> its sections, each the parameters with MLproject's defaults filled in; one section but for convert_onnx.

    Raises:
        StepError: no such profile, not YAML, or an unknown section or key, with the nearest valid name.
    """
    folder = ROOT / "params"
    names = [path.stem for path in folder.glob("*.yaml")]
    if name not in names:
        raise StepError(f"profile is {name!r}; {nearest(name, names)}")
    place = f"params/{name}.yaml"
    try:
        content = yaml.safe_load((folder / f"{name}.yaml").read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StepError(f"{place} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise StepError(f"{place}: expected one section per step: {', '.join(STEPS)}")
    for section in content:
        if section not in STEPS:
            raise StepError(f"{place}: no section {str(section)!r}; {nearest(str(section), STEPS)}")
    return {step: _sections(place, step, content.get(step)) for step in STEPS}


def _sections(place: str, step: str, content: Any) -> list[dict[str, str]]:
    sections = content if isinstance(content, list) and content and step == _REPEATED else [content or {}]
    return [_section(place, step, section) for section in sections]


def _section(place: str, step: str, section: Any) -> dict[str, str]:
    declared = entry_points()[step]
    valid = [key for key in declared if key not in HANDED_OVER]
    if not isinstance(section, dict):
        raise StepError(f"{place}, section {step}: expected `key: value` lines; valid keys: {', '.join(valid)}")
    values = {key: default or "" for key, default in declared.items() if key in valid}
    for key, value in section.items():
        if key in HANDED_OVER:
            raise StepError(f"{place}, section {step}: {key} is filled in by main; leave it out")
        if key not in valid:
            raise StepError(f"{place}, section {step}: no key {str(key)!r}; {nearest(str(key), valid)}")
        if isinstance(value, dict | list):
            raise StepError(f"{place}, section {step}: {key} is {value!r}; expected a single value")
        values[key] = str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)
    missing = [key for key in valid if declared[key] is None and not values[key]]
    if missing:
        raise StepError(f"{place}, section {step}: {missing[0]} is missing and has no default")
    return values
