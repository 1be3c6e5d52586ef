"""The stub model that makes onnxruntime-genai's tokenizer."""

import onnx
import pytest

from steps.conversion.genai_tokenizer import _STUB

pytestmark = pytest.mark.model


def test_the_stub_is_the_graph_that_its_comment_describes():
    model = onnx.load_from_string(_STUB)
    onnx.checker.check_model(model)
    (node,) = model.graph.node
    assert (node.op_type, [*node.input], [*node.output]) == ("Identity", ["input_ids"], ["logits"])
    assert (model.ir_version, model.opset_import[0].version) == (8, 17)
