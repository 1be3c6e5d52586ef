"""conversion.json as a typed document."""

import json

import pytest

from steps.common.errors import StepError
from steps.conversion.record import Conversion
from tests.conversion.records import conversion_of

pytestmark = pytest.mark.unit
NAME = "conversion.json of run 1"


@pytest.fixture
def conversion(tmp_path) -> Conversion:
    """The record of a folder with one file."""
    (tmp_path / "model.onnx").write_bytes(b"graph")
    return conversion_of(tmp_path, options={"block_size": "128", "matmul_mixed_precision": "last_matmul:int8"})


def test_it_is_read_as_it_was_written(conversion):
    assert Conversion.parse(conversion.to_json(), NAME) == conversion


def test_its_variant_names_exporter_precision_and_options(conversion):
    assert conversion.variant == "onnx-genai-int4-block_size-128-last_matmul:int8"
    assert conversion.options_text == "block_size=128, matmul_mixed_precision=last_matmul:int8"


def test_its_summary_says_what_was_made_and_what_rounding_costs(conversion):
    assert conversion.summary == (
        "int4 by genai, 5 bytes, 16 of 16 first tokens as in PyTorch, KL 0.021, same top token 91%"
    )


def test_its_summary_says_what_the_options_do_not(conversion):
    check = conversion.check.model_copy(update={"unreadable": "the graph has no node for lm_head"})
    changed = conversion.model_copy(update={"notes": ("the tied embedding is a matrix of its own",), "check": check})
    assert changed.summary == (
        f"{conversion.summary}; the tied embedding is a matrix of its own; its weights could not be read back, see "
        "conversion.json"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 1}, f"{NAME} has schema_version 1; .* reads 2: run convert_onnx again"),
        ({"size_bytes": "many"}, f"{NAME} is damaged, field size_bytes: .*: run convert_onnx again"),
        ({"check": {"prompts": 2}}, f"{NAME} is damaged, field check.tokens: .*: run convert_onnx again"),
        ({"speed": 1}, f"{NAME} is damaged, field speed: .*: run convert_onnx again"),
    ],
)
def test_a_wrong_field_is_named_with_the_file(conversion, change, message):
    text = json.dumps(json.loads(conversion.to_json()) | change)
    with pytest.raises(StepError, match=message):
        Conversion.parse(text, NAME)
