"""Run onnxruntime-genai's model builder in bounded memory: one piece of one weight at a time, from file to file.

Invariant: at most _THREADS pieces of PIECE_BYTES exist as float32, or one weight where it cannot be cut (Gather, QDQ).
Every tensor written has the stock builder's bytes.
Why: the stock builder holds the model as float32, and again as a serialised graph before it quantises. It needs more
than 24 GB for 3.8B parameters. Quantisation works on blocks within one column of a weight. So whole columns can be
quantised apart, and give the same bytes.

    checkpoint, memory-mapped        pieces in memory                 model.onnx.data
    | qkv | o | gate | ... |  --->   float32 --> cast        --->     | ... | weight in fp32 |
                              --->   float32 --> to_nbits    --->     | ... | 4-bit blocks | scales |
    graph: CastTensor, whose data is in the checkpoint  --->  ExternalTensor, whose data is in model.onnx.data

The builder's own classes are extended by a few methods. None of the builder's code is copied.
"""

import contextlib
import copy
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import onnx_ir as ir
import torch
from onnx_ir.tensor_adapters import TorchTensor

from steps.chat.runtime.cpus import usable_cpus
from steps.common.errors import StepError, nearest
from steps.conversion.lazy_tensor import CastTensor, constant, in_file, joined_rows, write
from steps.conversion.logit_selection import name_length, select_logits
from steps.conversion.mapped_model import open_model

ARCHITECTURES = ("Phi3ForCausalLM",)
PIECE_BYTES = 64 << 20  # bytes of float32 that one thread works on
_CLASSES = ("Phi3MiniModel", "Phi3MiniLongRoPEModel")  # the builder's classes for ARCHITECTURES
_THREADS = min(4, usable_cpus())
_WEIGHT_INPUT = {"MatMul": 1, "Gather": 0}  # operators that the builder quantises -> the input that is the weight
_UNQUANTISED = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)

if TYPE_CHECKING:

    class _BuilderModel:
        """The part of the builder's model classes (onnxruntime-genai 0.15.2) that streaming uses."""

        model: ir.Model
        model_name_or_path: str
        filename: str
        onnx_dtype: ir.DataType
        quant_attrs: dict[str, Any]
        quantization_algo: str
        node_names: set[str]
        values: dict[str, ir.Value]

        def make_value(self, name: str, dtype: ir.DataType, shape: ir.Shape) -> ir.Value: ...

        def make_initializer(self, tensor: Any, /, name: str, to: ir.DataType | None = None) -> None: ...

        weights: Any  # the PyTorch model

        def make_packed_matmul_float_class(self, q_matmul: Any, k_matmul: Any, v_matmul: Any, **kwargs: Any) -> Any: ...

        def to_nbits(self) -> ir.Model: ...
else:
    _BuilderModel = object  # the real base is known only when the builder is imported: see streaming()


@contextlib.contextmanager
def streaming(builder: ModuleType, progress: Callable[[int], object]) -> Iterator[None]:
    """Let the builder's create_model stream inside the block.

    Args:
        builder: onnxruntime_genai.models.builder.
        progress: called with the number of checkpoint bytes of each piece that was written.
    """
    # create_model looks its classes up by name in its own module, and takes no class or hook. So the names are bound to
    # subclasses for the length of the block. This is global to the process: convert one checkpoint at a time.
    # The subclasses are made at run time, because the builder imports their bases under a package name of its own: the
    # classes in onnxruntime_genai.models.builders are other objects, and extending them would change nothing.
    stock = {name: getattr(builder, name) for name in _CLASSES}
    for name, base in stock.items():
        setattr(builder, name, type(name, (_StreamingModel, base), {"progress": staticmethod(progress)}))
    try:
        yield
    finally:
        for name, base in stock.items():
            setattr(builder, name, base)


class _StreamingModel(_BuilderModel):
    """The methods that override the builder's, in front of one of its model classes."""

    progress: Callable[[int], object]

    def load_weights(self, input_path: str) -> torch.nn.Module:
        """Return the checkpoint memory-mapped. The builder loads it as float32."""
        del input_path  # the builder has stored it as model_name_or_path
        return open_model(Path(self.model_name_or_path))

    def has_lm_head(self, module: torch.nn.Module) -> bool:
        """Return whether a module is the head. The builder takes any linear layer as wide as the vocabulary for it."""
        return module is self.weights.get_output_embeddings()

    def make_packed_matmul_float_class(self, q_matmul: Any, k_matmul: Any, v_matmul: Any, **kwargs: Any) -> Any:
        """Return the three weights as one, without a copy.

        Phi-3's checkpoint has one weight, which the builder has cut in three.
        """
        packed = joined_rows([q_matmul.weight, k_matmul.weight, v_matmul.weight])
        if packed is None:
            return super().make_packed_matmul_float_class(q_matmul, k_matmul, v_matmul, **kwargs)
        matmul = torch.nn.Module()
        matmul.weight = torch.nn.Parameter(packed, requires_grad=False)
        return matmul

    def make_initializer(self, tensor: Any, /, name: str, to: ir.DataType | None = None) -> None:
        """Register a tensor by dtype and shape. It is cast when it is written. The builder keeps the cast tensor."""
        if to is None or not isinstance(tensor, torch.Tensor):
            super().make_initializer(tensor, name, to)
            return
        value = self.make_value(name, to, ir.Shape(tensor.shape))
        value.const_value = CastTensor(tensor, to, name)
        self.model.graph.register_initializer(value)

    def save_model(self, out_dir: str) -> None:
        """Write every initializer to the data file, then the graph that refers to the data file."""
        self._check_excluded_nodes()
        graph = self.model.graph
        path = Path(out_dir) / self.filename
        with path.with_name(path.name + ".data").open("wb") as stream:
            if self.onnx_dtype not in _UNQUANTISED:
                for node in list(graph):
                    self._write_quantised(node, stream)
            for value in graph.initializers.values():
                if not isinstance(value.const_value, ir.ExternalTensor):
                    self._write(value, stream)
        selected = select_logits(graph)
        graph.sort()
        name_length(graph, selected, "logits_length")
        ir.save(self.model, path)

    def _check_excluded_nodes(self) -> None:
        """Raise StepError if the option nodes_to_exclude names a node that is not in the graph."""
        for name in self.quant_attrs["nodes_to_exclude"]:
            if name not in self.node_names:
                matrices = [node.name or "" for node in self.model.graph if node.op_type == "MatMul"]
                raise StepError(
                    f"options: nodes_to_exclude names {name!r}, which the graph lacks; {nearest(name, matrices)}"
                )

    def _write(self, value: ir.Value, stream: BinaryIO) -> None:
        """Write an initializer as it is, or cast in pieces."""
        tensor = value.const_value
        if not isinstance(tensor, CastTensor):
            value.const_value = write([constant(value)], value.name or "", stream)
            return
        offset = stream.tell()
        for start, stop in tensor.spans(0, PIECE_BYTES):
            piece = tensor.cast(0, start, stop)
            TorchTensor(piece).tofile(stream)
            self.progress(piece.numel() * tensor.source.element_size())
        value.const_value = in_file(stream, offset, value.name or "", tensor.dtype, tensor.source.shape)

    def _write_quantised(self, node: ir.Node, stream: BinaryIO) -> None:
        """Quantise the weight of a node, write the result, and replace the node. Do nothing if it stays as it is."""
        if node.op_type not in _WEIGHT_INPUT or node.op_type not in self.quant_attrs["op_types_to_quantize"]:
            return
        weight = node.inputs[_WEIGHT_INPUT[node.op_type]]
        if node.name in self.quant_attrs["nodes_to_exclude"] or weight is None:
            return
        tensor = weight.const_value
        if not isinstance(tensor, CastTensor):
            return
        graph, pieces = self.model.graph, self._quantised_pieces(node, tensor)
        for name in pieces[0].graph.initializers:
            parts = [constant(piece.graph.initializers[name]) for piece in pieces]
            written = write(parts, name, stream)
            value = self.make_value(name, written.dtype, ir.Shape(written.shape))
            value.const_value = written
            graph.register_initializer(value)
        self._replace(node, pieces)
        if not weight.uses():
            del graph.initializers[tensor.name or ""]

    def _quantised_pieces(self, node: ir.Node, weight: CastTensor) -> list[ir.Model]:
        """Return the quantised forms of the node with each piece of its weight, from the first column to the last."""
        # Gather and the QDQ format lay a quantised weight out in another way than one row a column: no pieces there.
        whole = node.op_type != "MatMul" or self.quant_attrs["use_qdq"]
        # All algorithms but the default one are written in numpy, and make several copies of a piece.
        size = PIECE_BYTES if self.quantization_algo == "default" else PIECE_BYTES // 8
        spans = [(0, weight.source.shape[1])] if whole else list(weight.spans(1, size))
        pieces = []
        with ThreadPoolExecutor(_THREADS) as pool:  # numpy and the quantiser's kernels release the interpreter lock
            for piece in pool.map(lambda span: self._quantise(node, weight, *span), spans):
                pieces.append(piece)
                self.progress(weight.source_bytes // len(spans))
        return pieces

    def _quantise(self, node: ir.Node, weight: CastTensor, start: int, stop: int) -> ir.Model:
        """Run the builder's to_nbits on a graph of this node alone, with the columns from `start` to before `stop`."""
        tensor = TorchTensor(weight.cast(1, start, stop), name=weight.name)
        piece = ir.Value(
            name=weight.name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape), const_value=tensor
        )
        inputs = [ir.Value(name=value.name if value else "") for value in node.inputs]
        inputs[_WEIGHT_INPUT[node.op_type]] = piece
        outputs = [ir.Value(name=value.name, type=value.type) for value in node.outputs]
        graph = ir.Graph(
            [value for value in inputs if value is not piece],
            outputs,
            nodes=[ir.node(node.op_type, inputs, node.attributes, outputs=outputs, name=node.name)],
            initializers=[piece],
            opset_imports=self.model.graph.opset_imports,
            name=self.model.graph.name,
        )
        builder = copy.copy(self)  # to_nbits reads its graph from the attribute `model`, and threads share self
        builder.model = ir.Model(graph, ir_version=self.model.ir_version)
        result = builder.to_nbits()
        # A graph is a ring of references, which lives until the garbage collector runs. So the data is let go here:
        piece.const_value = None
        for value in result.graph.initializers.values():
            # The scales lie in a protobuf, whose memory also holds the weight.
            data = value.const_value
            if data is not None and data.dtype.bitwidth >= 8:
                value.const_value = ir.Tensor(np.array(data.numpy()), name=value.name)
        return result

    def _replace(self, node: ir.Node, pieces: list[ir.Model]) -> None:
        """Replace a node by its quantised form: the nodes of the first piece, with the columns of all pieces."""
        graph = self.model.graph
        values: dict[str | None, ir.Value] = {value.name: value for value in node.inputs if value is not None}
        values |= {name: self.values[name] for name in pieces[0].graph.initializers}
        new_nodes = []
        for part in pieces[0].graph:
            attributes = dict(part.attributes)
            if "N" in attributes:  # MatMulNBits: the number of columns
                columns = sum(next(iter(piece.graph)).attributes["N"].as_int() for piece in pieces)
                attributes["N"] = ir.AttrInt64("N", columns)
            inputs = [None if value is None else values[value.name] for value in part.inputs]
            outputs = [ir.Value(name=value.name) for value in part.outputs]
            new_nodes.append(
                ir.node(part.op_type, inputs, attributes, domain=part.domain, outputs=outputs, name=part.name)
            )
            values |= {value.name: value for value in outputs}
        new_values = [values[value.name] for value in node.outputs]
        ir.convenience.replace_nodes_and_values(graph, node, [node], new_nodes, node.outputs, new_values)
