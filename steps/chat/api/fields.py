"""Fields of a request as MLflow and pandas hand them over, and how one is refused."""

import json
import math
from collections.abc import Mapping
from typing import Any

from mlflow.exceptions import MlflowException


def plain(value: Any) -> Any:
    """Without the arrays that pandas makes of lists."""
    return value.tolist() if hasattr(value, "tolist") else value


def present(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Without what pandas makes of an absent value."""
    return {
        name: plain(value)
        for name, value in fields.items()
        if value is not None and not (isinstance(value, float) and math.isnan(value))
    }


def invalid(name: str, value: Any, expected: str) -> MlflowException:
    """INVALID_PARAMETER_VALUE (HTTP 400), in one short line."""
    shown = json.dumps(value, default=str, ensure_ascii=False)
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    return MlflowException.invalid_parameter_value(f"{name} is {shown}; {expected}")
