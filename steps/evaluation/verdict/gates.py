"""Gates: the least and the most that a metric may be, by itself or against the reference or the present champion.

A YAML file of `metric: {min: x, max: y}`, where `reference` and `champion` hold limits of the difference or the ratio:

    accuracy: {min: 0.85, reference: {min_difference: -0.02}}
    decode_tokens_per_s: {champion: {min_ratio: 0.95}}
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml

from steps.common.errors import StepError, nearest
from steps.evaluation.inputs.reading import read_lines
from steps.evaluation.method import GateLimit
from steps.evaluation.metrics import METRICS
from steps.evaluation.results import Figure, GateResult

_BOUNDS: dict[str, Literal["min", "max"]] = {"min": "min", "max": "max"}
_OTHERS: dict[str, Literal["reference", "champion"]] = {"reference": "reference", "champion": "champion"}
_RELATIVE: dict[str, tuple[Literal["min", "max"], Literal["difference", "ratio"]]] = {
    "min_difference": ("min", "difference"),
    "max_difference": ("max", "difference"),
    "min_ratio": ("min", "ratio"),
    "max_ratio": ("max", "ratio"),
}
_EXAMPLE = "{min: 0.9, max: 1, reference: {min_difference: -0.02}, champion: {min_ratio: 0.95}}"

Figures = Mapping[str, Figure]


def judge(gate: GateLimit, model: Figures, reference: Figures, champion: Figures | None) -> GateResult:
    """Return whether a model passes a gate. A gate that can't be evaluated fails.

    Args:
        model, reference: figures by metric.
        champion: figures of the present champion; empty if it could not be measured. None if there is no champion: then
            every model passes a gate against it.
    """
    if gate.against == "champion" and champion is None:
        return GateResult(text=f"{gate.metric} against the champion: there is none yet", passed=True)
    others = {"": {}, "reference": reference, "champion": champion or {}}[gate.against]
    value, other = _value(model, gate.metric), _value(others, gate.metric)
    compared = _compared(gate, value, other)
    if compared is None:
        whose = "" if value is None else f" of the {gate.against}"
        return GateResult(text=f"{gate.metric}{whose} could not be measured", passed=False)
    passed = compared >= gate.limit if gate.bound == "min" else compared <= gate.limit
    sign = {("min", True): ">=", ("min", False): "<", ("max", True): "<=", ("max", False): ">"}[gate.bound, passed]
    what = {"value": "", "difference": f" - {gate.against}'s", "ratio": f" / {gate.against}'s"}[gate.how]
    return GateResult(text=f"{gate.metric}{what} {compared:.4g} {sign} {gate.limit:g}", passed=passed)


def _value(figures: Figures, metric: str) -> float | None:
    return figures[metric].value if metric in figures else None


def _compared(gate: GateLimit, value: float | None, other: float | None) -> float | None:
    """Return what is compared with the limit; None where a value is missing."""
    if value is None:
        return None
    if gate.how == "value":
        return value
    if other is None:
        return None
    if gate.how == "difference":
        return float(f"{value - other:.12g}")  # 0.9 - 0.92 is not below -0.02
    return value / other if other else None


def read_gates(path: Path) -> tuple[GateLimit, ...]:
    """Return the gates of a file.

    Raises:
        StepError: the file can't be read or is not YAML, or it has an unknown metric, bound or limit.
    """
    try:
        content = yaml.safe_load("\n".join(read_lines(path, "gates", "a YAML file")))
    except yaml.YAMLError as error:
        raise StepError(f"gates {path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or not content:
        raise StepError(f"gates {path}: expected at least one `metric: {{min: ..., max: ...}}`")
    gates: list[GateLimit] = []
    for metric, bounds in content.items():
        if metric not in METRICS:
            raise StepError(f"gates {path}: no metric {str(metric)!r}; {nearest(str(metric), METRICS)}")
        gates += _gates(metric, bounds, f"gates {path}: {metric}")
    return tuple(gates)


def _gates(metric: str, bounds: Any, where: str) -> list[GateLimit]:
    """Return the gates of a metric.

    Args:
        where: the file and the metric, for errors.
    """
    if not isinstance(bounds, dict) or not bounds:
        raise StepError(f"{where} is {bounds!r}; expected limits, such as {_EXAMPLE}")
    gates: list[GateLimit] = []
    for name, limit in bounds.items():
        if name in _OTHERS:
            gates += _relative_gates(metric, _OTHERS[name], limit, where)
        elif name in _BOUNDS and _is_limit(limit):
            gates.append(GateLimit(metric=metric, bound=_BOUNDS[name], limit=limit))
        else:
            raise StepError(f"{where} has {name}: {limit!r}; expected min or max and a number, as in {_EXAMPLE}")
    return gates


def _relative_gates(metric: str, against: Literal["reference", "champion"], limits: Any, where: str) -> list[GateLimit]:
    """Return the gates of a metric against another model's."""
    if against == "reference" and not METRICS[metric].of_reference:
        measured = ", ".join(name for name in METRICS if METRICS[name].of_reference)
        raise StepError(f"{where} has reference: the reference does not have this metric; expected one of {measured}")
    if not isinstance(limits, dict) or not limits:
        raise StepError(f"{where} has {against}: {limits!r}; expected limits, such as {_EXAMPLE}")
    gates = []
    for name, limit in limits.items():
        if name not in _RELATIVE or not _is_limit(limit):
            expected = ", ".join(_RELATIVE)
            raise StepError(f"{where} has {against}: {name}: {limit!r}; expected one of {expected}, and a number")
        bound, how = _RELATIVE[name]
        gates.append(GateLimit(metric=metric, bound=bound, limit=limit, against=against, how=how))
    return gates


def _is_limit(limit: Any) -> bool:
    return isinstance(limit, int | float) and not isinstance(limit, bool) and math.isfinite(limit)
