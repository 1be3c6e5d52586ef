"""The logged `python_model`: MLflow runs this file when it loads the model (models from code)."""

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext


@contextmanager
def no_bytecode() -> Iterator[None]:
    """Let imports inside the block write no `__pycache__`, and remove the one that Python has written for this file.

    MLflow imports this file and the package `chat` from the model's folder. That folder may be the artifact store
    itself, and loading a model must not change the store. Python's switch is for the whole process, so it is on only
    for the imports of the block. ONNX Runtime's modules are among them; Python compiles those again at each load unless
    the installer has compiled them.
    """
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before
    with suppress(OSError):  # it may not exist, or have other files in it
        bytecode = Path(importlib.util.cache_from_source(__file__))
        bytecode.unlink()
        bytecode.parent.rmdir()


with no_bytecode():  # all modules of `chat` are imported here, or when the model is loaded, and none later
    from chat.api.rows import read_rows
    from chat.api.signature import COMPLETIONS
    from chat.completions import result_frame
    from chat.errors import ModelError, refuse_copy
    from chat.service import Service
    from chat.spark import as_spark_column, in_spark, with_null_texts


class PhiModel(PythonModel):
    """A model of the task `llm/v1/chat` or `llm/v1/completions`.

    Its artifacts are `checksums`, and `onnx` or what transformers_model.load describes.
    The model config has the key `task`, and the keys that service.Service and settings.Settings describe.
    `mlflow.pyfunc.load_model(..., model_config=...)` overrides them.
    """

    def load_context(self, context: PythonModelContext) -> None:
        """Load the model and start the engine's thread. The thread ends with this object."""
        self._task = context.model_config["task"]
        artifacts = {name: Path(path) for name, path in context.artifacts.items()}
        self._service = _service(artifacts, context.model_config)

    # The signature has no inputs, so `model_input` is what the caller passed: a request, a list of requests, or a
    # DataFrame of them. With another annotation MLflow would derive a signature from it, and check the input itself.
    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> list[dict[str, Any]] | pd.DataFrame:
        """Answer each row, in order.

        Returns:
            A list of chat responses, or for llm/v1/completions a DataFrame. Inside a Spark task the first column of
            the chat responses is `content`, the text: a spark_udf of the type string returns the first column.

        Raises:
            ModelError: a field of a chat row or a parameter is invalid. See service.Service.
        """
        if self._task == COMPLETIONS:
            rows, own_params = read_rows(model_input, "prompt"), params or {}
            frame = result_frame(self._service.complete(rows, own_params))
            return with_null_texts(frame) if in_spark() else frame
        responses = self._service.chat(read_rows(model_input, "messages"))
        return as_spark_column(responses) if in_spark() else responses

    def predict_stream(
        self, context: PythonModelContext, model_input: dict[str, Any], params: dict[str, Any] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Return the chunks of the answer to one chat request.

        Raises:
            ModelError: the task is llm/v1/completions. See also service.Service.stream.
        """
        if self._task == COMPLETIONS:
            raise ModelError("llm/v1/completions does not stream: call predict")
        (row,) = read_rows(model_input, "messages")
        return self._service.stream(row)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Refuse to pickle or copy a loaded model."""
        return refuse_copy() if hasattr(self, "_service") else super().__reduce_ex__(protocol)


def _service(artifacts: dict[str, Path], config: dict[str, Any]) -> Service:
    """Load a model with the one runtime that it needs: the packages of the other one may be missing."""
    if "onnx" in artifacts:
        with no_bytecode():
            import chat.runtime.session  # noqa: F401 - the engine uses it
        return Service(artifacts["onnx"], artifacts["checksums"], config)
    for name in ("torch", "transformers.cache_utils"):  # outside the block: to compile them again would take long
        importlib.import_module(name)
    with no_bytecode():
        from chat.transformers_model import load
    return load(artifacts, config)


set_model(PhiModel())
