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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 0}, f"{NAME} has schema_version 0; .* reads 1: run convert_onnx again"),
        ({"size_bytes": "many"}, f"{NAME} is damaged, field size_bytes: .*: run convert_onnx again"),
        ({"check": {"prompts": 2}}, f"{NAME} is damaged, field check.tokens: .*: run convert_onnx again"),
        ({"speed": 1}, f"{NAME} is damaged, field speed: .*: run convert_onnx again"),
    ],
)
def test_a_wrong_field_is_named_with_the_file(conversion, change, message):
    text = json.dumps(json.loads(conversion.to_json()) | change)
    with pytest.raises(StepError, match=message):
        Conversion.parse(text, NAME)
