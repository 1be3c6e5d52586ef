"""Make the models that chat.py measures: converted folders, and MLflow models of them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from steps.conversion.convert import convert
from steps.conversion.options import parse_choice
from steps.conversion.record import Conversion
from steps.wrap_custom import model_arguments
from tests.conversion.records import conversion_of


@dataclass(frozen=True)
class ConvertedModel:
    """A converted folder and the record of its conversion."""

    folder: Path
    conversion: Conversion


def convert_checkpoint(checkpoint: Path, out: Path, options: str, precision: str = "int4") -> ConvertedModel:
    """Convert a checkpoint by the model builder.

    Args:
        options: of the conversion, such as "block_size=128".
    """
    choice = parse_choice("genai", precision, options, "cpu")
    facts = convert(checkpoint, out, choice)
    return ConvertedModel(out, conversion_of(out, **vars(choice), **vars(facts)))


def save_model(model: ConvertedModel, target: Path, task: str) -> Path:
    """Save a converted folder as the MLflow model that wrap_custom logs. Return the model's folder."""
    import mlflow

    arguments = model_arguments(model.folder, model.conversion, task, model.folder.parent)
    arguments.pop("input_example")
    mlflow.pyfunc.save_model(target, **arguments)
    return target


def random_prompt(seed: int, count: int) -> list[int]:
    """Return `count` random tokens. Another seed gives a prompt that no engine has cached."""
    return [int(token) for token in np.random.default_rng(seed).integers(10, 700, count)]
