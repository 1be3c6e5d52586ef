"""Both tasks inside a Spark job, by mlflow.pyfunc.spark_udf."""

import shutil
import sys
from collections.abc import Iterator
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest

from steps.chat.completions import result_frame
from steps.chat.spark import with_null_texts
from tests.chat.models import CHAT, COMPLETIONS, FRANCE

pytestmark = pytest.mark.model
PROMPT = "<|user|>\nWhat is 2 plus 2?<|end|>\n<|assistant|>\n"
ROME = [{"role": "user", "content": "What is the capital of Italy?"}]
SETTINGS = {
    "spark.ui.enabled": "false",
    "spark.sql.shuffle.partitions": "1",
    "spark.python.worker.reuse": "true",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
}


@pytest.fixture(scope="module")
def spark(tmp_path_factory) -> Iterator[Any]:
    """A Spark session of one worker in this process."""
    pyspark = pytest.importorskip("pyspark.sql", reason="pyspark is not installed")
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java, which is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        patch.chdir(tmp_path_factory.mktemp("spark"))  # Spark leaves a warehouse where it starts
        builder = pyspark.SparkSession.builder.master("local[1]")
        for name, value in SETTINGS.items():
            builder = builder.config(name, value)
        session = builder.getOrCreate()
        yield session
        session.stop()


def rows_of(spark: Any, column: Any, frame: Any) -> list[Any]:
    """Return the values of a column that a model computes, in order."""
    return [row["result"] for row in frame.select("number", column.alias("result")).orderBy("number").collect()]


def test_completions_with_bad_rows_do_not_kill_the_job(spark, transformers_folders):
    udf = mlflow.pyfunc.spark_udf(spark, str(transformers_folders[COMPLETIONS]))
    prompts = [(0, PROMPT), (1, ""), (2, None), (3, "word " * 2100), (4, PROMPT)]
    results = rows_of(spark, udf("prompt"), spark.createDataFrame(prompts, "number int, prompt string"))
    assert [row["text"] for row in results] == ["4", None, None, None, "4"]
    assert [row["completion_tokens"] for row in results] == [2, 0, 0, 0, 2]
    assert [row["error"] is None for row in results] == [True, False, False, False, True]
    assert "at most 2047 fit" in results[3]["error"]
    texts = mlflow.pyfunc.spark_udf(spark, str(transformers_folders[COMPLETIONS]), "string")
    assert rows_of(spark, texts("prompt"), spark.createDataFrame(prompts[:2], "number int, prompt string")) == [
        "4",
        None,
    ]


def test_texts_keep_null_through_the_casts_of_spark_udf():
    good = {"text": "4", "finish_reason": "stop", "prompt_tokens": 1, "completion_tokens": 2, "error": None}
    bad = dict.fromkeys(good) | {"prompt_tokens": 0, "completion_tokens": 0, "error": "x"}
    frame = pd.DataFrame(with_null_texts(result_frame([good, bad])))
    assert frame["text"].astype(np.str_).tolist() == ["4", None]
    assert frame["error"].astype(np.str_).tolist() == [None, "x"]
    assert frame.map(str)["text"].isna().tolist() == [False, True]
    assert frame["completion_tokens"].astype(np.int64).tolist() == [2, 0]


def test_chats_give_texts_or_whole_responses(spark, transformers_folders):
    from pyspark.sql.functions import struct

    form = "number int, messages array<struct<role string, content string>>, max_tokens int, stop array<string>"
    rows = [(0, FRANCE, None, None), (1, ROME, 2, ["!"]), (2, FRANCE, 1, None)]
    frame = spark.createDataFrame(rows, form)
    request = struct("messages", "max_tokens", "stop")
    texts = mlflow.pyfunc.spark_udf(spark, str(transformers_folders[CHAT]), "string")
    assert rows_of(spark, texts(request), frame) == ["Paris", "Rome", "Par"]
    assert rows_of(spark, texts("messages"), frame.limit(1)) == ["Paris"], "one column needs no struct"
    whole = mlflow.pyfunc.spark_udf(spark, str(transformers_folders[CHAT]))
    first, second, _ = rows_of(spark, whole(request), frame)
    assert first["choices"][0]["message"]["content"] == "Paris" and first["id"].startswith("chatcmpl-")
    assert second["usage"]["completion_tokens"] == 2


def test_a_bad_chat_row_is_named_by_its_number(spark, transformers_folders):
    from pyspark.sql.functions import struct

    rows = [(0, FRANCE, 1), (1, FRANCE, -1)]
    form = "number int, messages array<struct<role string, content string>>, max_tokens int"
    udf = mlflow.pyfunc.spark_udf(spark, str(transformers_folders[CHAT]), "string")
    with pytest.raises(Exception, match=r"row 1: max_tokens is -1; expected a whole number"):
        rows_of(spark, udf(struct("messages", "max_tokens")), spark.createDataFrame(rows, form))
