"""The model config of both wrappers, and the question that both ask their logged model."""

from typing import Any

from steps.chat.runtime.reasoning import is_named_reasoning
from steps.chat.settings import Settings
from steps.project.tasks import INPUT_EXAMPLES, MAX_TOKENS


def model_config(name: str, task: str, settings: Settings) -> dict[str, Any]:
    """Return the model config of a logged model: all keys that a caller may override, with their defaults.

    Args:
        name: of the checkpoint, which is the field `model` of the answers.
    """
    return {"model": name, "task": task, "max_tokens": MAX_TOKENS, "trace": False, **vars(settings)}


def reasoning_setting(name: str) -> str:
    """Return the setting `reasoning` for a checkpoint, by its name."""
    return "on" if is_named_reasoning(name) else "auto"


def ask_example(model_uri: str, task: str) -> None:
    """Load a logged model, and ask it its input example. MLflow only warns if that fails."""
    import mlflow

    example = INPUT_EXAMPLES[task]
    question, params = example if isinstance(example, tuple) else (example, None)
    mlflow.pyfunc.load_model(model_uri).predict(question, params=params)
