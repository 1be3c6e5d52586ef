"""What an evaluation is of: the models that the user named, and the champion that they are compared with."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow.models import Model
    from mlflow.models.model import ModelInfo


@dataclass(frozen=True)
class Subject:
    """A model that is evaluated."""

    label: str  # a short name, in letters that the name of a metric may have
    uri: str
    model_id: str | None
    version: int | None  # of the registered model
    given: bool  # False: the present champion, added for comparison
    is_champion: bool  # before this evaluation


def input_names(info: "Model | ModelInfo") -> list[str]:
    """Return the fields that a model takes: its signature's, or those of its task if the signature has no inputs."""
    if info.signature and info.signature.inputs is not None:
        return info.signature.inputs.input_names()
    if info.signature and info.signature.outputs is not None:  # this project's models say what they return
        return ["messages"] if "choices" in info.signature.outputs.input_names() else ["prompt"]
    task = (info.metadata or {}).get("task", "llm/v1/chat")
    return ["prompt"] if task == "llm/v1/completions" else ["messages"]
