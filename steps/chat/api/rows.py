"""Turn what a caller passes to predict into rows: one request, several, or a DataFrame of pandas or Spark."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ..errors import ModelError


def read_rows(model_input: Any, column: str) -> list[dict[str, Any]]:
    """Return the requests of a model input.

    Args:
        column: the field that every request has. Spark and MLflow call the only column of a table 0 when the caller
            gives it no name.

    Raises:
        ModelError: the input is no request and no table of requests.
    """
    if isinstance(model_input, pd.DataFrame):
        frame = model_input
        if column not in frame.columns and len(frame.columns) == 1 and str(frame.columns[0]) == "0":
            frame = frame.rename(columns={frame.columns[0]: column})
        return [{str(name): value for name, value in row.items()} for row in frame.to_dict(orient="records")]
    if isinstance(model_input, Mapping):
        return _rows_of_mapping(model_input, column)
    values = model_input.tolist() if hasattr(model_input, "tolist") else model_input
    if isinstance(values, str):
        values = [values]
    if isinstance(values, list) and values and all(isinstance(value, Mapping) for value in values):
        return [dict(value) for value in values]
    if column == "prompt" and isinstance(values, list) and values:
        return [{column: value} for value in values]
    raise ModelError(
        f"the input has the type {type(model_input).__name__}; expected a request with {column}, or a table"
    )


def _rows_of_mapping(request: Mapping[str, Any], column: str) -> list[dict[str, Any]]:
    """Return one row, or the rows of a list of prompts."""
    value: Any = request.get(column)
    value = value.tolist() if hasattr(value, "tolist") else value
    if column == "prompt" and isinstance(value, list):
        return [{**request, column: item} for item in value]
    return [dict(request) | ({} if value is None else {column: value})]
