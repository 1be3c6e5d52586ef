"""Run steps of the project, and read what their runs hold."""

from pathlib import Path

import mlflow
import torch
from mlflow.entities import Run
from safetensors.torch import load_file

from steps.checkpoint.manifest import MANIFEST, AdapterManifest, Manifest
from tests.checkout import Project


def run_step(local: Project, entry_point: str, env: dict[str, str] | None = None, **params: str) -> Run:
    """Run a step that must succeed, and return its run."""
    result = local.run_module(entry_point, env, **params)
    assert result.code == 0, result.err
    return local.latest(entry_point)


def adapter_manifest(fetched: Run) -> AdapterManifest:
    """Return the adapter's part of the manifest of a fetch_model run."""
    text = mlflow.artifacts.load_text(f"{fetched.info.artifact_uri}/{MANIFEST}")
    manifest = Manifest.parse(text, MANIFEST)
    assert manifest.adapter
    return manifest.adapter


def stored_weights(wrapped: Run) -> dict[str, torch.Tensor]:
    """Return the tensors of the model that a wrap_transformer run logged."""
    folder = Path(mlflow.artifacts.download_artifacts(wrapped.data.tags["model_uri"]))
    (weights,) = folder.rglob("*.safetensors")
    return load_file(weights)
