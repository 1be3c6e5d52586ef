"""What the steps after fetch_model make of checkpoints that are special, through a user's command line."""

import shutil
from pathlib import Path

import mlflow
import pandas as pd
import pytest
import yaml
from mlflow.pyfunc import PyFuncModel

from tests.checkout import TINY, Project, assert_refused
from tests.checkpoints.geometries import make_checkpoint
from tests.checkpoints.variants import make_variant
from tests.fakes.hub import Repo

pytestmark = pytest.mark.e2e

QUESTION = "What is the capital of France?"
PROMPT = f"<|user|>\n{QUESTION}<|end|>\n<|assistant|>\n"
WITHOUT_EVALUATE = "fetch_model,convert_onnx,wrap_transformer,wrap_custom"
CONVERSION = "fetch_model,convert_onnx"


def write_profile(local: Project, source: Path | str, task: str = "llm/v1/chat", options: str = "") -> str:
    """Write a profile that is named after its source. Return the name."""
    name = Path(source).name
    wrapped = {"registered_model": name, "task": task}
    profile = {
        "fetch_model": {"source": str(source)},
        "convert_onnx": {"precision": "int4", "options": options},
        "wrap_transformer": wrapped,
        "wrap_custom": wrapped,
    }
    (local.root / "params" / f"{name}.yaml").write_text(yaml.safe_dump(profile))
    return name


def models(local: Project) -> dict[str, PyFuncModel]:
    """Return the model of the latest run of each wrap step."""
    with local.in_this_process():
        return {
            step: mlflow.pyfunc.load_model(local.latest(step).data.tags["model_uri"])
            for step in ("wrap_transformer", "wrap_custom")
        }


def test_a_checkpoint_of_transformers_5_becomes_two_models_that_answer(local, saved_by_transformers5, tmp_path):
    profile = write_profile(local, shutil.copytree(saved_by_transformers5 / "tiny", tmp_path / "transformers5"))
    result = local.run_module("main", profile=profile, steps=WITHOUT_EVALUATE)
    assert result.code == 0, result.err
    for step, model in models(local).items():
        answers = model.predict({"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 16})
        answer = answers[0] if isinstance(answers, list) else answers
        assert answer["choices"][0]["message"]["content"].strip() == "Paris", step


@pytest.fixture(scope="module")
def no_template(tmp_path_factory) -> Path:
    """The shipped checkpoint without its chat template."""
    return make_variant(tmp_path_factory.mktemp("no-template") / "no-template", "no_chat_template")


def test_main_refuses_chat_without_a_template_before_the_conversion(local, no_template):
    before = len(local.runs("tags.`mlflow.project.entryPoint` = 'convert_onnx'"))
    result = local.run_module("main", profile=write_profile(local, no_template), steps=WITHOUT_EVALUATE)
    assert_refused(local, result, "task is 'llm/v1/chat'", "the checkpoint has no chat template", "llm/v1/completions")
    assert len(local.runs("tags.`mlflow.project.entryPoint` = 'convert_onnx'")) == before


def test_main_refuses_completions_with_evaluate_before_any_step(local, no_template):
    result = local.run_module("main", profile=write_profile(local, no_template, task="llm/v1/completions"))
    assert_refused(local, result, "task is 'llm/v1/completions'", "evaluate compares", "leave evaluate out")


def test_completions_work_without_a_template_and_each_wrapper_refuses_chat(local, no_template):
    profile = write_profile(local, no_template, task="llm/v1/completions")
    result = local.run_module("main", profile=profile, steps=WITHOUT_EVALUATE)
    assert result.code == 0, result.err
    question = pd.DataFrame({"prompt": [PROMPT]})
    for model in models(local).values():
        assert "Paris" in str(model.predict(question, params={"max_tokens": 16}))
    fetched, converted = (local.latest(step).info.run_id for step in ("fetch_model", "convert_onnx"))
    refused = "the checkpoint has no chat template"
    wrapped = local.run_module("wrap_transformer", checkpoint_run=fetched, registered_model="never-made")
    assert_refused(local, wrapped, "task is 'llm/v1/chat'", refused)
    wrapped = local.run_module("wrap_custom", onnx_run=converted, registered_model="never-made")
    assert_refused(local, wrapped, "llm/v1/chat", refused)
    assert local.client.search_registered_models("name = 'never-made'") == []


@pytest.mark.parametrize("name", ["phi2", "phimoe"])
def test_main_refuses_what_it_cannot_convert_before_the_weights_are_downloaded(local, hub, tmp_path, name):
    folder = make_variant(tmp_path / name, name)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    hub.repos[f"somebody/{name}"] = Repo(files, {"main": "a" * 40})
    profile = write_profile(local, f"somebody/{name}")
    result = local.run_module("main", {"HF_ENDPOINT": hub.url}, profile=profile, steps=WITHOUT_EVALUATE)
    assert_refused(local, result, "cannot be converted to ONNX", "Its only wrapper is transformers")
    assert {path.rpartition("/")[2] for _, path, _ in hub.requests if "/resolve/" in path} == {"config.json"}


def test_stale_shards_on_a_hub_are_not_requested(local, hub, tmp_path):
    folder = make_variant(tmp_path / "stale", "stale_shards")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    hub.repos["somebody/stale"] = Repo(files, {"main": "b" * 40})
    result = local.run_module("fetch_model", {"HF_ENDPOINT": hub.url}, source="somebody/stale")
    assert result.code == 0, result.err
    weights = {path.rpartition("/")[2] for _, path, _ in hub.requests if path.endswith(".safetensors")}
    assert weights == {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"}


GEOMETRIES = {
    "vocabulary-twice-the-mlp": ("phi-3-mini", dict(vocab_size=832, intermediate_size=416), ""),
    "tied-576": (
        "phi-3-mini",
        dict(hidden_size=576, num_attention_heads=9, num_key_value_heads=3, tie_word_embeddings=True),
        "block_size=128",
    ),
}


@pytest.mark.parametrize("name", GEOMETRIES)
def test_unusual_sizes_are_converted_and_pass_the_check_of_the_conversion(local, tmp_path, name):
    geometry, fields, options = GEOMETRIES[name]
    folder = make_checkpoint(tmp_path / name, geometry, TINY, **fields)
    result = local.run_module("main", profile=write_profile(local, folder, "llm/v1/chat", options), steps=CONVERSION)
    assert result.code == 0, result.err
