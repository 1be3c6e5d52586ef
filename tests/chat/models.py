"""Logged models for tests, and the requests that they answer."""

from pathlib import Path
from typing import Any

import mlflow
from huggingface_hub import ModelCard
from mlflow.models import Model
from mlflow.pyfunc import PyFuncModel

from steps.chat.settings import Settings
from steps.project.tasks import INPUT_EXAMPLES
from steps.wrap_custom import model_arguments
from steps.wrapping.configuration import model_config
from steps.wrapping.two_flavors import save_model as save_two_flavors
from tests.conversion.records import conversion_of

CHAT, COMPLETIONS = "llm/v1/chat", "llm/v1/completions"
FRANCE = [{"role": "user", "content": "What is the capital of France?"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"enum": ["Oslo"]}}, "required": ["city"]},
    },
}


def save_model(converted: Path, target: Path, task: str = CHAT) -> Path:
    """Save an MLflow model of a converted folder as wrap_custom logs it, and return its folder."""
    mlflow.pyfunc.save_model(target, **model_arguments(converted, conversion_of(converted), task, target.parent))
    return target


def save_transformers_model(checkpoint: Path, target: Path, task: str = CHAT) -> Path:
    """Save an MLflow model of a checkpoint as wrap_transformer logs it, but in float32, and return its folder."""
    save_two_flavors(
        str(target),
        Model(metadata={}),
        model_config("tiny-phi3", task, Settings()),
        transformers_model=str(checkpoint),
        torch_dtype="float32",
        pip_requirements=["mlflow"],
        input_example=INPUT_EXAMPLES[task],
        model_card=ModelCard("---\nlicense: mit\n---\n"),  # without one MLflow asks the hub
    )
    return target


def chat(model: PyFuncModel, messages: list[dict[str, Any]] = FRANCE, **fields: Any) -> dict[str, Any]:
    """Return the response to one chat request."""
    responses: Any = model.predict({"messages": messages} | fields)
    (response,) = responses
    return response


def content(response: dict[str, Any]) -> str:
    """Return the text of the first choice."""
    return response["choices"][0]["message"]["content"]
