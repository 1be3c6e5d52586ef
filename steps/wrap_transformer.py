"""wrap_transformer: a fetch_model run -> a logged model of MLflow's transformers flavor, its URI as tag `model_uri`.

`mlflow.transformers.load_model` loads it as a pipeline. `mlflow.pyfunc.load_model` loads it as the chat model that
wrap_custom logs too, over PyTorch. See steps/wrapping/two_flavors.py.
"""

import importlib.metadata
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from steps.chat.settings import Settings
from steps.checkpoint.hub import stay_offline
from steps.checkpoint.longrope import longrope_switch
from steps.checkpoint.run_page import facts_line
from steps.common.disk import need_space, size_text
from steps.common.errors import one_of
from steps.common.hashing import total_size
from steps.project.tasks import INPUT_EXAMPLES, TASKS
from steps.registry.names import ensure_registered_model, model_name, with_full_name
from steps.registry.versions import publish
from steps.runs.artifacts import check_run_id, local_store
from steps.runs.checkpoint_input import VerifiedCheckpoint, check_tasks, verified_checkpoint
from steps.runs.entry_point import run_entry_point
from steps.runs.step import Step
from steps.wrapping import two_flavors
from steps.wrapping.configuration import ask_example, model_config, reasoning_setting
from steps.wrapping.two_flavors import folder_named_as_model

if TYPE_CHECKING:
    from huggingface_hub import ModelCard
    from mlflow.models.model import ModelInfo

# What the logged model imports. Without this list MLflow infers one: it needs torchvision and loads the model.
_REQUIREMENTS = ("mlflow", "torch", "transformers", "tokenizers", "jinja2", "llguidance", "numpy")


def check(params: dict[str, str]) -> None:
    """Raise StepError if a parameter cannot be right."""
    check_run_id("checkpoint_run", params["checkpoint_run"])
    one_of("task", params["task"], TASKS)
    with_full_name(params)


def wrap_transformer(step: Step, checkpoint_run: str, task: str, registered_model: str) -> None:
    """Log the files of the canonical checkpoint, and ask the logged model a question."""
    check_tasks(step, checkpoint_run, [task])
    ensure_registered_model(step.client, step.run_id, registered_model)
    checkpoint = verified_checkpoint(step, "checkpoint_run", checkpoint_run)
    origin, dtype = checkpoint.manifest.origin, checkpoint.manifest.architecture.dtype
    size = total_size(checkpoint.manifest.files)
    store = local_store(step.run.info.artifact_uri, size)
    need_space("logging the model", [(Path(tempfile.gettempdir()), size), *store])
    tags = {"wrapper": "transformers", "precision": dtype, "checkpoint_run": checkpoint_run, "wrap_run": step.run_id}
    tags |= {"checkpoint": origin.name, "checkpoint_commit": origin.commit or "none"}
    facts = facts_line(checkpoint.manifest)
    description = f"{origin.name} in MLflow's transformers flavor (PyTorch, {dtype}), {facts}. Task {task}."
    stay_offline()  # MLflow would ask the hub for a card and a licence; the manifest and the folder have both
    with (
        step.console.phase("logging the model"),
        folder_named_as_model(checkpoint.folder, origin.name, step.scratch) as folder_name,
    ):
        info = _log_model(folder_name, checkpoint, task, tags, description)
    with step.console.phase("asking the logged model a question"):
        ask_example(info.model_uri, task)
    published = publish(step.client, step.run_id, info, registered_model, tags, description)
    step.summarise(f"transformers, {dtype}, {size_text(size)}: {published}", description)


def _log_model(
    folder_name: str, checkpoint: VerifiedCheckpoint, task: str, tags: dict[str, str], description: str
) -> "ModelInfo":
    import torch
    from mlflow.models import Model
    from transformers import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    manifest = checkpoint.manifest
    dtype = manifest.architecture.dtype
    settings = Settings(
        longrope_switch=longrope_switch(checkpoint.folder), reasoning=reasoning_setting(manifest.origin.name)
    )
    return Model.log(
        artifact_path=None,
        flavor=two_flavors,
        flavor_name="mlflow.transformers",
        name=model_name(manifest.origin.name, "transformers"),
        metadata={**tags, "variant": f"transformers-{dtype}", "licence": manifest.licence},
        validate_serving_input=False,  # it would load the weights once more, and only warn
        model_config=model_config(manifest.origin.name, task, settings),
        transformers_model=folder_name,
        torch_dtype=getattr(torch, dtype),  # the default is float32, which takes twice the memory
        pip_requirements=[f"{package}=={_public_version(package)}" for package in _REQUIREMENTS],
        input_example=INPUT_EXAMPLES[task],
        model_card=_model_card(checkpoint.folder, description),
    )


def _model_card(folder: Path, description: str) -> "ModelCard":
    from huggingface_hub import ModelCard

    card = folder / "README.md"
    return ModelCard(card.read_text(encoding="utf-8") if card.is_file() else description, ignore_metadata_errors=True)


def _public_version(package: str) -> str:
    """Return the version that a package index knows: without a local part such as +cpu."""
    return importlib.metadata.version(package).partition("+")[0]


if __name__ == "__main__":
    run_entry_point("wrap_transformer", wrap_transformer, check, with_full_name)
