"""Run tasks of lm-evaluation-harness on a logged model."""

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steps.common.errors import StepError
from steps.registry.versions import pinned_model

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager

# The versions that the tests run with. A later datasets needs a huggingface-hub that transformers 4 refuses.
INSTALL = 'pip install lm-eval==0.4.13 "datasets<5.1"'


@dataclass(frozen=True)
class TaskOptions:
    """How tasks are run."""

    include_path: str = ""  # a folder with tasks beside lm-eval's own
    limit: float | None = None  # documents of each task at most; below 1, a share of them
    num_fewshot: int | None = None  # examples in each prompt; None: as the task has it
    apply_chat_template: bool = False  # whether prompts are conversations: recommended for likelihoods of a chat model
    batch_size: int = 1  # requests for text at a time


def run_tasks(model: str, tasks: list[str], options: TaskOptions) -> dict[str, Any]:
    """Evaluate a model on tasks. Return lm-eval's own results, without the samples.

    Args:
        model: the URI of a logged model.
        tasks: names of tasks, groups or tags, or patterns of names.

    Raises:
        StepError: lm-eval is not installed; a task, the folder or the model does not exist; or as MlflowLM.
    """
    try:
        from lm_eval import simple_evaluate
        from lm_eval.tasks import TaskManager

        from steps.evaluation.lm_eval.adapter import MlflowLM
    except ModuleNotFoundError as error:
        raise StepError(f"{error.name} is not installed, and lm-evaluation-harness needs it: {INSTALL}") from None

    if options.include_path and not Path(options.include_path).is_dir():
        raise StepError(f"include_path is {options.include_path!r}: no such folder")
    if options.limit is not None and options.limit <= 0:
        raise StepError(f"limit is {options.limit:g}; expected a number of documents, or a share of them below 1")
    model_uri = pinned_model(model, "model")
    opened = MlflowLM(model_uri, batch_size=options.batch_size)  # before lm-eval lists its tasks, which takes 6 seconds
    manager = TaskManager(include_path=options.include_path or None)
    _check_tasks(tasks, manager)
    return simple_evaluate(
        model=opened,
        model_args={"model_uri": model_uri},  # for the results
        tasks=manager.match_tasks(tasks),
        task_manager=manager,
        limit=options.limit,
        num_fewshot=options.num_fewshot,
        apply_chat_template=options.apply_chat_template,
        batch_size=options.batch_size,
        log_samples=False,
    )


def _check_tasks(tasks: list[str], manager: "TaskManager") -> None:
    """Raise StepError if a task does not exist."""
    for task in tasks:
        if not manager.match_tasks([task]):
            close = difflib.get_close_matches(task, manager.all_tasks, n=1)
            hint = (
                f"did you mean {close[0]!r}?"
                if close
                else "`lm-eval ls tasks` lists the tasks of lm-eval; --include_path adds your own"
            )
            raise StepError(f"tasks has {task!r}, which is not a task, group or tag: {hint}")
