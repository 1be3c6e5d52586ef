"""Read the fields of a request as MLflow and pandas pass them on, and refuse invalid fields."""

import json
import math
from collections.abc import Mapping
from typing import Any

from mlflow.exceptions import MlflowException


def plain(value: Any) -> Any:
    """Return a list for an array: pandas turns lists into arrays."""
    return value.tolist() if hasattr(value, "tolist") else value


def present(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that have a value: pandas turns an absent value into None or NaN."""
    return {
        name: plain(value)
        for name, value in fields.items()
        if value is not None and not (isinstance(value, float) and math.isnan(value))
    }


def invalid(name: str, value: Any, expected: str) -> MlflowException:
    """Return the error INVALID_PARAMETER_VALUE (HTTP 400), in one short line.

    Args:
        expected: what the field should be, or what to do.
    """
    shown = json.dumps(value, default=str, ensure_ascii=False)
    # U+0085 and its like would break the line, and JSON does not escape them.
    shown = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in shown)
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    return MlflowException.invalid_parameter_value(f"{name} is {shown}; {expected}")


def number(fields: Mapping[str, Any], name: str, default: float, minimum: float, maximum: float = math.inf) -> float:
    """Return a number.

    Raises:
        MlflowException: INVALID_PARAMETER_VALUE, if it is not a number or is out of range.
    """
    value = fields.get(name, default)
    parsed = _as_number(value)
    if parsed is None or not minimum <= parsed <= maximum:
        raise invalid(name, value, _expected("a number", minimum, maximum))
    return parsed


def whole_number(fields: Mapping[str, Any], name: str, default: int, minimum: int, maximum: float = math.inf) -> int:
    """Return a whole number. 3.0 is one too: pandas turns optional integers into floats.

    Raises:
        MlflowException: INVALID_PARAMETER_VALUE, if it is not a whole number or is out of range.
    """
    value = fields.get(name, default)
    parsed = _as_number(value)
    if parsed is None or not minimum <= parsed <= maximum or not parsed.is_integer():
        raise invalid(name, value, _expected("a whole number", minimum, maximum))
    return int(parsed) if isinstance(value, str | float) else int(value)  # a float holds no large integer exactly


def _as_number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _expected(kind: str, minimum: float, maximum: float) -> str:
    most = f" and at most {maximum}" if maximum < math.inf else ""
    return f"expected {kind} of at least {minimum}{most}"
