"""Both exporters, in the runtime that will serve their models; and what the check of the logits refuses."""

import json
import shutil

import onnx
import pytest

from steps.checkpoint.describe import build_manifest
from steps.common.errors import StepError
from steps.conversion.convert import convert
from steps.conversion.logits_check import compare_first_tokens
from steps.conversion.options import estimated_size, parse_choice
from tests.checkout import TINY
from tests.checkpoints.tiny import ORIGIN

pytestmark = pytest.mark.model

VARIANTS = ["genai int4", "genai int8", "genai fp32", "optimum fp32"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_first_tokens_equal_the_checkpoints(converted, variant):
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
    # As the builder once did to a model whose MLP was as wide as its vocabulary: the head reads a layer in the middle.
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


def test_the_config_of_optimums_graph_says_that_it_takes_position_ids(converted):
    config = json.loads((converted["optimum fp32"] / "genai_config.json").read_text())
    assert config["model"]["decoder"]["inputs"]["position_ids"] == "position_ids"
    assert config["search"]["past_present_share_buffer"] is False


def test_options_that_the_builder_cannot_combine_are_refused_in_its_own_words(tmp_path):
    with pytest.raises(
        StepError, match="cannot convert Phi3ForCausalLM with these options: int8 precision does not support the QDQ"
    ):
        convert(TINY, tmp_path / "onnx", parse_choice("genai", "int8", "use_qdq=true", "cpu"))
