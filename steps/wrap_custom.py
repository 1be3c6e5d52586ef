"""wrap_custom: a convert_onnx run -> a logged model over ONNX Runtime GenAI, its URI as tag `model_uri`.

MLflow's transformers flavor refuses ONNX models, optimum's included; this wrapper takes either exporter's.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from steps import chat
from steps.chat.api.signature import signature
from steps.chat.settings import Settings
from steps.common.disk import need_space, size_text
from steps.common.errors import StepError, one_of
from steps.conversion.convert import RUNTIMES, installed_versions
from steps.project.tasks import INPUT_EXAMPLES, MAX_TOKENS, TASKS
from steps.registry.names import ensure_registered_model, model_name, with_full_name
from steps.registry.versions import publish
from steps.runs.artifacts import check_run_id, download, finished_run, local_store, read_json
from steps.runs.step import Step, run_entry_point

_REQUIREMENTS = ("mlflow", *RUNTIMES, "llguidance")


def check(params: dict[str, str]) -> None:
    """Refuse parameters that cannot be right, before any work."""
    check_run_id("onnx_run", params["onnx_run"])
    one_of("task", params["task"], TASKS)
    with_full_name(params)


def wrap_custom(step: Step, onnx_run: str, task: str, registered_model: str) -> None:
    """Log the ONNX folder with the package `steps/chat` as a models-from-code Python model."""
    ensure_registered_model(step, registered_model)
    run = finished_run(step.client, "onnx_run", onnx_run)
    conversion = read_json(step, run.info.run_id, "conversion.json")
    try:
        checkpoint, size = conversion["checkpoint"], conversion["size_bytes"]
        exporter, precision = conversion["exporter"], conversion["precision"]
        _ = [conversion[key] for key in ("device", "files", "longrope_switch", "options")]  # model_arguments' own
    except (KeyError, TypeError):
        raise StepError(
            f"conversion.json of run {onnx_run} is damaged, or of an earlier version of this project: run convert_onnx "
            "again"
        ) from None
    store = local_store(step.run.info.artifact_uri, size)
    need_space("logging the model", [(Path(tempfile.gettempdir()), size), *store])
    with step.console.phase("fetching the ONNX model"):
        folder = download(onnx_run, "onnx")
    options = ", ".join(f"{key}={value}" for key, value in conversion["options"].items())
    parts = (value if ":" in value else f"{key}-{value}" for key, value in conversion["options"].items())
    variant = "-".join(["onnx", exporter, precision, *parts])
    tags = {
        "wrapper": f"onnx-{exporter}",
        "precision": precision,
        "options": options or "none",
        "checkpoint": checkpoint["name"],
        "checkpoint_commit": checkpoint["commit"] or "none",
        "checkpoint_run": checkpoint["run"],
        "onnx_run": onnx_run,
        "wrap_run": step.run_id,
    }
    description = (
        f"{checkpoint['name']} as ONNX, {precision} by {exporter}{f' ({options})' if options else ''}, in a custom "
        f"Python model over ONNX Runtime GenAI; {size_text(size)}, neither torch nor transformers needed. "
        f"Task {task}."
    )
    import mlflow

    sys.dont_write_bytecode = True  # loading the model below would leave its bytecode in the artifact store
    with step.console.phase("logging the model"):
        info = mlflow.pyfunc.log_model(
            name=model_name(checkpoint["name"], variant),
            metadata={**tags, "variant": variant, "task": task},
            **model_arguments(folder, conversion, task, step.scratch),
        )
    with step.console.phase("asking the logged model a question"):  # MLflow only warns where its example fails
        example = INPUT_EXAMPLES[task]
        asked, params = example if isinstance(example, tuple) else (example, None)
        mlflow.pyfunc.load_model(info.model_uri).predict(asked, params=params)
    place = publish(step, info, registered_model, tags, description)
    step.summarise(f"onnx-{exporter}, {precision}, {size_text(size)}: {place}", description)


def model_arguments(folder: Path, conversion: dict[str, Any], task: str, scratch: Path) -> dict[str, Any]:
    """What mlflow.pyfunc.log_model and save_model need to make a model of a converted folder.

    Args:
        conversion: the folder's conversion.json.
        scratch: a folder that exists until the model is made.
    """
    checksums = scratch / "checksums.json"
    checksums.write_text(json.dumps(conversion["files"], indent=1), encoding="utf-8")
    package = Path(chat.__file__).parent
    if str(package.parent) not in sys.path:
        sys.path.insert(0, str(package.parent))  # MLflow runs model.py once here, where `chat` is steps/chat
    settings = Settings(provider=conversion["device"], longrope_switch=conversion["longrope_switch"])
    return {
        "python_model": str(package / "model.py"),
        "code_paths": [str(package)],
        "artifacts": {"onnx": str(folder), "checksums": str(checksums)},
        "signature": signature(task, MAX_TOKENS),
        "input_example": INPUT_EXAMPLES[task],
        "pip_requirements": [f"{name}=={version}" for name, version in installed_versions(_REQUIREMENTS).items()],
        "model_config": {
            "model": conversion["checkpoint"]["name"],
            "task": task,
            "max_tokens": MAX_TOKENS,
            "trace": False,
            **vars(settings),
        },
    }


if __name__ == "__main__":
    run_entry_point("wrap_custom", wrap_custom, check, with_full_name)
