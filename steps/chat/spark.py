"""What a Spark task needs of the chat form."""

import sys
from collections.abc import Sequence
from typing import Any

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
