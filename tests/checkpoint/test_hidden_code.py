"""Configurations that can make transformers run code are refused by file and field, and nothing of them is run."""

import json
import subprocess
import sys
from typing import Any

import pytest

from steps.checkpoint.describe import build_manifest
from steps.checkpoint.hidden_code import refuse_code
from steps.common.errors import StepError
from tests.checkout import ROOT, TINY, assert_refused
from tests.checkpoints.tiny import ORIGIN, edit_json
from tests.fakes.hub import Repo

REPOSITORY = "evil/kernels"
CONFIG, GENERATION, TOKENIZER = "config.json", "generation_config.json", "tokenizer_config.json"
SPECIAL_TOKENS = "special_tokens_map.json"
# File, its planted fields, the field that the line names.
PLANTED: list[tuple[str, dict[str, Any], str]] = [
    (CONFIG, {"_attn_implementation_internal": REPOSITORY}, "_attn_implementation_internal"),
    (CONFIG, {"_attn_implementation_internal": f"paged|{REPOSITORY}@main:fn"}, "_attn_implementation_internal"),
    (CONFIG, {"_attn_implementation": REPOSITORY}, "_attn_implementation"),
    (CONFIG, {"attn_implementation": REPOSITORY}, "attn_implementation"),
    (CONFIG, {"attn_implementation": {"": "sdpa", "text_config": REPOSITORY}}, "attn_implementation"),
    (
        CONFIG,
        {"text_config": {"_attn_implementation_internal": REPOSITORY}},
        "text_config._attn_implementation_internal",
    ),
    (CONFIG, {"a": [{"b": {"attn_implementation": REPOSITORY}}]}, "a[0].b.attn_implementation"),
    (CONFIG, {"_experts_implementation": REPOSITORY}, "_experts_implementation"),
    (CONFIG, {"_experts_implementation_internal": REPOSITORY}, "_experts_implementation_internal"),
    (CONFIG, {"kernel_config": {"RMSNorm": f"{REPOSITORY}:Norm"}}, "kernel_config"),
    (CONFIG, {"use_kernels": True}, "use_kernels"),
    (CONFIG, {"custom_pipelines": {"text-generation": {"impl": "evil.Pipe"}}}, "custom_pipelines"),
    (CONFIG, {"trust_remote_code": True}, "trust_remote_code"),
    (CONFIG, {"tokenizer_class": f"{REPOSITORY}--tok.Tokenizer"}, "tokenizer_class"),
    (CONFIG, {"task_specific_params": {"custom_generate": REPOSITORY}}, "task_specific_params.custom_generate"),
    (GENERATION, {"custom_generate": REPOSITORY}, "custom_generate"),
    (GENERATION, {"attn_implementation": REPOSITORY}, "attn_implementation"),
    (GENERATION, {"watermarking_config": {"kernel_repo": REPOSITORY}}, "watermarking_config.kernel_repo"),
    (TOKENIZER, {"tokenizer_class": f"{REPOSITORY}--tok.Tokenizer"}, "tokenizer_class"),
    (TOKENIZER, {"custom_code": REPOSITORY}, "custom_code"),
    (TOKENIZER, {"processor": {"attn_implementation": REPOSITORY}}, "processor.attn_implementation"),
    (SPECIAL_TOKENS, {"custom_code": REPOSITORY}, "custom_code"),
]
IDS = [f"{file}:{field}" for file, _, field in PLANTED]


@pytest.mark.unit
@pytest.mark.parametrize(("file", "fields", "named"), PLANTED, ids=IDS)
def test_a_field_that_can_name_code_is_refused_by_file_and_field(folder, file, fields, named):
    edit_json(folder / file, **fields)
    with pytest.raises(StepError) as caught:
        build_manifest(folder, ORIGIN)
    assert str(caught.value).startswith(f"{file} sets {named} to ")
    assert "evil" in str(caught.value) or "True" in str(caught.value)


@pytest.mark.unit
@pytest.mark.parametrize(
    "fields",
    [
        {"_attn_implementation": "flash_attention_2"},
        {"attn_implementation": None, "_experts_implementation": "grouped_mm"},
        {"conv_kernel": 4, "use_kernels": False},
        {"_name_or_path": "owner/model", "auto_map": {"AutoConfig": "evil/repo--configuration.Config"}},
    ],
)
def test_fields_that_name_no_code_are_dropped_and_not_refused(folder, fields):
    edit_json(folder / CONFIG, **fields)
    assert build_manifest(folder, ORIGIN).architecture.architecture == "Phi3ForCausalLM"


@pytest.mark.unit
@pytest.mark.parametrize("file", [GENERATION, TOKENIZER])
def test_a_cache_and_a_chat_template_are_no_code(folder, file):
    edit_json(folder / file, cache_implementation="static", chat_template="{{ 'evil/repo' }}{% set module = 1 %}")
    build_manifest(folder, ORIGIN)


@pytest.mark.unit
@pytest.mark.parametrize("name", ["Trainer", "AutoModelForCausalLM", "MyOwnTokenizer", "pipeline"])
def test_a_tokenizer_class_is_one_of_transformers_tokenizers(folder, name):
    edit_json(folder / TOKENIZER, tokenizer_class=name)
    with pytest.raises(StepError, match=f"tokenizer_class {name} is not a tokenizer that transformers has natively"):
        build_manifest(folder, ORIGIN)


@pytest.mark.unit
def test_a_text_of_the_vocabulary_is_no_field(folder):
    edit_json(folder / TOKENIZER, added_tokens_decoder={"3": {"content": "kernel", "special": True}})
    build_manifest(folder, ORIGIN)


@pytest.mark.unit
def test_what_is_refused_does_not_depend_on_the_depth():
    content: Any = {"attn_implementation": REPOSITORY}
    for _ in range(50):
        content = [{"a": content}]
    with pytest.raises(StepError, match="attn_implementation"):
        refuse_code(content, CONFIG)


@pytest.mark.e2e
@pytest.mark.parametrize(("file", "fields", "named"), [PLANTED[0], PLANTED[15], PLANTED[18]])
def test_a_hub_repository_with_code_is_refused_before_its_weights_are_downloaded(local, hub, file, fields, named):
    files = {path.name: path.read_bytes() for path in TINY.iterdir()}
    files[file] = json.dumps(json.loads(files[file]) | fields).encode()
    files["kernels.py"] = b"open('it-ran', 'w').close()"
    repo = f"evil/{file.partition('.')[0]}"  # one for each file, as the hub's cache outlives a test
    hub.repos[repo] = Repo(files, {"main": "e" * 40})
    result = local.run_module("fetch_model", {"HF_ENDPOINT": hub.url}, source=repo)
    assert_refused(local, result, f"{file} sets {named}")
    assert not [path for _, path, _ in hub.requests if path.endswith((".safetensors", ".py"))]
    assert not [path for _, path, _ in hub.requests if "kernels" in path]


SCRIPT = """
import sys
from pathlib import Path
from steps.checkpoint.describe import build_manifest
from steps.common.errors import StepError
from tests.checkpoints.tiny import ORIGIN
try:
    build_manifest(Path(sys.argv[1]), ORIGIN)
except StepError as error:
    print(error)
print("transformers" in sys.modules)
"""


@pytest.mark.model
def test_nothing_is_imported_that_could_run_it(folder):
    edit_json(folder / CONFIG, _attn_implementation_internal=REPOSITORY)
    done = subprocess.run([sys.executable, "-c", SCRIPT, folder], cwd=ROOT, capture_output=True, text=True, check=True)
    line, imported = done.stdout.splitlines()
    assert line.startswith("config.json sets _attn_implementation_internal to 'evil/kernels'")
    assert imported == "False"
