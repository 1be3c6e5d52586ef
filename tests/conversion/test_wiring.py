"""What the check of a conversion finds: wrong wires and wrong weights, whatever rounding does to the logits."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from steps.common.errors import StepError
from steps.conversion.convert import convert
from steps.conversion.logits_check import check_conversion
from steps.conversion.options import parse_choice
from tests.checkout import ROOT, TINY
from tests.checkpoints.geometries import GEOMETRIES, make_checkpoint
from tests.checkpoints.tiny import edit_json

pytestmark = pytest.mark.model

TEXT = (ROOT / "params/texts/general.txt").read_text(encoding="utf-8")
CHECKPOINT = "phi-3-mini"  # as many heads for keys as for queries, so that the two can be swapped
FAR = 0.05  # 50 times the tolerance
FORMATS = [
    ("int4", ""),
    ("int4", "block_size=128"),
    ("int4", "is_symmetric=false,disable_qkv_fusion=true"),
    ("int4", "use_qdq=true"),
    ("int4", "use_qdq=true,is_symmetric=false"),
    ("int4", "matmul_mixed_precision=last_matmul:int8"),
    ("int4", "algo_config=rtn_last,block_size=64"),
    ("int4", "algo_config=k_quant_mixed,block_size=64"),
    ("int4", "op_types_to_quantize=MatMul/Gather"),
    ("int4", "prune_lm_head=true"),
    ("int4", "nodes_to_exclude=/lm_head/MatMul"),
    ("int4", "accuracy_level=1"),
    ("int4", "stock=true"),
    ("int8", ""),
    ("int8", "is_symmetric=false,block_size=128"),
]


@pytest.mark.parametrize(("precision", "options"), FORMATS)
def test_random_weights_pass_in_every_format(checkpoints, tmp_path, precision, options):
    """Nothing that random weights say survives int4. The check passes, because the wires and the weights are right."""
    convert(checkpoints[CHECKPOINT], tmp_path / "onnx", parse_choice("genai", precision, options, "cpu"))
    check, rounding = check_conversion(checkpoints[CHECKPOINT], tmp_path / "onnx", precision, TEXT, 5)
    assert check.unreadable == ""
    assert check.logit_error < 5e-5
    assert 0.2 < check.weight_error < 0.5
    assert 0 < rounding.kl_mean < 1
    assert [path.name for path in (tmp_path / "onnx").glob("*.onnx")] == ["model.onnx"], "the copy is removed"


@pytest.mark.parametrize("geometry", [*GEOMETRIES][1:])
@pytest.mark.parametrize(
    ("exporter", "precision", "options"),
    [("genai", "int4", ""), ("genai", "int4", "algo_config=k_quant_last,block_size=64"), ("genai", "int8", "")]
    + [("genai", "fp32", ""), ("optimum", "fp32", "")],
)
def test_every_geometry_passes(checkpoints, tmp_path, geometry, exporter, precision, options):
    convert(checkpoints[geometry], tmp_path / "onnx", parse_choice(exporter, precision, options, "cpu"))
    check, _ = check_conversion(checkpoints[geometry], tmp_path / "onnx", precision, TEXT, 5)
    assert check.unreadable == "" and check.logit_error < 5e-5


def test_a_tied_embedding_that_blocks_do_not_divide_is_kept_apart(tmp_path):
    fields = dict(num_attention_heads=9, num_key_value_heads=3, tie_word_embeddings=True)
    checkpoint = make_checkpoint(tmp_path / "checkpoint", "phi-3-mini", TINY, **fields)
    facts = convert(checkpoint, tmp_path / "onnx", parse_choice("genai", "int4", "block_size=128", "cpu"))
    assert facts.notes == (
        "the tied embedding is a matrix of its own, because onnxruntime-genai cannot share it with blocks of 128 in "
        "rows of 576",
    )
    check, _ = check_conversion(checkpoint, tmp_path / "onnx", "int4", TEXT, 5)
    assert check.unreadable == "" and check.logit_error < 5e-5
    shared = convert(checkpoint, tmp_path / "shared", parse_choice("genai", "int4", "block_size=64", "cpu"))
    assert shared.notes == ()
    check_conversion(checkpoint, tmp_path / "shared", "int4", TEXT, 5)


def _node(graph: onnx.GraphProto, name: str) -> onnx.NodeProto:
    """Return a node, whatever the quantiser has put behind its name."""
    return next(node for node in graph.node if re.fullmatch(rf"{name}(_Q\d+\w*)?", node.name))


def _output(graph: onnx.GraphProto, name: str) -> str:
    return _node(graph, name).output[0]


def _head_of_a_middle_layer(graph: onnx.GraphProto) -> None:
    # As the builder once did to a model whose MLP was as wide as its vocabulary.
    _node(graph, "/lm_head/MatMul").input[0] = "/model/layers.1/post_attention_layernorm/output_0"


def _swapped_query_and_key(graph: onnx.GraphProto) -> None:
    attention = _node(graph, "/model/layers.1/attn/GroupQueryAttention")
    attention.input[0], attention.input[1] = attention.input[1], attention.input[0]


def _swapped_gate_and_up(graph: onnx.GraphProto) -> None:
    gate, up = (_output(graph, f"/model/layers.1/mlp/{name}_proj/MatMul") for name in ("gate", "up"))
    for name in ("act_fn/Sigmoid", "act_fn/Mul"):
        node = _node(graph, f"/model/layers.1/mlp/{name}")
        node.input[0] = up if node.input[0] == gate else node.input[0]
    _node(graph, "/model/layers.1/mlp/Mul").input[1] = gate


def _missing_norm(graph: onnx.GraphProto) -> None:
    for name in ("gate", "up"):
        _node(graph, f"/model/layers.1/mlp/{name}_proj/MatMul").input[0] = (
            "/model/layers.1/post_attention_layernorm/output_3"
        )


def _permuted_value_heads(graph: onnx.GraphProto) -> None:
    attention = _node(graph, "/model/layers.1/attn/GroupQueryAttention")
    half = helper.make_node("Split", [attention.input[2]], ["first_half", "second_half"], axis=2, num_outputs=2)
    joined = helper.make_node("Concat", ["second_half", "first_half"], ["permuted"], axis=2)
    attention.input[2] = "permuted"
    graph.node.extend([half, joined])


def _missing_residual(graph: onnx.GraphProto) -> None:
    norm = _node(graph, "/model/layers.1/post_attention_layernorm/SkipLayerNorm")
    norm.input[0] = norm.input[1]


WIRES = [
    _head_of_a_middle_layer,
    _swapped_query_and_key,
    _swapped_gate_and_up,
    _missing_norm,
    _permuted_value_heads,
    _missing_residual,
]


@pytest.fixture(scope="module")
def graphs(checkpoints, tmp_path_factory) -> dict[str, Path]:
    """The checkpoint in float32 and in int4, with query, key and value in nodes of their own."""
    folders = {}
    for precision in ("fp32", "int4"):
        folders[precision] = tmp_path_factory.mktemp("onnx") / precision
        convert(
            checkpoints[CHECKPOINT],
            folders[precision],
            parse_choice("genai", precision, "disable_qkv_fusion=true", "cpu"),
        )
    return folders


def _spoilt(folder: Path, out: Path, change: Callable[[onnx.GraphProto], None]) -> Path:
    shutil.copytree(folder, out)
    model = onnx.load(out / "model.onnx")
    change(model.graph)
    (out / "model.onnx.data").unlink()
    graph = _sorted(model)
    onnx.save(graph, out / "model.onnx")
    return out


def _sorted(model: onnx.ModelProto) -> onnx.ModelProto:
    import onnx_ir as ir

    sorted_model = ir.from_proto(model)
    sorted_model.graph.sort()
    return ir.to_proto(sorted_model)


@pytest.mark.parametrize("precision", ["fp32", "int4"])
@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.__name__.strip("_"))
def test_a_wrong_wire_is_far_outside_the_tolerance(checkpoints, graphs, tmp_path, precision, wire, record_property):
    folder = _spoilt(graphs[precision], tmp_path / "spoilt", wire)
    with pytest.raises(StepError, match="so it computes something else") as refusal:
        check_conversion(checkpoints[CHECKPOINT], folder, precision, TEXT, 5)
    (error,) = re.findall(r"differ by (\S+) of their standard", str(refusal.value))
    record_property("error", error)
    assert float(error) > FAR


@pytest.mark.parametrize("precision", ["fp32", "int4"])
@pytest.mark.parametrize(
    "change",
    [{"rope_theta": 20_000.0}, {"partial_rotary_factor": 0.5}, {"rms_norm_eps": 0.1}],
    ids=["rope_theta", "partial_rotary_factor", "rms_norm_eps"],
)
def test_another_config_than_the_checkpoints_is_refused(checkpoints, tmp_path, precision, change):
    other = shutil.copytree(checkpoints[CHECKPOINT], tmp_path / "other")
    edit_json(other / "config.json", **change)
    convert(other, tmp_path / "onnx", parse_choice("genai", precision, "", "cpu"))
    with pytest.raises(StepError, match="so it computes something else"):
        check_conversion(checkpoints[CHECKPOINT], tmp_path / "onnx", precision, TEXT, 5)


def _swap(graph: onnx.GraphProto, first: str, second: str) -> None:
    """Swap the data of two matrices of the same shape."""
    for suffix in ("weight", "weight_Q4", "weight_scales"):
        names = [f"model.layers.{name}.{suffix}" for name in (first, second)]
        tensors = [tensor for tensor in graph.initializer if tensor.name in names]
        for tensor in tensors:
            tensor.name = names[1 - names.index(tensor.name)]


def _permuted_key_heads(graph: onnx.GraphProto) -> None:
    for tensor in graph.initializer:
        if tensor.name.startswith("model.layers.1.attn.k_proj.MatMul.weight"):
            array = numpy_helper.to_array(tensor)
            axis = 1 if tensor.name.endswith("weight") else 0  # float32 has [inputs, outputs]
            tensor.CopyFrom(numpy_helper.from_array(np.roll(array, array.shape[axis] // 2, axis), tensor.name))


WEIGHTS = {
    "another layer": (lambda graph: _swap(graph, "0.mlp.down_proj.MatMul", "1.mlp.down_proj.MatMul"), "mlp.down_proj"),
    "query and key": (lambda graph: _swap(graph, "1.attn.q_proj.MatMul", "1.attn.k_proj.MatMul"), "self_attn.qkv_proj"),
    "gate and up": (lambda graph: _swap(graph, "1.mlp.gate_proj.MatMul", "1.mlp.up_proj.MatMul"), "mlp.gate_up_proj"),
    "norms": (lambda graph: _swap(graph, "1.input_layernorm", "1.post_attention_layernorm"), "input_layernorm"),
    "permuted heads": (_permuted_key_heads, "self_attn.qkv_proj"),
}


@pytest.mark.parametrize("precision", ["fp32", "int4"])
@pytest.mark.parametrize("plant", WEIGHTS)
def test_another_weight_is_named(checkpoints, graphs, tmp_path, precision, plant):
    change, name = WEIGHTS[plant]
    folder = _spoilt(graphs[precision], tmp_path / "spoilt", change)
    with pytest.raises(
        StepError, match=rf"another weight in place of the checkpoint's model\.layers\.[01]\.{name}"
    ) as refusal:
        check_conversion(checkpoints[CHECKPOINT], folder, precision, TEXT, 5)
    (error,) = re.findall(r"differ by (\S+) steps of rounding", str(refusal.value))
    assert float(error) > 3


def test_a_graph_of_unknown_form_is_compared_with_the_checkpoint(checkpoints, graphs, tmp_path):
    def rename(graph: onnx.GraphProto) -> None:
        _node(graph, "/lm_head/MatMul").name = "head"

    folder = _spoilt(graphs["fp32"], tmp_path / "renamed", rename)
    check, _ = check_conversion(checkpoints[CHECKPOINT], folder, "fp32", TEXT, 5)
    assert check.unreadable == "the graph has no node for lm_head"

    def spoil(graph: onnx.GraphProto) -> None:
        _head_of_a_middle_layer(graph)
        rename(graph)

    with pytest.raises(StepError, match="its own weights could not be read back: the graph has no node for lm_head"):
        check_conversion(checkpoints[CHECKPOINT], _spoilt(graphs["fp32"], tmp_path / "b", spoil), "fp32", TEXT, 5)


def test_a_model_of_which_rounding_leaves_too_little_is_refused(checkpoints, graphs):
    with pytest.raises(StepError, match=r"KL 0\.\d+ nats from PyTorch on 256 tokens, and max_kl is 0\.001"):
        check_conversion(checkpoints[CHECKPOINT], graphs["int4"], "int4", TEXT, 0.001)


def test_a_checkpoint_without_a_chat_template_is_compared_on_plain_text(tmp_path):
    checkpoint = shutil.copytree(TINY, tmp_path / "checkpoint")
    (checkpoint / "chat_template.jinja").unlink()
    convert(checkpoint, tmp_path / "onnx", parse_choice("genai", "int4", "", "cpu"))
    check, _ = check_conversion(checkpoint, tmp_path / "onnx", "int4", TEXT, 5)
    assert check.prompts == 2 and check.logit_error < 1e-5
