"""What a Spark task needs of the results."""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd


def in_spark() -> bool:
    """Return whether this process works on a task of Spark. Nothing is imported for it."""
    pyspark: Any = sys.modules.get("pyspark")
    return pyspark is not None and pyspark.TaskContext.get() is not None


def as_spark_column(responses: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return responses as a table whose first column is the text of the first choice.

    mlflow.pyfunc.spark_udf returns the first column if its result type is a string, and otherwise reads the columns of
    the signature by their names.
    """
    texts = [response["choices"][0]["message"]["content"] for response in responses]
    frame = pd.DataFrame([*responses])
    frame.insert(0, "content", pd.Series(texts, dtype=object))
    return frame


class _Texts(pd.arrays.StringArray):
    """Texts that keep null when they are cast to strings.

    mlflow.pyfunc.spark_udf casts each column of texts by `astype(np.str_)`, or by `map(str)` for the type string. For
    every dtype of pandas that makes a text of null: "None", "nan" or "<NA>". So there is no plainer way than an array
    with casts of its own.
    """

    def astype(self, dtype: Any, copy: bool = True) -> Any:
        """Return the texts and None, whatever the dtype."""
        return self.map(str)

    def map(self, mapper: Any, na_action: Any = None) -> Any:
        """Return what a function makes of the texts, and None."""
        return np.array([None if text is pd.NA else mapper(text) for text in self], dtype=object)


def with_null_texts(frame: pd.DataFrame) -> pd.DataFrame:
    """Return result rows of llm/v1/completions whose missing texts are null in Spark, too."""
    texts = [name for name in frame.columns if frame[name].dtype == object]
    return frame.assign(**{name: _texts(frame[name]) for name in texts})


def _texts(column: "pd.Series[Any]") -> _Texts:
    return _Texts(np.array([pd.NA if text is None else text for text in column], dtype=object))
