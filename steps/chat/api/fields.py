"""Read the fields of a request as clients, MLflow, pandas and Spark pass them on, and refuse invalid fields."""

import json
import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from ..errors import ModelError

_MAX_DEPTH = 100  # objects and lists in each other
_SHOWN_DIGITS = 20


def plain(value: Any, depth: int = 0) -> Any:
    """Return a value as JSON has it: pandas turns lists into arrays, and Spark turns objects into rows.

    Raises:
        ModelError: the value is nested too deep.
    """
    if depth > _MAX_DEPTH:
        raise ModelError(f"the request has more than {_MAX_DEPTH} objects in each other: make it flatter")
    if value is pd.NA or value is pd.NaT:
        return None
    if hasattr(value, "tolist"):
        value = value.tolist()
    if hasattr(value, "asDict"):
        value = value.asDict()
    if isinstance(value, Mapping):
        return {str(name): plain(item, depth + 1) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, depth + 1) for item in value]
    return value


def present(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that have a value: null is absent, and pandas turns an absent value into None or NaN."""
    values = {str(name): plain(value) for name, value in fields.items()}
    return {
        name: value
        for name, value in values.items()
        if value is not None and not (isinstance(value, float) and math.isnan(value))
    }


def invalid(name: str, value: Any, expected: str, code: str | None = None) -> ModelError:
    """Return the error INVALID_PARAMETER_VALUE (HTTP 400), in one short line that does not repeat the request.

    Args:
        expected: what the field should be, or what to do.
        code: OpenAI's code of the error.
    """
    return ModelError(f"{name} is {described(value)}; {expected}", param=name, code=code)


def described(value: Any) -> str:
    """Return a number, true, false or null as it is, and the kind of any other value."""
    if value is None or isinstance(value, bool | int | float):
        try:
            shown = json.dumps(value)
        except ValueError:  # Python writes no integer of more than 4300 digits
            shown = ""
        return shown if 0 < len(shown) <= _SHOWN_DIGITS else "a number that is too long"
    if isinstance(value, str):
        return "a string" if value else "an empty string"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    return "an object" if isinstance(value, Mapping) else f"of the type {type(value).__name__}"


def number(fields: Mapping[str, Any], name: str, default: float, minimum: float, maximum: float = math.inf) -> float:
    """Return a number.

    Raises:
        ModelError: INVALID_PARAMETER_VALUE, if it is not a number or is out of range.
    """
    value = fields.get(name, default)
    parsed = as_number(value)
    if parsed is None or not minimum <= parsed <= maximum:
        raise invalid(name, value, _expected("a number", minimum, maximum))
    return parsed


def whole_number(fields: Mapping[str, Any], name: str, default: int, minimum: int, maximum: float = math.inf) -> int:
    """Return a whole number. 3.0 is one too: pandas turns optional integers into floats.

    Raises:
        ModelError: INVALID_PARAMETER_VALUE, if it is not a whole number or is out of range.
    """
    value = fields.get(name, default)
    parsed = as_number(value)
    if parsed is None or not minimum <= parsed <= maximum or not parsed.is_integer():
        raise invalid(name, value, _expected("a whole number", minimum, maximum))
    return int(value)  # not int(parsed): a float holds no large integer exactly


def boolean(fields: Mapping[str, Any], name: str) -> bool:
    """Return true or false; false if the field is absent.

    Raises:
        ModelError: INVALID_PARAMETER_VALUE, if it is anything else.
    """
    value = fields.get(name, False)
    if not isinstance(value, bool):
        raise invalid(name, value, "expected true or false")
    return value


def as_number(value: Any) -> float | None:
    """Return an int or a float as a float, and None for anything else. A number in a string is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def _expected(kind: str, minimum: float, maximum: float) -> str:
    most = f" and at most {maximum}" if maximum < math.inf else ""
    return f"expected {kind} of at least {minimum}{most}"
