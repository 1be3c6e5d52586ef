"""wrap_custom: a convert_onnx run -> a logged model over ONNX Runtime, its URI as tag `model_uri`.

MLflow's transformers flavor refuses ONNX models. This wrapper takes the models of both exporters.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from steps import chat
from steps.chat.api.signature import CHAT, COMPLETIONS, signature
from steps.chat.runtime.chat_template import chat_problem
from steps.chat.settings import Settings
from steps.common.disk import need_space, size_text
from steps.common.errors import StepError, one_of
from steps.common.packages import installed_versions
from steps.conversion.record import CONVERSION, Conversion
from steps.project.tasks import INPUT_EXAMPLES, MAX_TOKENS, TASKS
from steps.registry.names import ensure_registered_model, model_name, with_full_name
from steps.registry.versions import publish
from steps.runs.artifacts import check_run_id, download, finished_run, local_store, read_document
from steps.runs.entry_point import run_entry_point
from steps.runs.step import Step
from steps.wrapping.configuration import ask_example, model_config, reasoning_setting

# What the logged model imports. On a GPU the package of ONNX Runtime is another one.
_REQUIREMENTS = ("mlflow", "onnxruntime", "onnxruntime-gpu", "tokenizers", "jinja2", "llguidance", "numpy")


def check(params: dict[str, str]) -> None:
    """Raise StepError for parameters that cannot be right, before any work."""
    check_run_id("onnx_run", params["onnx_run"])
    one_of("task", params["task"], TASKS)
    with_full_name(params)


def wrap_custom(step: Step, onnx_run: str, task: str, registered_model: str) -> None:
    """Log the ONNX folder with the package `steps/chat` as a models-from-code Python model."""
    finished_run(step.client, "onnx_run", onnx_run)
    ensure_registered_model(step.client, step.run_id, registered_model)
    conversion = read_document(step.client, onnx_run, CONVERSION, Conversion)
    size = conversion.size_bytes
    store = local_store(step.run.info.artifact_uri, size)
    need_space("logging the model", [(Path(tempfile.gettempdir()), size), *store])
    with step.console.phase("fetching the ONNX model"):
        folder = download(onnx_run, "onnx")
    _check_template(folder, task)
    tags = conversion.tags | {"onnx_run": onnx_run, "wrap_run": step.run_id}
    import mlflow

    with step.console.phase("logging the model"):
        info = mlflow.pyfunc.log_model(
            name=model_name(conversion.checkpoint.name, conversion.variant),
            metadata={**tags, "variant": conversion.variant, "task": task},
            **model_arguments(folder, conversion, task, step.scratch),
        )
    with step.console.phase("asking the logged model a question"):
        ask_example(info.model_uri, task)
    description = _description(conversion, task)
    published = publish(step.client, step.run_id, info, registered_model, tags, description)
    step.summarise(f"onnx-{conversion.exporter}, {conversion.precision}, {size_text(size)}: {published}", description)


def _check_template(folder: Path, task: str) -> None:
    """Raise StepError if the task needs a chat template, and the ONNX folder has none or a damaged one."""
    if task == CHAT and (problem := chat_problem(folder)):
        raise StepError(f"task is {task}, but {problem}: use task={COMPLETIONS}, or mend the checkpoint's template")


def _description(conversion: Conversion, task: str) -> str:
    """Return the text of the model's page."""
    options = f" ({conversion.options_text})" if conversion.options else ""
    return (
        f"{conversion.checkpoint.name} as ONNX, {conversion.precision} by {conversion.exporter}{options}, in a custom "
        f"Python model over ONNX Runtime; {size_text(conversion.size_bytes)}, neither torch nor transformers "
        f"needed. Task {task}."
    )


def model_arguments(folder: Path, conversion: Conversion, task: str, scratch: Path) -> dict[str, Any]:
    """Return the arguments of mlflow.pyfunc.log_model, or save_model, for a converted folder.

    Args:
        scratch: a folder that must exist until MLflow has made the model.
    """
    checksums = scratch / "checksums.json"
    checksums.write_text(json.dumps([entry.model_dump() for entry in conversion.files], indent=1), encoding="utf-8")
    package = Path(chat.__file__).parent
    if str(package.parent) not in sys.path:
        sys.path.insert(0, str(package.parent))  # MLflow runs model.py once here, where `chat` is steps/chat
    name = conversion.checkpoint.name
    settings = Settings(
        provider=conversion.device,
        longrope_switch=conversion.longrope_switch,
        reasoning=reasoning_setting(name),
    )
    return {
        "python_model": str(package / "model.py"),
        "code_paths": [str(package)],
        "artifacts": {"onnx": str(folder), "checksums": str(checksums)},
        "signature": signature(task, MAX_TOKENS),
        "input_example": INPUT_EXAMPLES[task],
        "pip_requirements": [f"{name}=={version}" for name, version in installed_versions(_REQUIREMENTS).items()],
        "model_config": model_config(name, task, settings),
    }


if __name__ == "__main__":
    run_entry_point("wrap_custom", wrap_custom, check, with_full_name)
