"""The model itself, as MLflow's models-from-code loads it: this file is the logged `python_model`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from chat.api.signature import COMPLETIONS
from chat.service import Service
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext


class PhiModel(PythonModel):
    """`llm/v1/chat` or `llm/v1/completions` over ONNX Runtime; its artifacts are `onnx` and `checksums`.

    Model config, which `mlflow.pyfunc.load_model(..., model_config=...)` overrides: `task`, and what service.Service
    and settings.Settings say.
    """

    def load_context(self, context: PythonModelContext) -> None:
        """Load the ONNX folder and start the engine's thread, which ends with this object."""
        self._task = context.model_config["task"]
        folder, checksums = (Path(context.artifacts[name]) for name in ("onnx", "checksums"))
        self._service = Service(folder, checksums, context.model_config)

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> list[dict[str, Any]] | pd.DataFrame:
        """Answer each row, in order.

        Raises:
            MlflowException: a field of a chat's row or a parameter is invalid; see service.Service.
        """
        rows = model_input.to_dict(orient="records")
        if self._task == COMPLETIONS:
            return pd.DataFrame(self._service.complete(rows, params or {}))
        return self._service.chat(rows)

    def predict_stream(
        self, context: PythonModelContext, model_input: dict[str, Any], params: dict[str, Any] | None = None
    ) -> Iterator[dict[str, Any]]:
        """The chunks of the answer to one chat request."""
        if self._task == COMPLETIONS:
            raise MlflowException.invalid_parameter_value("llm/v1/completions answers whole rows: call predict")
        return self._service.stream(model_input)


set_model(PhiModel())
