"""wrap_transformer: a fetch_model run -> a logged model of MLflow's transformers flavor, its URI as tag `model_uri`."""

import contextlib
import importlib.metadata
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from steps.checkpoint.hub import stay_offline
from steps.checkpoint.manifest import Manifest
from steps.common.disk import need_space, size_text
from steps.common.errors import one_of
from steps.common.hashing import total_size
from steps.project.tasks import INPUT_EXAMPLES, MAX_TOKENS, TASKS
from steps.registry.names import ensure_registered_model, model_name, with_full_name
from steps.registry.versions import publish
from steps.runs.artifacts import check_run_id, local_store
from steps.runs.checkpoint_input import verified_checkpoint
from steps.runs.step import Step, run_entry_point

# Without an explicit list MLflow infers one, which needs torchvision and loads the model.
_REQUIREMENTS = ("mlflow", "torch", "transformers")


def check(params: dict[str, str]) -> None:
    """Refuse parameters that cannot be right, before any work."""
    check_run_id("checkpoint_run", params["checkpoint_run"])
    one_of("task", params["task"], TASKS)
    with_full_name(params)


def wrap_transformer(step: Step, checkpoint_run: str, task: str, registered_model: str) -> None:
    """Log the checkpoint's folder as it is; the weights are copied, not loaded."""
    ensure_registered_model(step.client, step.run_id, registered_model)
    checkpoint = verified_checkpoint(step, "checkpoint_run", checkpoint_run)
    folder, manifest = checkpoint.folder, checkpoint.manifest
    origin, facts = manifest.origin, manifest.architecture
    size = total_size(manifest.files)
    store = local_store(step.run.info.artifact_uri, size)
    need_space("logging the model", [(Path(tempfile.gettempdir()), size), *store])
    tags = {
        "wrapper": "transformers",
        "precision": facts.dtype,
        "checkpoint": origin.name,
        "checkpoint_commit": origin.commit or "none",
        "checkpoint_run": checkpoint_run,
        "wrap_run": step.run_id,
    }
    description = (
        f"{origin.name} in MLflow's transformers flavor (PyTorch, {facts.dtype}), "
        f"{facts.parameters / 1e6:,.1f}M parameters, context {facts.context_length:,}, "
        f"licence {manifest.licence}. Task {task}."
    )
    stay_offline()  # or MLflow asks the hub for a card and a licence; the manifest has them
    import mlflow
    import torch
    from transformers import logging as chatter

    chatter.set_verbosity_error()
    with step.console.phase("logging the model"), _folder_named(folder, manifest, step.scratch) as name:
        info = mlflow.transformers.log_model(
            name,
            name=model_name(origin.name, "transformers"),
            task=task,
            torch_dtype=getattr(torch, facts.dtype),  # or it is loaded in float32, in twice the memory
            pip_requirements=[f"{package}=={_public_version(package)}" for package in _REQUIREMENTS],
            input_example=INPUT_EXAMPLES[task],
            metadata={**tags, "variant": f"transformers-{facts.dtype}", "licence": manifest.licence},
            model_card=_model_card(folder, description),
            # The pipeline samples unless told not to; a greedy answer is the one that can be compared and repeated. The
            # end's IDs are the checkpoint's own: MLflow lets a caller change what is named here, and nothing else.
            model_config={"max_new_tokens": MAX_TOKENS, "do_sample": False, **_ends(folder)},
        )
    place = publish(step.client, step.run_id, info, registered_model, tags, description)
    step.summarise(f"transformers, {facts.dtype}, {size_text(size)}: {place}", description)


@contextlib.contextmanager
def _folder_named(folder: Path, manifest: Manifest, scratch: Path):
    """Links to the checkpoint's files under the model's own name, relative to the working directory.

    The flavor copies the whole folder, records the path that it is given, and answers with it as `model`: so it is
    given `owner/name`, with the files of the manifest in it and no path of this machine.
    """
    name = manifest.origin.name
    root = Path(tempfile.mkdtemp(dir=scratch))
    (root / name).mkdir(parents=True)
    for file in manifest.files:
        (root / name / file.path).symlink_to((folder / file.path).resolve())
    before = os.getcwd()
    os.chdir(root)
    try:
        yield name
    finally:
        os.chdir(before)


def _ends(folder: Path) -> dict[str, Any]:
    """The IDs of the tokens that end an answer, as generate takes them."""
    for name in ("generation_config.json", "config.json"):
        if (folder / name).is_file():
            ends = json.loads((folder / name).read_text(encoding="utf-8")).get("eos_token_id")
            if ends is not None:
                return {"eos_token_id": ends}
    return {}


def _model_card(folder: Path, description: str):
    from huggingface_hub import ModelCard

    card = folder / "README.md"
    return ModelCard(card.read_text(encoding="utf-8") if card.is_file() else description, ignore_metadata_errors=True)


def _public_version(package: str) -> str:
    """The version as a package index knows it: without a local part such as +cpu."""
    return importlib.metadata.version(package).partition("+")[0]


if __name__ == "__main__":
    run_entry_point("wrap_transformer", wrap_transformer, check, with_full_name)
