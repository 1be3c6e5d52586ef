"""Run tasks of lm-evaluation-harness on a logged model of either wrapper.

Usage: python -m steps.evaluation.lm_eval --model models:/tiny-phi3@champion --tasks mytask --include_path DIR

It prints lm-eval's own tables. lm-eval is not in conda.yaml; an error says how to install it.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from steps.common.errors import StepError
from steps.evaluation.lm_eval.tasks import TaskOptions, run_tasks


def main(arguments: list[str] | None = None) -> None:
    """Print the results, and write them to a file if `--output` names one."""
    options = vars(_parser().parse_args(arguments))
    model, tasks, output = (options.pop(name) for name in ("model", "tasks", "output"))
    if not sys.stderr.isatty():
        os.environ |= {"TQDM_DISABLE": "1", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
    try:
        if output and not output.resolve().parent.is_dir():
            raise StepError(f"output is '{output}': no such folder")
        results = _run_in_scratch(model, tasks, TaskOptions(**options))
    except StepError as error:
        sys.exit(f"lm_eval: {error}")
    _report(results, output)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("lm_eval", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", required=True, help="URI of a logged model, such as models:/tiny-phi3@champion")
    parser.add_argument(
        "--tasks", required=True, type=lambda text: text.split(","), help="names or patterns, separated by commas"
    )
    parser.add_argument("--include_path", default="", help="a folder with tasks of your own")
    parser.add_argument("--limit", type=float, help="documents of each task, or a share of them below 1")
    parser.add_argument("--num_fewshot", type=int, help="examples in each prompt")
    parser.add_argument("--apply_chat_template", action="store_true", help="make each prompt a conversation")
    parser.add_argument("--batch_size", type=int, default=1, help="requests for text at a time")
    parser.add_argument("--output", type=Path, help="a JSON file to write the results to")
    return parser


def _run_in_scratch(model: str, tasks: list[str], options: TaskOptions) -> dict[str, Any]:
    """Run tasks; a model from a remote store is downloaded to a folder that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="phi-mlflow-") as scratch:
        tempfile.tempdir = scratch  # MLflow takes no other hint for its downloads
        try:
            return run_tasks(model, tasks, options)
        finally:
            tempfile.tempdir = None


def _report(results: dict[str, Any], output: Path | None) -> None:
    from lm_eval.utils import handle_non_serializable, make_table

    if output:
        text = json.dumps(results, indent=1, default=handle_non_serializable, ensure_ascii=False)
        output.write_text(text + "\n", encoding="utf-8")
    print(make_table(results))
    if results.get("groups"):
        print(make_table(results, "groups"))


if __name__ == "__main__":
    main()
