"""Gates: the least and the most that a metric may be, by itself or against the reference or the present champion.

A YAML file of `metric: {min: x, max: y}`, where `reference` and `champion` hold limits for the difference or the ratio:

    accuracy: {min: 0.85, reference: {min_difference: -0.02}}
    decode_tokens_per_s: {champion: {min_ratio: 0.95}}
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from steps.common.errors import StepError, nearest
from steps.evaluation.inputs.evalset import read_lines

METRICS = (
    "accuracy",
    "agreement",
    "judged",
    "perplexity",
    "ln_perplexity_ratio",
    "kl_mean",
    "kl_median",
    "kl_99",
    "kl_max",
    "same_top",
    "rms_dp",
    "load_s",
    "first_call_ms",
    "ttft_ms",
    "ttft_p95_ms",
    "tpot_ms",
    "tpot_p95_ms",
    "prefill_tokens_per_s",
    "decode_tokens_per_s",
    "requests_per_s_1",
    "requests_per_s_4",
    "requests_per_s_8",
    "peak_memory_mb",
    "size_mb",
    "bandwidth_share",
)
OF_REFERENCE = ("accuracy", "perplexity")  # the reference answers and is read, and is not timed
_BOUNDS = ("min", "max")
_RELATIVE = ("min_difference", "max_difference", "min_ratio", "max_ratio")
_EXAMPLE = "{min: 0.9, max: 1, reference: {min_difference: -0.02}, champion: {min_ratio: 0.95}}"

Metrics = dict[str, float | None]


@dataclass(frozen=True)
class Gate:
    """One limit, inclusive.

    `against` is empty, `reference` or `champion`; `how` is `value`, `difference` (the metric minus the other's) or
    `ratio` (the metric over the other's).
    """

    metric: str
    bound: str
    limit: float
    against: str = ""
    how: str = "value"

    def judge(self, metrics: Metrics, reference: Metrics, champion: Metrics | None) -> dict[str, Any]:
        """Whether a model passes. A gate that can't be evaluated fails.

        Args:
            champion: the present champion's metrics, which a gate against it needs; None where there is none, in which
                case such a gate has nothing to hold the model to, and is passed.

        Returns:
            `text`, for a person, such as "accuracy 0.97 < 0.98", and `passed`.
        """
        if self.against == "champion" and champion is None:
            return {"text": f"{self.metric} against the champion: there is none yet", "passed": True}
        value, other = metrics.get(self.metric), None
        if self.against:
            other = (reference if self.against == "reference" else champion).get(self.metric)
        found = self._measured(value, other)
        if found is None:
            whose = f" of the {self.against}" if _is_number(value) else ""
            return {"text": f"{self.metric}{whose} could not be measured", "passed": False}
        passed = self._passes(found)
        sign = {("min", True): ">=", ("min", False): "<", ("max", True): "<=", ("max", False): ">"}[self.bound, passed]
        what = {"value": "", "difference": f" - {self.against}'s", "ratio": f" / {self.against}'s"}[self.how]
        return {"text": f"{self.metric}{what} {found:.4g} {sign} {self.limit:g}", "passed": passed}

    def _measured(self, value: float | None, other: float | None) -> float | None:
        if not _is_number(value) or (self.against and not _is_number(other)):
            return None
        if self.how == "difference":
            return float(f"{value - other:.12g}")  # 0.9 - 0.92 is not below -0.02
        if self.how == "ratio":
            return value / other if other else None
        return value

    def _passes(self, found: float) -> bool:
        """By MLflow's own validation; a NaN passes nothing."""
        from mlflow.models import MetricThreshold
        from mlflow.models.evaluation import EvaluationResult
        from mlflow.models.evaluation.validation import ModelValidationFailedException, validate_evaluation_results

        threshold = MetricThreshold(threshold=self.limit, greater_is_better=self.bound == "min")
        try:
            validate_evaluation_results({self.metric: threshold}, EvaluationResult({self.metric: found}, {}))
        except ModelValidationFailedException:
            return False
        return True


def _is_number(value: float | None) -> bool:
    return value is not None and not math.isnan(value)


def read_gates(path: Path) -> list[Gate]:
    """Read and check a file of gates.

    Raises:
        StepError: no such file, not YAML, or an unknown metric, bound or limit.
    """
    try:
        content = yaml.safe_load("\n".join(read_lines(path, "gates", "a YAML file")))
    except yaml.YAMLError as error:
        raise StepError(f"gates {path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or not content:
        raise StepError(f"gates {path}: expected at least one `metric: {{min: ..., max: ...}}`")
    gates: list[Gate] = []
    for metric, bounds in content.items():
        place = f"gates {path}: {metric}"
        if metric not in METRICS:
            raise StepError(f"gates {path}: no metric {str(metric)!r}; {nearest(str(metric), METRICS)}")
        if not isinstance(bounds, dict) or not bounds:
            raise StepError(f"{place} is {bounds!r}; expected such as {_EXAMPLE}")
        for name, limit in bounds.items():
            if name in ("reference", "champion"):
                gates += _relative(metric, name, limit, place)
            elif name in _BOUNDS and _is_limit(limit):
                gates.append(Gate(metric, name, float(limit)))
            else:
                raise StepError(f"{place} has {name}: {limit!r}; expected min or max and a number, as in {_EXAMPLE}")
    return gates


def _relative(metric: str, against: str, limits: Any, place: str) -> list[Gate]:
    if against == "reference" and metric not in OF_REFERENCE:
        valid = ", ".join(OF_REFERENCE)
        raise StepError(f"{place} has reference: the reference is not measured so; only its {valid} can be compared")
    if not isinstance(limits, dict) or not limits:
        raise StepError(f"{place} has {against}: {limits!r}; expected such as {_EXAMPLE}")
    gates = []
    for name, limit in limits.items():
        if name not in _RELATIVE or not _is_limit(limit):
            valid = ", ".join(_RELATIVE)
            raise StepError(f"{place} has {against}: {name}: {limit!r}; expected one of {valid}, and a number")
        bound, _, how = name.partition("_")
        gates.append(Gate(metric, bound, float(limit), against, how))
    return gates


def _is_limit(limit: Any) -> bool:
    return isinstance(limit, int | float) and not isinstance(limit, bool)
