"""Tasks of lm-evaluation-harness on a logged model, of either wrapper.

Usage: python -m steps.evaluation.lm_eval.command --model models:/tiny-phi3@champion --tasks mytask --include_path DIR

In Python, `register()` makes it lm-eval's model "mlflow", whose argument is `model_uri`. lm-eval is not in conda.yaml.
"""

import argparse
import difflib
import functools
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from steps.common.errors import StepError
from steps.evaluation.lm_eval.adapter import LoggedModelTasks

# The version that the tests ran with; later ones of datasets bring a huggingface-hub that transformers 4 refuses.
INSTALL = 'pip install lm-eval==0.4.13 "datasets<5.1"'


@functools.cache
def register() -> type:
    """Make it lm-eval's model "mlflow"; returns the class.

    Raises:
        StepError: lm-eval is missing, or something that it needs.
    """
    try:
        from lm_eval import evaluator  # noqa: F401 - brings what else it needs
        from lm_eval.api.model import TemplateLM
        from lm_eval.api.registry import register_model
    except ModuleNotFoundError as error:
        raise StepError(
            f"{error.name} is missing: lm-evaluation-harness is not in this project's environment; {INSTALL}"
        ) from None

    @register_model("mlflow")
    class MlflowLM(LoggedModelTasks, TemplateLM):
        """An MLflow model of either wrapper."""

    return MlflowLM


def run_tasks(
    model: str,
    tasks: list[str],
    include_path: str = "",
    limit: float | None = None,
    num_fewshot: int | None = None,
    apply_chat_template: bool = False,
    batch_size: int = 1,
) -> dict[str, Any]:
    """Evaluate a model on tasks; returns lm-eval's own results, without the samples.

    Args:
        model: its URI.
        tasks: names of tasks, groups or tags, or patterns of them.
        include_path: a folder with tasks beside lm-eval's own.
        limit: so many documents of each task at most; below 1, that share of them.
        apply_chat_template: whether prompts are conversations, which likelihoods of a chat model should have; texts
            are always asked for in one.

    Raises:
        StepError: lm-eval is missing; no such task, folder or model; or as LoggedModelTasks.
    """
    model_class = register()
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    from steps.registry.versions import pinned_model

    if include_path and not Path(include_path).is_dir():
        raise StepError(f"include_path is {include_path!r}: no such folder")
    if limit is not None and limit <= 0:
        raise StepError(f"limit is {limit:g}; expected a number of documents, or a share of them below 1")
    arguments = {"model_uri": pinned_model(model, "model")}
    loaded = model_class(
        **arguments, batch_size=batch_size
    )  # before the six seconds that listing lm-eval's tasks takes
    manager = TaskManager(include_path=include_path or None)
    for task in tasks:
        if not manager.match_tasks([task]):
            close = difflib.get_close_matches(task, manager.all_tasks, n=1)
            hint = (
                f"did you mean {close[0]!r}?" if close else "lm-eval ls tasks lists its own; --include_path adds yours"
            )
            raise StepError(f"tasks has {task!r}, which is no task, group or tag: {hint}")
    return simple_evaluate(
        model=loaded,
        model_args=arguments,  # for the results
        tasks=manager.match_tasks(tasks),
        task_manager=manager,
        limit=limit,
        num_fewshot=num_fewshot,
        apply_chat_template=apply_chat_template,
        batch_size=batch_size,
        log_samples=False,
    )


def main(arguments: list[str] | None = None) -> None:
    """Print lm-eval's tables, and write its results where asked."""
    parser = argparse.ArgumentParser("harness", description=__doc__.partition("\n")[0])
    parser.add_argument("--model", required=True, help="URI of a logged model, such as models:/tiny-phi3@champion")
    parser.add_argument(
        "--tasks", required=True, type=lambda text: text.split(","), help="names or patterns, with commas between them"
    )
    parser.add_argument("--include_path", default="", help="a folder with tasks of your own")
    parser.add_argument("--limit", type=float, help="documents of each task, or a share of them below 1")
    parser.add_argument("--num_fewshot", type=int, help="examples in each prompt")
    parser.add_argument("--apply_chat_template", action="store_true", help="prompts are conversations")
    parser.add_argument("--batch_size", type=int, default=1, help="requests for text at a time")
    parser.add_argument("--output", type=Path, help="a JSON file for the results")
    given = vars(parser.parse_args(arguments))
    output = given.pop("output")
    if not sys.stderr.isatty():
        os.environ |= {"TQDM_DISABLE": "1", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
    try:
        if output and not output.resolve().parent.is_dir():
            raise StepError(f"output is '{output}': no such folder")
        with tempfile.TemporaryDirectory(prefix="phi-mlflow-") as scratch:
            tempfile.tempdir = scratch  # a model from a remote store is downloaded there
            results = run_tasks(**given)
    except StepError as error:
        sys.exit(f"harness: {error}")
    finally:
        tempfile.tempdir = None
    from lm_eval.utils import handle_non_serializable, make_table

    if output:
        text = json.dumps(results, indent=1, default=handle_non_serializable, ensure_ascii=False)
        output.write_text(text + "\n", encoding="utf-8")
    print(make_table(results))
    if results.get("groups"):
        print(make_table(results, "groups"))


if __name__ == "__main__":
    main()
