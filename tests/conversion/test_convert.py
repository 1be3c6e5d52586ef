"""Both exporters, in the runtime that will serve their models."""

import json

import onnx
import pytest

from steps.checkpoint.describe import build_manifest
from steps.common.errors import StepError
from steps.conversion.convert import convert
from steps.conversion.logits_check import check_conversion
from steps.conversion.options import estimated_size, parse_choice
from tests.checkout import ROOT, TINY
from tests.checkpoints.tiny import ORIGIN

pytestmark = pytest.mark.model

TEXT = (ROOT / "params/texts/general.txt").read_text(encoding="utf-8")
VARIANTS = ["genai int4", "genai int8", "genai fp32", "optimum fp32"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_first_tokens_equal_the_checkpoints(converted, variant):
    check, rounding = check_conversion(TINY, converted[variant], variant.split()[1], TEXT, 5)
    assert check.equal == check.tokens > 8
    assert check.unreadable == "" and check.logit_error < 1e-5
    assert rounding.tokens == 256
    assert rounding.kl_mean < 0.1 and rounding.same_top > 0.85


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


def test_the_config_of_optimums_graph_says_that_it_takes_position_ids(converted):
    config = json.loads((converted["optimum fp32"] / "genai_config.json").read_text())
    assert config["model"]["decoder"]["inputs"]["position_ids"] == "position_ids"
    assert config["search"]["past_present_share_buffer"] is False


def test_options_that_the_builder_cannot_combine_are_refused_in_its_own_words(tmp_path):
    with pytest.raises(
        StepError, match="cannot convert Phi3ForCausalLM with these options: int8 precision does not support the QDQ"
    ):
        convert(TINY, tmp_path / "onnx", parse_choice("genai", "int8", "use_qdq=true", "cpu"))
