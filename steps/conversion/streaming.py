"""onnxruntime-genai's model builder in bounded memory: one tensor at a time, from its file to the ONNX file.

The stock builder holds the model as float32, and again as a serialised graph before it quantises. Here its own classes
are extended in three places and nothing of them is copied: the weights are memory-mapped; the graph refers to them as
they are in their files; and each is cast, or quantised by the builder's own quantiser, in pieces, when it is written.
Quantisation works on blocks of one output column, so that pieces of whole columns give the same bytes.
"""

import contextlib
import copy
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np
import onnx_ir as ir
import torch
from onnx_ir.tensor_adapters import TorchTensor, to_torch_dtype

from steps.chat.runtime.cpus import usable_cpus
from steps.chat.runtime.session import FIRST_LOGIT
from steps.common.errors import StepError, nearest
from steps.conversion.mapped_model import open_model

ARCHITECTURES = ("Phi3ForCausalLM",)
_CLASSES = ("Phi3MiniModel", "Phi3MiniLongRoPEModel")  # what the builder makes of them
_PIECE = 64 << 20  # bytes of float32 that a thread works on at a time
_THREADS = min(4, usable_cpus())


@contextlib.contextmanager
def streaming(builder: ModuleType, progress: Callable[[int], object]) -> Iterator[None]:
    """Let the builder's create_model stream inside the block.

    Args:
        builder: onnxruntime_genai.models.builder.
        progress: told the number of the checkpoint's bytes that were written, as they are.
    """
    stock = {name: getattr(builder, name) for name in _CLASSES}
    for name, base in stock.items():
        setattr(builder, name, type(name, (_Streaming, base), {"progress": staticmethod(progress)}))
    try:
        yield
    finally:
        for name, base in stock.items():
            setattr(builder, name, base)


class _Streaming:
    """In front of one of the builder's model classes."""

    progress: Callable[[int], object]

    def load_weights(self, input_path: str) -> torch.nn.Module:
        """The checkpoint, memory-mapped instead of loaded as float32."""
        del input_path  # the builder has put it into its model_name_or_path
        return open_model(Path(self.model_name_or_path))

    def make_packed_matmul_float_class(self, q_matmul: Any, k_matmul: Any, v_matmul: Any, **kwargs: Any) -> Any:
        """Three weights as one. Phi-3's checkpoint has them so: what the builder cut apart is put together uncopied."""
        packed = _joined([q_matmul.weight, k_matmul.weight, v_matmul.weight])
        if packed is None:
            return super().make_packed_matmul_float_class(q_matmul, k_matmul, v_matmul, **kwargs)
        matmul = torch.nn.Module()
        matmul.weight = torch.nn.Parameter(packed, requires_grad=False)
        return matmul

    def make_initializer(self, tensor: Any, /, name: str, to: ir.DataType | None = None) -> None:
        """Register a tensor by its type and shape; it is cast when it is written, and not kept."""
        if to is None or not isinstance(tensor, torch.Tensor):
            super().make_initializer(tensor, name, to)
            return
        value = self.make_value(name, to, ir.Shape(tensor.shape))
        value.const_value = _Cast(tensor, to, name)
        self.model.graph.register_initializer(value)

    def save_model(self, out_dir: str) -> None:
        """Write every initialiser to the data file, then the graph that refers to them there."""
        for name in self.quant_attrs["nodes_to_exclude"]:
            if name not in self.node_names:
                matrices = [node.name for node in self.model.graph if node.op_type == "MatMul"]
                raise StepError(
                    f"options: nodes_to_exclude has {name!r}, and the graph no such node; {nearest(name, matrices)}"
                )
        graph = self.model.graph
        path = Path(out_dir) / self.filename
        with path.with_name(path.name + ".data").open("wb") as stream:
            if self.onnx_dtype not in (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16):
                for node in list(graph):
                    self._write_quantised(node, stream)
            for value in graph.initializers.values():
                if not isinstance(value.const_value, ir.ExternalTensor):
                    self._write(value, stream)
        wanted = _let_logits_be_chosen(graph)
        graph.sort()
        _name_length(graph, wanted, "logits_length")
        ir.save(self.model, path)

    def _write(self, value: ir.Value, stream: BinaryIO) -> None:
        tensor, offset = value.const_value, stream.tell()
        if isinstance(tensor, _Cast):
            for start, stop in tensor.spans(0, _PIECE):
                piece = tensor.cast(0, start, stop)
                TorchTensor(piece).tofile(stream)
                self.progress(piece.numel() * tensor.source.element_size())
        else:
            tensor.tofile(stream)
        value.const_value = _external(tensor, stream, offset)

    def _write_quantised(self, node: ir.Node, stream: BinaryIO) -> None:
        """Put what the builder's to_nbits makes of a node with a constant weight in the node's place."""
        position = {"MatMul": 1, "Gather": 0}.get(node.op_type)
        wanted = node.op_type in self.quant_attrs["op_types_to_quantize"]
        if not wanted or node.name in self.quant_attrs["nodes_to_exclude"]:
            return
        if position is None or not isinstance(node.inputs[position].const_value, _Cast):
            return
        weight = node.inputs[position]
        graph, tensor = self.model.graph, weight.const_value
        whole = node.op_type != "MatMul" or self.quant_attrs["use_qdq"]  # other layouts than one row a column
        size = _PIECE if self.quantization_algo == "default" else _PIECE // 8  # the others are numpy, in many copies
        spans = [(0, tensor.shape[1])] if whole else list(tensor.spans(1, size))
        results = []
        with ThreadPoolExecutor(_THREADS) as pool:  # numpy and the quantiser's kernels let go of the interpreter
            for result in pool.map(lambda span: self._quantise(node, position, tensor, *span), spans):
                results.append(result)
                self.progress(tensor.source.numel() * tensor.source.element_size() // len(spans))
        for name in results[0].graph.initializers:
            parts = [result.graph.initializers[name].const_value for result in results]
            offset = stream.tell()
            for part in parts:
                part.tofile(stream)
            value = self.make_value(name, parts[0].dtype, _shape(parts))
            value.const_value = _external(parts[0], stream, offset, _shape(parts))
            graph.register_initializer(value)
        self._replace(node, results)
        if not weight.uses():
            del graph.initializers[weight.name]

    def _quantise(self, node: ir.Node, position: int, weight: "_Cast", start: int, stop: int) -> ir.Model:
        """The builder's to_nbits on a model of this one node with some columns of its weight."""
        tensor = TorchTensor(weight.cast(1, start, stop), name=weight.name)
        inputs = [ir.Value(name=value.name) for value in node.inputs]
        inputs[position] = ir.Value(
            name=tensor.name, type=ir.TensorType(tensor.dtype), shape=tensor.shape, const_value=tensor
        )
        outputs = [ir.Value(name=value.name, type=value.type) for value in node.outputs]
        alone = ir.node(node.op_type, inputs, node.attributes, outputs=outputs, name=node.name)
        graph = ir.Graph(
            [value for value in inputs if value.const_value is None],
            outputs,
            nodes=[alone],
            initializers=[inputs[position]],
            opset_imports=self.model.graph.opset_imports,
            name=self.model.graph.name,
        )
        builder = copy.copy(self)
        builder.model = ir.Model(graph, ir_version=self.model.ir_version)
        result = builder.to_nbits()
        inputs[position].const_value = None  # a graph is a ring of references: it would stay until it is collected
        for value in result.graph.initializers.values():
            if value.const_value.dtype.bitwidth >= 8:  # out of the protobuf, whose memory holds the weight as well
                value.const_value = ir.Tensor(np.array(value.const_value.numpy()), name=value.name)
        return result

    def _replace(self, node: ir.Node, results: list[ir.Model]) -> None:
        """Put copies of the nodes of a quantised piece, widened to all pieces, in the place of `node`."""
        values = {value.name: value for value in node.inputs if value is not None}
        values |= {name: self.values[name] for name in results[0].graph.initializers}
        made = []
        for other in results[0].graph:
            attributes = dict(other.attributes)
            if "N" in attributes:
                columns = sum(next(iter(result.graph)).attributes["N"].as_int() for result in results)
                attributes["N"] = ir.AttrInt64("N", columns)
            outputs = [ir.Value(name=value.name) for value in other.outputs]
            inputs = [value and values[value.name] for value in other.inputs]
            made.append(
                ir.node(other.op_type, inputs, attributes, domain=other.domain, outputs=outputs, name=other.name)
            )
            values |= {value.name: value for value in outputs}
        new = [values[value.name] for value in node.outputs]
        ir.convenience.replace_nodes_and_values(self.model.graph, node, [node], made, node.outputs, new)


def _let_logits_be_chosen(graph: ir.Graph) -> set[ir.Value]:
    """Give the graph an input FIRST_LOGIT [1], int64, 0 by default: the position from which on logits are computed.

    Whoever reads a prompt needs the last token's alone; for the others the last layer need only make keys and values,
    so the rest of it and the head work on the positions that are wanted. The tensors are as they were, and a runtime
    that does not know the input gets every token's logits, since it has a default.

    Returns:
        The values from which on there are the wanted positions only; none where the graph is not as expected.
    """
    attention = [node for node in graph if node.op_type == "GroupQueryAttention"][-1:]
    projections = [node for last in attention for node in last.outputs[0].consumers()]
    norms = [node for projection in projections for node in projection.outputs[0].consumers()]
    if len(projections) != 1 or [node.op_type for node in norms] != ["SkipSimplifiedLayerNormalization"]:
        return set()
    limits = {FIRST_LOGIT: 0, "last_logit": np.iinfo(np.int64).max, "logit_axis": 1}
    values = []
    for name, number in limits.items():
        tensor = ir.tensor(np.array([number], np.int64), name=name)
        values.append(ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=tensor.shape, const_value=tensor))
        graph.register_initializer(values[-1])
    graph.inputs.append(values[0])
    wanted = set()
    for node, value in ((projections[0], attention[0].outputs[0]), (norms[0], norms[0].inputs[0])):
        out = ir.Value(name=f"{value.name}/wanted", type=value.type)
        graph.append(ir.node("Slice", [value, *values], outputs=[out], name=f"{node.name}/Slice"))
        node.replace_input_with(0, out)
        wanted.add(out)
    return wanted


def _name_length(graph: ir.Graph, values: set[ir.Value], name: str) -> None:
    """Give the second dimension of what is computed from the values a name: ONNX Runtime reuses memory by names."""
    values = set(values)
    for node in graph:
        if values.intersection(node.inputs):
            for value in node.outputs:
                values.add(value)
                if value.shape is not None and len(value.shape) == 3 and not isinstance(value.shape[1], int):
                    value.shape = ir.Shape([value.shape[0], name, value.shape[2]])


class _Cast(ir.LazyTensor):
    """A tensor of the checkpoint that becomes another dtype when it is asked for, and is not kept."""

    def __init__(self, source: torch.Tensor, dtype: ir.DataType, name: str) -> None:
        shape = ir.Shape(source.shape)
        super().__init__(lambda: TorchTensor(self.cast(0, 0, shape[0]), name=name), dtype, shape, name=name)
        self.source = source.detach()

    def cast(self, axis: int, start: int, stop: int) -> torch.Tensor:
        """The part from `start` to before `stop` along an axis, in memory of its own."""
        return self.source.narrow(axis, start, stop - start).to(to_torch_dtype(self.dtype)).contiguous()

    def spans(self, axis: int, size: int) -> Iterator[tuple[int, int]]:
        """Starts and stops along an axis of parts of about `size` bytes of float32."""
        length = self.source.shape[axis]
        step = max(256, size // 4 * length // self.source.numel() // 256 * 256)
        for start in range(0, length, step):
            yield start, min(start + step, length)


def _joined(tensors: list[torch.Tensor]) -> torch.Tensor | None:
    """Row blocks that lie one behind the other in one storage, as one view of it; None if they do not."""
    first = tensors[0]
    offset = first.storage_offset()
    for tensor in tensors:
        same = tensor.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
        if not same or tensor.storage_offset() != offset or tensor.stride() != (first.shape[1], 1):
            return None
        offset += tensor.numel()
    return first.as_strided((sum(len(tensor) for tensor in tensors), first.shape[1]), (first.shape[1], 1))


def _shape(parts: list[ir.TensorProtocol]) -> ir.Shape:
    return ir.Shape([sum(part.shape[0] for part in parts), *parts[0].shape[1:]])


def _external(
    tensor: ir.TensorProtocol, stream: BinaryIO, offset: int, shape: ir.Shape | None = None
) -> ir.ExternalTensor:
    """What was written to the stream from `offset` on, as a tensor that is there."""
    stream.flush()
    return ir.ExternalTensor(
        Path(stream.name).name,
        offset,
        stream.tell() - offset,
        tensor.dtype,
        shape=shape or tensor.shape,
        name=tensor.name,
        base_dir=Path(stream.name).parent,
    )
