"""wrap_transformer: a fetch_model run -> a logged model of MLflow's transformers flavor, its URI as tag `model_uri`."""

import contextlib
import importlib.metadata
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from steps.checkpoint.hub import stay_offline
from steps.checkpoint.run_page import facts_line
from steps.common.disk import need_space, size_text
from steps.common.errors import one_of
from steps.common.hashing import total_size
from steps.project.tasks import INPUT_EXAMPLES, MAX_TOKENS, TASKS
from steps.registry.names import ensure_registered_model, model_name, with_full_name
from steps.registry.versions import publish
from steps.runs.artifacts import check_run_id, local_store
from steps.runs.checkpoint_input import VerifiedCheckpoint, check_tasks, verified_checkpoint
from steps.runs.entry_point import run_entry_point
from steps.runs.step import Step

if TYPE_CHECKING:
    from huggingface_hub import ModelCard
    from mlflow.models.model import ModelInfo

# Without this list MLflow infers one. To infer, it needs torchvision and loads the model.
_REQUIREMENTS = ("mlflow", "torch", "transformers")


def check(params: dict[str, str]) -> None:
    """Raise StepError if a parameter cannot be right."""
    check_run_id("checkpoint_run", params["checkpoint_run"])
    one_of("task", params["task"], TASKS)
    with_full_name(params)


def wrap_transformer(step: Step, checkpoint_run: str, task: str, registered_model: str) -> None:
    """Log the files of the canonical checkpoint. The weights are copied, not loaded."""
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
    with step.console.phase("logging the model"), _folder_named_as_model(checkpoint, step.scratch) as folder_name:
        info = _log_model(folder_name, checkpoint, task, tags, description)
    published = publish(step.client, step.run_id, info, registered_model, tags, description)
    step.summarise(f"transformers, {dtype}, {size_text(size)}: {published}", description)


def _log_model(
    folder_name: str, checkpoint: VerifiedCheckpoint, task: str, tags: dict[str, str], description: str
) -> "ModelInfo":
    import mlflow
    import torch
    from transformers import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    manifest = checkpoint.manifest
    dtype = manifest.architecture.dtype
    return mlflow.transformers.log_model(
        folder_name,
        name=model_name(manifest.origin.name, "transformers"),
        task=task,
        torch_dtype=getattr(torch, dtype),  # the default is float32, which takes twice the memory
        pip_requirements=[f"{package}=={_public_version(package)}" for package in _REQUIREMENTS],
        input_example=INPUT_EXAMPLES[task],
        metadata={**tags, "variant": f"transformers-{dtype}", "licence": manifest.licence},
        model_card=_model_card(checkpoint.folder, description),
        # The pipeline samples by default. Only greedy answers can be compared and repeated. A caller can change the
        # settings that are named here and no others, so the checkpoint's own EOS is named too.
        model_config={
            "max_new_tokens": MAX_TOKENS,
            "do_sample": False,
            "eos_token_id": list(manifest.canonical.end_tokens),
        },
    )


@contextlib.contextmanager
def _folder_named_as_model(checkpoint: VerifiedCheckpoint, scratch: Path) -> Iterator[str]:
    """Yield a relative folder `owner/name` with links to the checkpoint's files; change the working directory to match.

    The flavor copies the whole folder. It records the folder's path, and answers with the path as the field `model`.
    An absolute path would record a path of this machine, so there is no way around the working directory, which is
    global to the process. The step does nothing else meanwhile.
    """
    name = checkpoint.manifest.origin.name
    root = Path(tempfile.mkdtemp(dir=scratch))
    (root / name).mkdir(parents=True)
    for file in checkpoint.folder.iterdir():
        (root / name / file.name).symlink_to(file.resolve())
    with contextlib.chdir(root):
        yield name


def _model_card(folder: Path, description: str) -> "ModelCard":
    from huggingface_hub import ModelCard

    card = folder / "README.md"
    return ModelCard(card.read_text(encoding="utf-8") if card.is_file() else description, ignore_metadata_errors=True)


def _public_version(package: str) -> str:
    """Return the version that a package index knows: without a local part such as +cpu."""
    return importlib.metadata.version(package).partition("+")[0]


if __name__ == "__main__":
    run_entry_point("wrap_transformer", wrap_transformer, check, with_full_name)
