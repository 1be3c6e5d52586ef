"""The shipped checkpoint in both wrappers, and as lm-eval's models. Tests that need lm-eval say so by a fixture."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import mlflow
import pytest
import yaml

from steps.evaluation.lm_eval.tasks import INSTALL
from steps.wrap_custom import model_arguments
from tests.checkout import ROOT, TINY
from tests.conversion.records import conversion_of

QUESTIONS = [json.loads(line) for line in (ROOT / "params/evalsets/tiny-qa.jsonl").read_text().splitlines()[:12]]


@pytest.fixture(scope="module")
def lm_eval(tmp_path_factory) -> Any:
    """lm-eval without a hub, and with the cache of datasets in a folder of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
            patch.setenv(name, "1")
        patch.setenv("HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("datasets")))
        reason = f"lm-eval is not installed: install tests/requirements.txt, or {INSTALL}"
        yield pytest.importorskip("lm_eval", reason=reason)


@pytest.fixture(scope="module")
def adapter(lm_eval) -> ModuleType:
    """The module that adds our model to lm-eval."""
    from steps.evaluation.lm_eval import adapter

    return adapter


def save_custom(folder: Path, target: Path, task: str = "llm/v1/chat") -> Path:
    """Save an MLflow model of a converted folder, as wrap_custom logs it."""
    mlflow.pyfunc.save_model(target, **model_arguments(folder, conversion_of(folder), task, target.parent))
    return target


@pytest.fixture(scope="session")
def folders(converted, tmp_path_factory) -> dict[str, Path]:
    """Folders of MLflow models: the custom model in float32, the transformers model in bfloat16 as it is."""
    scratch = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:  # otherwise MLflow asks the hub for a model card
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        mlflow.transformers.save_model(
            str(TINY),
            scratch / "transformers",
            task="llm/v1/chat",
            pip_requirements=["transformers"],
            model_config={"max_new_tokens": 256, "do_sample": False, "eos_token_id": [3, 6]},
        )
    return {
        "custom": save_custom(converted["genai fp32"], scratch / "custom"),
        "transformers": scratch / "transformers",
    }


@pytest.fixture(scope="module")
def models(adapter, folders) -> dict[str, Any]:
    """The same as lm-eval's models."""
    return {name: adapter.MlflowLM(str(folder), batch_size=4) for name, folder in folders.items()}


def requests(kind: str, *arguments: tuple) -> list:
    """Return lm-eval's requests of a kind."""
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, request, index) for index, request in enumerate(arguments)]


def write_tasks(folder: Path, wrong: int) -> Path:
    """Write two tasks on what the model knows; the first `wrong` expected answers are another country's."""
    rows = []
    for index, question in enumerate(QUESTIONS):
        choices = [QUESTIONS[(index + shift) % len(QUESTIONS)]["expected"] for shift in range(4)]
        label = 1 if index < wrong else 0
        text = question["messages"][0]["content"]
        rows.append({"question": text, "choices": choices, "label": label, "answer": choices[label]})
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shared = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "rows.jsonl")}},
        "test_split": "test",
        "doc_to_text": "{{question}}",
    }
    choose = {
        "task": f"choose_{wrong}_wrong",
        "output_type": "multiple_choice",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{label}}",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    say = {
        "task": f"say_{wrong}_wrong",
        "output_type": "generate_until",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 32, "do_sample": False},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }
    for task in (choose, say):
        (folder / f"{task['task']}.yaml").write_text(yaml.safe_dump(shared | task))
    return folder
