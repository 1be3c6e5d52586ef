"""Make the models that serve.py measures, once: for this project's server, for llama.cpp's, and for the usual recipe.

A folder holds one kind of weights in all its forms, made from one checkpoint:

checkpoint/         safetensors
onnx/, mlflow/      int4 as this project converts it, and the MLflow model of it
recipe-onnx/,
recipe-mlflow/      int4 as the builder makes it by default, and the usual recipe's wrapper of it
q4_0.gguf           for llama.cpp

A form that is there already is not made again.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks import serve_recipe
from tests.benchmarks.chat_models import convert_checkpoint, save_model
from tests.benchmarks.machine import ROOT, log
from tests.checkpoints.geometries import PUBLISHED, make_checkpoint

TINY = ROOT / "params" / "tiny-phi3"
_RECIPE_OPTIONS = "block_size=32"


@dataclass(frozen=True)
class Models:
    """All forms of one kind of weights."""

    folder: Path

    @property
    def onnx(self) -> Path:
        """The converted folder."""
        return self.folder / "onnx"

    @property
    def mlflow(self) -> Path:
        """The MLflow model that this project logs."""
        return self.folder / "mlflow"

    @property
    def recipe(self) -> Path:
        """The MLflow model of the usual recipe."""
        return self.folder / "recipe-mlflow"

    @property
    def gguf(self) -> Path:
        """The file of llama.cpp, in Q4_0."""
        return self.folder / "q4_0.gguf"


def random_checkpoint(layers: int, folder: Path) -> Path:
    """Write Phi-3-mini's geometry with random weights, and a tokenizer in which every token has a text."""
    if not (folder / "config.json").is_file():
        make_checkpoint(folder, "phi-3-mini", TINY, **PUBLISHED["phi-3-mini"] | {"num_hidden_layers": layers})
        path = folder / "tokenizer.json"
        tokenizer = json.loads(path.read_text(encoding="utf-8"))
        vocabulary = tokenizer["model"]["vocab"]
        known = {*vocabulary.values(), *(token["id"] for token in tokenizer["added_tokens"])}
        more = range(PUBLISHED["phi-3-mini"]["vocab_size"])
        vocabulary.update({f"\u0120w{token}": token for token in more if token not in known})  # \u0120 is a space
        path.write_text(json.dumps(tokenizer), encoding="utf-8")
    return folder


def make_models(checkpoint: Path, folder: Path, options: str, llama: Path | None, recipe: bool) -> Models:
    """Make the forms of a checkpoint.

    Args:
        options: of this project's conversion, such as "block_size=128".
        llama: the folder of llama.cpp's programs, or None to make no GGUF.
        recipe: whether to make the usual recipe's model.
    """
    models = Models(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if not models.mlflow.is_dir():
        log(f"converting {checkpoint.name} with {options}")
        save_model(convert_checkpoint(checkpoint, _empty(models.onnx), options), models.mlflow, "llm/v1/chat")
    if recipe and not models.recipe.is_dir():
        log(f"converting {checkpoint.name} with {_RECIPE_OPTIONS}")
        converted = convert_checkpoint(checkpoint, _empty(folder / "recipe-onnx"), _RECIPE_OPTIONS)
        _save_recipe(converted.folder, models.recipe)
    if llama and not models.gguf.is_file():
        log(f"quantising {checkpoint.name} by llama.cpp")
        _make_gguf(checkpoint, models.gguf, llama)
    return models


def _empty(folder: Path) -> Path:
    """Remove what an interrupted run has left. Return the folder, which the conversion makes."""
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def _save_recipe(onnx: Path, target: Path) -> None:
    import mlflow

    mlflow.pyfunc.save_model(
        target,
        python_model=serve_recipe.__file__,
        artifacts={"onnx": str(onnx)},
        pip_requirements=["onnxruntime-genai"],
    )


def _make_gguf(checkpoint: Path, target: Path, llama: Path) -> None:
    full = target.with_name("f16.gguf")
    script = Path(__file__).with_name("serve_gguf.py")
    subprocess.run([sys.executable, script, checkpoint, full], check=True, stdout=sys.stderr, env=os.environ)
    part = target.with_name("q4_0.part")
    subprocess.run(
        [llama / "llama-quantize", full, part, "Q4_0"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    full.unlink()
    part.rename(target)
