"""The logged `python_model`: MLflow runs this file when it loads the model (models from code)."""

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
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


with no_bytecode():  # all modules of `chat` are imported here: none is imported later, inside a function
    from chat.api.signature import COMPLETIONS
    from chat.service import Service


class PhiModel(PythonModel):
    """A model of the task `llm/v1/chat` or `llm/v1/completions`. Its artifacts are `onnx` and `checksums`.

    The model config has the key `task`, and the keys that service.Service and settings.Settings describe.
    `mlflow.pyfunc.load_model(..., model_config=...)` overrides them.
    """

    def load_context(self, context: PythonModelContext) -> None:
        """Load the ONNX folder and start the engine's thread. The thread ends with this object."""
        self._task = context.model_config["task"]
        folder, checksums = (Path(context.artifacts[name]) for name in ("onnx", "checksums"))
        self._service = Service(folder, checksums, context.model_config)

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> list[dict[str, Any]] | pd.DataFrame:
        """Answer each row, in order.

        Returns:
            A list of chat responses, or for llm/v1/completions a DataFrame.

        Raises:
            MlflowException: a field of a chat row or a parameter is invalid. See service.Service.
        """
        rows = model_input.to_dict(orient="records")
        if self._task == COMPLETIONS:
            return pd.DataFrame(self._service.complete(rows, params or {}))
        return self._service.chat(rows)

    def predict_stream(
        self, context: PythonModelContext, model_input: dict[str, Any], params: dict[str, Any] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Return the chunks of the answer to one chat request.

        Raises:
            MlflowException: the task is llm/v1/completions. See also service.Service.stream.
        """
        if self._task == COMPLETIONS:
            raise MlflowException.invalid_parameter_value("llm/v1/completions does not stream: call predict")
        return self._service.stream(model_input)


set_model(PhiModel())
