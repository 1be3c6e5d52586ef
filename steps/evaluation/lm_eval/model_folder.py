"""Find what lm-eval needs of a logged model: its tokenizer, and how many tokens it reads."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from steps.checkpoint.longrope import longrope_switch
from steps.common.errors import StepError
from steps.evaluation.measure.worker import one_line

if TYPE_CHECKING:
    from mlflow.models import Model


@dataclass(frozen=True)
class ModelFolder:
    """A logged model on this machine.

    `max_length` is the context length in tokens, or the length at which LongRoPE switches its factors. Logits that are
    computed in blocks would be wrong across that switch.
    """

    folder: Path
    info: "Model"
    tokenizer: Path
    max_length: int


def open_model_folder(model_uri: str) -> ModelFolder:
    """Find a logged model, or download it.

    Args:
        model_uri: an MLflow model URI, or a folder.

    Raises:
        StepError: there is no such model, or neither wrapper made it.
    """
    import mlflow

    try:
        folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=model_uri))
        info = mlflow.models.Model.load(str(folder))
    except (mlflow.exceptions.MlflowException, OSError) as error:
        raise StepError(f"model is {model_uri!r}: {one_line(error)}") from None
    inside = _transformers_model(folder, info) if "transformers" in info.flavors else _custom_model(folder, info)
    if inside is None:
        raise StepError(f"model is {model_uri!r}: expected a model that wrap_transformer or wrap_custom made")
    return ModelFolder(folder, info, *inside)


def _transformers_model(folder: Path, info: "Model") -> tuple[Path, int] | None:
    """Return the tokenizer's folder and the maximal length of a model of the transformers flavor."""
    weights = folder / info.flavors["transformers"].get("model_binary", "model")
    if not (weights / "config.json").is_file():
        return None
    tokenizer = folder / "components" / "tokenizer"
    context = json.loads((weights / "config.json").read_text(encoding="utf-8"))["max_position_embeddings"]
    return tokenizer if tokenizer.is_dir() else weights, longrope_switch(weights) or context


def _custom_model(folder: Path, info: "Model") -> tuple[Path, int] | None:
    """Return the tokenizer's folder and the maximal length of a custom model."""
    config = next(folder.glob("artifacts/*/genai_config.json"), None)
    if config is None:
        return None
    context = json.loads(config.read_text(encoding="utf-8"))["model"]["context_length"]
    return config.parent, info.flavors["python_function"].get("config", {}).get("longrope_switch") or context
