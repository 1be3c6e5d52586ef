"""Gates: the least and the most that a metric may be, from a YAML file; and the choice of a champion."""

from dataclasses import dataclass
from pathlib import Path

import yaml

from steps.errors import StepError, nearest

METRICS = ("accuracy", "agreement", "ttft_ms", "decode_tokens_per_s", "peak_memory_mb", "size_mb", "load_s")
_BOUNDS = ("min", "max")


@dataclass(frozen=True)
class Gate:
    """One limit: `bound` is min or max, both inclusive."""

    metric: str
    bound: str
    limit: float

    def passes(self, value: float | None) -> bool:
        """A gate that cannot be evaluated fails."""
        if value is None:
            return False
        return value >= self.limit if self.bound == "min" else value <= self.limit

    def text(self, value: float | None) -> str:
        """For a person: accuracy 0.97 < 0.98."""
        if value is None:
            return f"{self.metric} could not be measured"
        sign = {("min", True): ">=", ("min", False): "<", ("max", True): "<=", ("max", False): ">"}
        return f"{self.metric} {value:.4g} {sign[self.bound, self.passes(value)]} {self.limit:g}"


def read_gates(path: Path) -> list[Gate]:
    """Read a file of `metric: {min: x, max: y}`.

    Raises:
        StepError: no such file, not YAML, or an unknown metric or bound.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StepError(f"gates {path} cannot be read ({error.strerror}): expected a YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StepError(f"gates {path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or not content:
        raise StepError(f"gates {path}: expected at least one `metric: {{min: ..., max: ...}}`")
    gates = []
    for metric, bounds in content.items():
        if metric not in METRICS:
            raise StepError(f"gates {path}: no metric {str(metric)!r}; {nearest(str(metric), METRICS)}")
        if not isinstance(bounds, dict) or not bounds:
            raise StepError(f"gates {path}: {metric} is {bounds!r}; expected {{min: ..., max: ...}}")
        for bound, limit in bounds.items():
            if bound not in _BOUNDS or isinstance(limit, bool) or not isinstance(limit, int | float):
                raise StepError(f"gates {path}: {metric} has {bound}: {limit!r}; expected min or max and a number")
            gates.append(Gate(metric, bound, float(limit)))
    return gates


def failures(gates: list[Gate], metrics: dict[str, float | None]) -> list[str]:
    """The gates that the metrics do not pass, in words; empty where all pass."""
    return [gate.text(metrics[gate.metric]) for gate in gates if not gate.passes(metrics[gate.metric])]


def choose_champion(candidates: dict[str, dict[str, float | None]]) -> str | None:
    """The fastest decoder of the models that passed, by URI; None where none passed.

    A model whose answers are too short to time decoding comes after those that were timed, by time to first token.
    """

    def speed(uri: str) -> tuple[float, float]:
        metrics = candidates[uri]
        return metrics["decode_tokens_per_s"] or 0.0, -metrics["ttft_ms"]

    return max(candidates, key=speed, default=None)
