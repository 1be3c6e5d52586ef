"""The head is the module that the checkpoint says, however wide the other matrices are."""

import numpy as np
import pytest

from steps.common.errors import StepError
from steps.conversion.convert import convert
from steps.conversion.converted_model import ConvertedModel
from steps.conversion.logits_check import check_conversion
from steps.conversion.mapped_model import float32_logits, open_model
from steps.conversion.options import parse_choice
from tests.checkout import TINY
from tests.checkpoints.geometries import make_checkpoint

pytestmark = pytest.mark.model

TOKENS = list(range(10, 40))
SAME_WIDTHS = {  # 4 heads of 64: the hidden size is 256, and query, key and value have 768 rows together
    "twice the intermediate size": dict(vocab_size=832, intermediate_size=416),
    "the intermediate size": dict(vocab_size=832, intermediate_size=832),
    "query, key and value together": dict(vocab_size=768),
    "the hidden size": dict(vocab_size=768, num_attention_heads=12, num_key_value_heads=4),
    "keys": dict(vocab_size=768, num_attention_heads=24, num_key_value_heads=12, hidden_size=1536),
    "the hidden size, tied": dict(vocab_size=768, num_attention_heads=12, tie_word_embeddings=True),
}


@pytest.mark.parametrize("fields", SAME_WIDTHS.values(), ids=SAME_WIDTHS)
def test_a_vocabulary_as_large_as_another_width_gives_pytorchs_logits(tmp_path, fields):
    checkpoint = make_checkpoint(tmp_path / "checkpoint", "phi-3-mini", TINY, **fields)
    convert(checkpoint, tmp_path / "onnx", parse_choice("genai", "fp32", "", "cpu"))
    logits = ConvertedModel(tmp_path / "onnx").text_logits(TOKENS)
    assert np.abs(logits - float32_logits(open_model(checkpoint), TOKENS)).max() <= 1e-4


@pytest.mark.parametrize("precision", ["fp32", "int4"])
def test_the_stock_builders_wrong_head_is_refused(tmp_path, precision):
    """This test fails when the builder is mended. Then has_lm_head in steps/conversion/streaming.py can go."""
    fields = SAME_WIDTHS["twice the intermediate size"]
    checkpoint = make_checkpoint(tmp_path / "checkpoint", "phi-3-mini", TINY, **fields)
    convert(checkpoint, tmp_path / "onnx", parse_choice("genai", precision, "stock=true", "cpu"))
    with pytest.raises(StepError, match="Nothing was logged"):
        check_conversion(checkpoint, tmp_path / "onnx", precision, "A text.", 5)
