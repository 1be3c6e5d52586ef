"""Save a checkpoint as one MLflow model of two flavors: MLflow's transformers flavor, and the package steps/chat.

    MLmodel                flavors: transformers, python_function
    model/                 the checkpoint       <- mlflow.transformers.load_model
    components/tokenizer/  its tokenizer        <- mlflow.transformers.load_model
    model.py               chat/model.py        <- mlflow.pyfunc.load_model: a model from code
    code/chat/             steps/chat
    checksums.json         of model/ and components/

The flavor's own python_function checks few requests, answers in another form, and asks a hub for the tokenizer when a
request has `stop`. So its entry in MLmodel is replaced by that of model.py.

The other way would be a pyfunc model with the flavor's folder among its artifacts. That folder would have an MLmodel of
its own, which no URI of the registry names, so `mlflow.transformers.load_model` could not load the model by its URI.
Here every tool finds the entry that it reads. Downloads, registered copies, `mlflow models serve`, `mlflow models
build-docker` and spark_udf take the whole folder, and read python_function.
"""

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steps import chat
from steps.chat.api.signature import signature
from steps.common.hashing import describe_files

if TYPE_CHECKING:
    from mlflow.models import Model

_WEIGHTS, _TOKENIZER = "model", "components/tokenizer"  # where the flavor puts them
_PACKAGE = Path(chat.__file__).parent


def save_model(path: str, mlflow_model: "Model", model_config: dict[str, Any], **flavor_arguments: Any) -> None:
    """Save a model in a folder. `mlflow.models.Model.log` calls this for its argument `flavor`.

    Args:
        path: the folder to be made.
        mlflow_model: the content of MLmodel so far.
        model_config: of python_function; see chat.service.Service and chat.settings.Settings, and the key `task`.
        flavor_arguments: of mlflow.transformers.save_model.
    """
    import mlflow

    flavor_arguments.pop("validate_serving_input", None)  # for Model.log, which passes everything on
    mlflow.transformers.save_model(
        path=path, mlflow_model=mlflow_model, code_paths=[str(_PACKAGE)], task=model_config["task"], **flavor_arguments
    )
    folder = Path(path)
    _write_checksums(folder)
    shutil.copy(_PACKAGE / "model.py", folder / "model.py")
    mlflow.pyfunc.add_to_model(
        mlflow_model,
        loader_module="mlflow.pyfunc.loaders.code_model",
        code="code",
        conda_env="conda.yaml",
        python_env="python_env.yaml",
        model_config=model_config,
        model_code_path="model.py",
        streamable=True,
        artifacts={
            "transformers": {"path": _WEIGHTS, "uri": _WEIGHTS},
            "tokenizer": {"path": _TOKENIZER, "uri": _TOKENIZER},
            "checksums": {"path": "checksums.json", "uri": "checksums.json"},
        },
    )
    mlflow_model.signature = signature(model_config["task"], model_config["max_tokens"])
    mlflow_model.save(str(folder / "MLmodel"))


@contextlib.contextmanager
def folder_named_as_model(checkpoint: Path, name: str, scratch: Path) -> Iterator[str]:
    """Yield a relative folder `owner/name` with links to a checkpoint's files; change the working directory to match.

    The flavor copies the whole folder, and records the folder's path. An absolute path would record a path of this
    machine, so there is no way around the working directory, which is global to the process. The step does nothing else
    meanwhile.
    """
    root = Path(tempfile.mkdtemp(dir=scratch))
    (root / name).mkdir(parents=True)
    for file in checkpoint.iterdir():
        (root / name / file.name).symlink_to(file.resolve())
    with contextlib.chdir(root):
        yield name


def _write_checksums(folder: Path) -> None:
    files = [path for part in (_WEIGHTS, "components") for path in (folder / part).rglob("*") if path.is_file()]
    entries = describe_files(folder, sorted(path.relative_to(folder).as_posix() for path in files))
    text = json.dumps([entry.model_dump() for entry in entries], indent=1)
    (folder / "checksums.json").write_text(text, encoding="utf-8")
