"""Streaming against the stock builder: the same bytes in less memory, and a clear error when the builder changes."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from steps.chat.runtime.graph import FIRST_LOGIT
from steps.common.errors import StepError
from steps.conversion import streaming
from steps.conversion.convert import convert
from steps.conversion.options import parse_choice
from tests.checkout import TINY
from tests.checkpoints.geometries import GEOMETRIES, HEAD_SIZE

pytestmark = pytest.mark.model

OPTIONS = [
    ("int4", "block_size=32"),
    ("int4", "block_size=128"),
    ("int4", "block_size=128,is_symmetric=false"),
    ("int4", "block_size=32,matmul_mixed_precision=last_matmul:int8"),
    ("int4", "algo_config=rtn_last,block_size=64"),
    ("int4", "algo_config=k_quant_mixed,block_size=64"),
    ("int4", "prune_lm_head=true"),
    ("int4", "use_qdq=true"),
    ("int4", "nodes_to_exclude=/lm_head/MatMul"),
    ("int8", "block_size=32"),
    ("int8", "block_size=128,is_symmetric=false"),
    ("fp32", ""),
]


@pytest.mark.parametrize(
    ("geometry", "precision", "options"),
    [("phi-3-mini", *options) for options in OPTIONS]
    + [(name, *options) for name in [*GEOMETRIES][1:] for options in (OPTIONS[0], OPTIONS[-2], OPTIONS[-1])],
)
def test_every_tensor_has_the_stock_builders_bytes(checkpoints, geometry, precision, options, tmp_path, monkeypatch):
    monkeypatch.setattr(streaming, "PIECE_BYTES", 1)  # the smallest pieces, so that even these matrices are cut
    ours, stock = _both(checkpoints[geometry], precision, options, tmp_path)
    assert ours == stock


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int4"])
def test_every_tensor_of_a_gpu_conversion_has_the_stock_builders_bytes(checkpoints, precision, tmp_path):
    ours, stock = _both(checkpoints["phi-3-medium"], precision, "block_size=32", tmp_path, device="cuda")
    assert ours == stock


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_the_graph_computes_the_logits_of_the_selected_positions_alone(checkpoints, geometry, tmp_path):
    convert(checkpoints[geometry], tmp_path / "onnx", parse_choice("genai", "fp32", "", "cpu"))
    session = ort.InferenceSession(tmp_path / "onnx" / "model.onnx")
    feeds = {"input_ids": np.arange(10, 30)[None], "attention_mask": np.ones((1, 20), np.int64)}
    for value in session.get_inputs():
        if value.name.startswith("past"):
            feeds[value.name] = np.zeros((1, value.shape[1], 0, HEAD_SIZE), np.float32)
    all_logits, *present = session.run(None, feeds)
    assert all_logits.shape[1] == 20, "without the input, all of them"
    for first in (0, 7, 19, 20):
        logits, *same = session.run(None, feeds | {FIRST_LOGIT: np.array([first])})
        assert logits.shape[1] == 20 - first
        np.testing.assert_allclose(logits, all_logits[:, first:], atol=1e-5)
        assert all(np.array_equal(a, b) for a, b in zip(present, same, strict=True))


def test_the_size_of_the_pieces_does_not_change_the_bytes(checkpoints, tmp_path, monkeypatch):
    contents = set()
    for piece in (1, 1 << 20, 1 << 40):
        monkeypatch.setattr(streaming, "PIECE_BYTES", piece)
        convert(checkpoints["phi-4-mini"], tmp_path / str(piece), parse_choice("genai", "int4", "", "cpu"))
        contents.add((tmp_path / str(piece) / "model.onnx.data").read_bytes())
    assert len(contents) == 1


def test_progress_adds_up_to_the_bytes_of_the_checkpoint(checkpoints, tmp_path):
    pieces = []
    convert(checkpoints["phi-3-medium"], tmp_path / "onnx", parse_choice("genai", "int4", "", "cpu"), pieces.append)
    weights = (checkpoints["phi-3-medium"] / "model.safetensors").stat().st_size
    assert len(pieces) > 10 and 0.98 * weights <= sum(pieces) <= weights


def test_a_changed_builder_is_named_and_works_without_streaming(tmp_path, monkeypatch):
    from onnxruntime_genai.models import builder

    class Renamed(builder.Phi3MiniModel):  # as if a later version had renamed a parameter
        def make_initializer(self, tensor, /, name, to_dtype=None, to=None):
            super().make_initializer(tensor, name, to_dtype or to)

        def make_matmul_float(self, matmul, name, root_input, **kwargs):
            self.make_initializer(matmul.weight.T, name[1:].replace("/", ".") + ".weight", to_dtype=self.io_dtype)
            return super().make_matmul_float(matmul, name, root_input, **kwargs)

    monkeypatch.setattr(builder, "Phi3MiniModel", Renamed)
    with pytest.raises(StepError, match=r"streaming conversion failed with onnxruntime-genai .*options=stock=true"):
        convert(TINY, tmp_path / "ours", parse_choice("genai", "fp32", "", "cpu"))
    assert not (tmp_path / "ours").exists()
    convert(TINY, tmp_path / "stock", parse_choice("genai", "fp32", "stock=true", "cpu"))
    assert (tmp_path / "stock" / "model.onnx").is_file()
    assert builder.Phi3MiniModel is Renamed, "the builder is left as it was"


def test_an_excluded_node_that_the_graph_lacks_is_named(tmp_path):
    with pytest.raises(StepError, match="did you mean '/lm_head/MatMul'"):
        convert(TINY, tmp_path / "onnx", parse_choice("genai", "int4", "nodes_to_exclude=/lm_head/MatMull", "cpu"))
    assert not (tmp_path / "onnx").exists()


@pytest.mark.parametrize("options", ["algo_config=k_quant", "algo_config=rtn,is_symmetric=false"])
def test_an_odd_number_of_blocks_is_refused_if_the_quantiser_cannot_store_it(tmp_path, options):
    with pytest.raises(StepError, match="416 inputs in blocks of 32: they make 13 blocks"):
        convert(TINY, tmp_path / "onnx", parse_choice("genai", "int4", options, "cpu"))
    convert(TINY, tmp_path / "onnx", parse_choice("genai", "int4", f"{options},block_size=128", "cpu"))


def _without_selection(tensors: dict, nodes: list[tuple]) -> tuple[dict, list[tuple]]:
    """Return tensors and nodes without the selection of logits, which the stock builder does not make."""
    slices = {node[3][0]: node[2] for node in nodes if FIRST_LOGIT in node[2]}
    assert len(slices) == 2
    added = {name for inputs in slices.values() for name in inputs[1:]}
    assert len(added) == 3 and FIRST_LOGIT in added
    kept = [
        (op, name, [slices[i][0] if i in slices else i for i in inputs], outputs, attributes)
        for op, name, inputs, outputs, attributes in nodes
        if outputs[0] not in slices
    ]
    return {name: tensor for name, tensor in tensors.items() if name not in added}, kept


def _both(folder: Path, precision: str, options: str, scratch: Path, device: str = "cpu") -> tuple[dict, dict]:
    """Return tensors, nodes and genai_config.json of the streaming conversion, and of the stock builder's."""
    results = []
    for stock in ("false", "true"):
        out = scratch / stock
        choice = parse_choice("genai", precision, ",".join(filter(None, [options, f"stock={stock}"])), device)
        convert(folder, out, choice)
        graph = onnx.load(out / "model.onnx").graph
        tensors = {tensor.name: (tensor.data_type, tuple(tensor.dims), tensor.raw_data) for tensor in graph.initializer}
        nodes = [
            (n.op_type, n.name, [*n.input], [*n.output], sorted(a.SerializeToString() for a in n.attribute))
            for n in graph.node
        ]
        if stock == "false":
            tensors, nodes = _without_selection(tensors, nodes)
        nodes.sort()
        results.append(
            {"tensors": tensors, "nodes": nodes, "config": json.loads((out / "genai_config.json").read_text())}
        )
    return results[0], results[1]
