"""Which exporter, precision, device and options go together."""

import pytest

from steps.common.errors import StepError
from steps.conversion.builder import with_separate_embedding
from steps.conversion.options import ConversionOptions, parse_choice, parse_max_kl

pytestmark = pytest.mark.unit


def test_a_choice_is_parsed_once():
    choice = parse_choice("genai", "int4", "block_size=128,use_qdq=true", "cuda")
    assert choice == ConversionOptions("genai", "int4", {"block_size": "128", "use_qdq": "true"}, "cuda")


def test_the_value_of_an_option_may_contain_commas():
    text = "block_size=32,matmul_mixed_precision=last_matmul:int8,mixed_layers:int8,is_symmetric=true"
    assert parse_choice("genai", "int4", text, "cpu").options == {
        "block_size": "32",
        "matmul_mixed_precision": "last_matmul:int8,mixed_layers:int8",
        "is_symmetric": "true",
    }


@pytest.mark.parametrize(
    ("exporter", "options", "streamed"), [("genai", "", True), ("genai", "stock=true", False), ("optimum", "", False)]
)
def test_only_genai_streams_and_not_with_the_stock_builder(exporter, options, streamed):
    assert parse_choice(exporter, "fp32", options, "cpu").streamed == streamed


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
def test_a_choice_that_cannot_be_made_is_refused(exporter, precision, device, options, message):
    with pytest.raises(StepError, match=message):
        parse_choice(exporter, precision, options, device)


TIED = {"tie_word_embeddings": True, "hidden_size": 576}
UNTIED = {"tie_word_embeddings": False, "hidden_size": 576}


@pytest.mark.parametrize(
    ("precision", "options"),
    [
        ("int8", {}),
        ("int4", {"is_symmetric": "false"}),
        ("int4", {"matmul_mixed_precision": "last_matmul:int8"}),
        ("int4", {"use_qdq": "true"}),
        ("int4", {"block_size": "128"}),
        ("int4", {"block_size": "128", "algo_config": "rtn"}),
    ],
)
def test_a_tied_head_is_not_shared_where_the_builder_cannot(precision, options):
    assert with_separate_embedding(options, precision, TIED) == options | {"shared_embeddings": "false"}
    assert with_separate_embedding(options, precision, UNTIED) == options
    with pytest.raises(StepError, match="shared_embeddings=true does not work"):
        with_separate_embedding(options | {"shared_embeddings": "true"}, precision, TIED)


@pytest.mark.parametrize("options", [{}, {"block_size": "64"}, {"block_size": "64", "algo_config": "k_quant"}])
def test_a_tied_head_is_shared_where_the_builder_can(options):
    assert with_separate_embedding(options, "int4", TIED) == options


@pytest.mark.parametrize("text", ["", "five", "0", "-1", "nan", "inf", "1e999"])
def test_a_limit_that_is_no_number_above_0_is_refused(text):
    with pytest.raises(StepError, match=f"max_kl is '{text}'; expected a number of nats above 0"):
        parse_max_kl(text)


def test_a_limit_is_a_number_of_nats():
    assert parse_max_kl("0.5") == 0.5
