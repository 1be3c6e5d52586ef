"""The model itself, as MLflow's models-from-code loads it: this file is the logged `python_model`."""

from typing import Any

import pandas as pd
from chat.engine import Engine
from chat.protocol import parse_request, response
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext


class ChatModel(PythonModel):
    """`llm/v1/chat` over ONNX Runtime GenAI; one answer per row, in order.

    Model config, which `mlflow.pyfunc.load_model(..., model_config=...)` overrides:
        model: the name in the answers.
        max_tokens: of an answer where the request says nothing.
        threads: of ONNX Runtime; 0 for the CPUs that the process may use.
    """

    def load_context(self, context: PythonModelContext) -> None:
        """Load the ONNX folder, the model's artifact `onnx`."""
        self._config = context.model_config
        self._engine = Engine(context.artifacts["onnx"], self._config["threads"])

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Answer each row; every row is checked before the first is answered.

        Raises:
            MlflowException: a field of a row is invalid, or a prompt is too long.
        """
        rows = model_input.to_dict(orient="records")
        requests = [parse_request(row, self._config["max_tokens"]) for row in rows]
        return [self._respond(request) for request in requests]

    def _respond(self, request) -> dict[str, Any]:
        done = self._engine.answer(request)
        return response(
            self._config["model"], done.text, done.prompt_tokens, done.completion_tokens, done.finish_reason
        )


set_model(ChatModel())
