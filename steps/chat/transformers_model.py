"""Load a model that has MLflow's transformers flavor, so that it answers as a converted model does."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import mlflow

from .runtime.torch_session import TorchSession
from .service import Service
from .settings import Settings


def load(artifacts: Mapping[str, Path], config: Mapping[str, Any]) -> Service:
    """Return the service of a logged model. Its weights are what `mlflow.transformers.load_model` makes of them.

    Args:
        artifacts: `transformers`, the folder with the weights in the logged model; `tokenizer`, the folder with the
            tokenizer as transformers has saved it; `checksums`.
        config: the model config, as Service describes it.
    """
    root = artifacts["transformers"].parent
    open_session = partial(_open_session, root)
    return Service(artifacts["tokenizer"], artifacts["checksums"], config, open_session, root)


def _open_session(root: Path, settings: Settings, rows: int) -> TorchSession:
    components = mlflow.transformers.load_model(str(root), return_type="components")
    return TorchSession(components["model"], settings.threads, settings.provider, rows)
