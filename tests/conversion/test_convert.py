"""Both exporters, run by the runtime that will serve them; and what the check refuses."""

import json
import shutil

import onnx
import pytest

from steps.checkpoint.manifest import build_manifest
from steps.common.errors import StepError
from steps.conversion.convert import convert
from steps.conversion.logits_check import compare_first_tokens
from steps.conversion.options import estimated_size, parse_choice, parse_options
from tests.checkpoints.tiny import ORIGIN
from tests.conftest import TINY

VARIANTS = ["genai int4", "genai int8", "genai fp32", "optimum fp32"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_first_tokens_are_the_checkpoints(converted, variant):
    result = compare_first_tokens(TINY, converted[variant], variant.split()[1])
    assert result.equal == result.tokens > 8


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_estimated_size_covers_the_real_one(converted, variant):
    real = sum(file.stat().st_size for file in converted[variant].iterdir())
    choice = parse_choice(*variant.split(), "", "cpu")
    estimate = estimated_size(choice, build_manifest(TINY, ORIGIN).architecture)
    assert real <= estimate <= 2 * real + (2 << 20)


def test_block_size_reaches_the_graph(tmp_path):
    convert(TINY, tmp_path / "onnx", parse_choice("genai", "int4", "block_size=128,is_symmetric=false", "cpu"))
    graph = onnx.load(tmp_path / "onnx" / "model.onnx", load_external_data=False).graph
    quantised = [node for node in graph.node if node.op_type == "MatMulNBits"]
    sizes = {attribute.i for node in quantised for attribute in node.attribute if attribute.name == "block_size"}
    assert sizes == {128}
    assert all(len(node.input) > 3 and node.input[3] for node in quantised), "zero points make it asymmetric"


def test_a_spoilt_graph_is_refused_before_anything_is_logged(converted, tmp_path):
    folder = shutil.copytree(converted["genai fp32"], tmp_path / "spoilt")
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    # What the builder did to a model whose MLP was as wide as its vocabulary: the head read a layer in the middle.
    head = next(node for node in model.graph.node if node.name == "/lm_head/MatMul")
    head.input[0] = "/model/layers.1/post_attention_layernorm/output_0"
    onnx.save(model, folder / "model.onnx")
    with pytest.raises(StepError, match="does not continue"):
        compare_first_tokens(TINY, folder, "fp32")


def test_a_changed_template_is_refused(converted, tmp_path):
    folder = shutil.copytree(converted["genai fp32"], tmp_path / "spoilt")
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text().replace("<|user|>", "<|system|>"))
    with pytest.raises(StepError, match="tokenizer makes other tokens"):
        compare_first_tokens(TINY, folder, "fp32")


def test_optimums_graph_says_that_it_takes_positions(converted):
    config = json.loads((converted["optimum fp32"] / "genai_config.json").read_text())
    assert config["model"]["decoder"]["inputs"]["position_ids"] == "position_ids"
    assert config["search"]["past_present_share_buffer"] is False


@pytest.mark.parametrize(
    ("exporter", "precision", "device", "options", "message"),
    [
        ("genie", "int4", "cpu", "", "did you mean 'genai'"),
        ("genai", "int5", "cpu", "", "valid there: int4, int8, fp32"),
        ("genai", "fp16", "cpu", "", "does not make for device cpu"),
        ("optimum", "int4", "cpu", "", "valid there: fp32"),
        ("genai", "int4", "tpu", "", "device is 'tpu'"),
        ("genai", "int4", "cpu", "blok_size=32", "did you mean 'block_size'"),
        ("genai", "int4", "cpu", "block_size=33", "block_size is '33'"),
        ("genai", "int4", "cpu", "block_size", "expected name=value pairs"),
        ("genai", "int4", "cpu", "hf_remote=true", "no option 'hf_remote'"),
        ("genai", "int4", "cpu", "block_size=32,block_size=64", "block_size twice"),
        ("genai", "int4", "cpu", "matmul_mixed_precision=head:int8", "expected last_matmul:int8"),
        ("genai", "int4", "cpu", "nodes_to_exclude=lm_head", "expected names of nodes"),
        ("genai", "int8", "cpu", "algo_config=k_quant", "makes matrices of 4 bits"),
        ("optimum", "fp32", "cpu", "opset=9", "expected a number from 13 to 21"),
    ],
)
def test_what_can_not_be_made_is_refused(exporter, precision, device, options, message):
    with pytest.raises(StepError, match=message):
        parse_choice(exporter, precision, options, device)


def test_what_the_builder_itself_lacks_is_said_in_its_own_words(tmp_path):
    with pytest.raises(StepError, match="can't convert Phi3ForCausalLM so: int8 precision does not support the QDQ"):
        convert(TINY, tmp_path / "onnx", parse_choice("genai", "int8", "use_qdq=true", "cpu"))


def test_an_options_value_may_hold_commas():
    text = "block_size=32,matmul_mixed_precision=last_matmul:int8,mixed_layers:int8,is_symmetric=true"
    assert parse_options("genai", text) == {
        "block_size": "32",
        "matmul_mixed_precision": "last_matmul:int8,mixed_layers:int8",
        "is_symmetric": "true",
    }
