"""Read the weights of a converted model back from its ONNX files, as float32, under the names of the checkpoint.

A matrix is found by the name of its node, in the builder's spelling or optimum's. It is dequantised when it is read,
some rows at a time, by formulas of this module: no runtime takes part. The data stays in its file.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from steps.conversion.weights import BlockWeight, FloatWeight, JoinedWeight, Weight

_MATRIX = re.compile(r"(/.+)/(?:MatMul|Gather|GatherBlockQuantized)(?:_\w+)?")  # the name of a node with a weight
_FINAL_NORM = r"model\.layers\.\d+\.final_norm_layernorm\.weight"  # the builder's name of model.norm.weight
_NUMPY = {ir.DataType.FLOAT: np.float32, ir.DataType.FLOAT16: np.float16, ir.DataType.BFLOAT16: np.uint16}
_INTEGERS = {ir.DataType.UINT8: np.uint8, ir.DataType.INT8: np.int8}
_FOUR_BITS = (ir.DataType.INT4, ir.DataType.UINT4)
# The modules of a layer -> their names in the builder's graph. A list: one node each, or one node for all of them.
_PARTS = {
    "self_attn.qkv_proj": ("attn/qkv_proj", ["attn/q_proj", "attn/k_proj", "attn/v_proj"]),
    "self_attn.o_proj": ("attn/o_proj", []),
    "mlp.gate_up_proj": ("mlp/gate_up_proj", ["mlp/gate_proj", "mlp/up_proj"]),
    "mlp.down_proj": ("mlp/down_proj", []),
}


class UnreadableError(Exception):
    """The graph has a form that this module does not know."""


class OnnxWeights:
    """The weights of one graph."""

    def __init__(self, path: Path) -> None:
        self._graph = ir.load(path).graph
        self._matrices: dict[str, ir.Node] = {}
        for node in self._graph:
            match = _MATRIX.fullmatch(node.name or "")
            if match and node.op_type in ("MatMul", "MatMulNBits", "Gather", "GatherBlockQuantized"):
                self._matrices.setdefault(match[1], node)

    @property
    def activations(self) -> ir.DataType:
        """The type in which the graph computes: its KV cache's."""
        for value in self._graph.inputs:
            if (value.name or "").startswith("past") and value.dtype is not None:
                return value.dtype
        raise UnreadableError("the graph has no KV cache")

    def of(self, model: torch.nn.Module) -> dict[str, Weight]:
        """Return the weight of every module of a Phi-3 model that has one, by the name of the parameter.

        Raises:
            UnreadableError: a weight is missing, or stored in an unknown form.
        """
        weights = {}
        for name, parameter in _weights(model):
            weight = self._vector(name) if parameter.ndim == 1 else self._matrix(name.removesuffix(".weight"))
            if weight.shape != tuple(parameter.shape):
                raise UnreadableError(f"{name} has the shape {weight.shape} instead of {tuple(parameter.shape)}")
            weights[name] = weight
        return weights

    def _vector(self, name: str) -> Weight:
        """Return the weight of a norm."""
        final = [key for key in self._graph.initializers if re.fullmatch(_FINAL_NORM, key)]
        for initializer in [name, *(final if name == "model.norm.weight" else [])]:
            if initializer in self._graph.initializers:
                return FloatWeight(_floats(_tensor(self._graph.initializers[initializer])))
        raise UnreadableError(f"the graph has no {name}")

    def _matrix(self, module: str) -> Weight:
        """Return the weight of a linear layer or an embedding, which may be in several nodes."""
        layer, part = re.fullmatch(r"(model\.layers\.\d+)\.(.+)", module), ""
        whole = "/" + module.replace(".", "/")
        pieces: list[str] = []
        if layer:
            root, part = "/" + layer[1].replace("model.", "model/"), layer[2]
            if part not in _PARTS:
                raise UnreadableError(f"{module} is not a part of a Phi-3 layer")
            whole, pieces = f"{root}/{_PARTS[part][0]}", [f"{root}/{piece}" for piece in _PARTS[part][1]]
            traced = f"{root}/{part.replace('.', '/')}"  # optimum's
            whole = whole if whole in self._matrices else traced
        if whole in self._matrices:
            return _weight(self._matrices[whole])
        if pieces and all(piece in self._matrices for piece in pieces):
            return JoinedWeight([_weight(self._matrices[piece]) for piece in pieces])
        raise UnreadableError(f"the graph has no node for {module}")


def _weights(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """Yield each weight and its name. A tied matrix comes twice, under both names."""
    yield from model.named_parameters(remove_duplicate=False)


def _weight(node: ir.Node) -> Weight:
    """Return the weight of a node."""
    if node.op_type == "MatMulNBits":
        return _nbits(node)
    if node.op_type == "GatherBlockQuantized":
        return _gathered(node)
    value = node.inputs[0 if node.op_type == "Gather" else 1]
    transposed = node.op_type == "MatMul"  # MatMul has [inputs, outputs], PyTorch [outputs, inputs]
    producer = value.producer() if value is not None else None
    if producer is not None and producer.op_type == "Transpose":
        value, transposed = producer.inputs[0], not transposed
        producer = value.producer() if value is not None else None
    if producer is not None and producer.op_type == "DequantizeLinear":
        return _dequantised(producer, transposed)
    array = _floats(_tensor(value))
    return FloatWeight(array.T if transposed else array)


def _nbits(node: ir.Node) -> Weight:
    """Return the weight of a MatMulNBits node: blocks of one row each, packed from the low bits on."""
    bits, size, columns = (_integer(node, name) for name in ("bits", "block_size", "K"))
    data, scales = _tensor(node.inputs[1]), _floats(_tensor(node.inputs[2]))
    if (
        any(value is not None for value in node.inputs[4:5])
        or "weight_prepacked" in node.attributes
        or bits not in (4, 8)
    ):
        raise UnreadableError(f"{node.name} has an order of columns, or a layout, that is not known")
    rows, blocks = data.shape[0], data.shape[1]
    packed = _raw(data).reshape(int(rows), -1)
    zeros = _tensor(node.inputs[3]) if len(node.inputs) > 3 and node.inputs[3] is not None else None
    return BlockWeight(
        packed, scales.reshape(int(rows), int(blocks)), _zeros(zeros, int(rows), bits), bits, size, columns
    )


def _gathered(node: ir.Node) -> Weight:
    """Return the weight of a GatherBlockQuantized node, which may share the matrix of a MatMulNBits node."""
    value = node.inputs[0]
    producer = value.producer() if value is not None else None
    data = _tensor(producer.inputs[0] if producer is not None and producer.op_type == "Reshape" else value)
    if _integer(node, "quantize_axis", 1) != 1 or _integer(node, "gather_axis", 0) != 0:
        raise UnreadableError(f"{node.name} is quantised along another axis")
    bits, size = _integer(node, "bits", 4), _integer(node, "block_size")
    rows = int(data.shape[0])
    packed = _raw(data).reshape(rows, -1)
    scales = _floats(_tensor(node.inputs[2])).reshape(rows, -1)
    zeros = _tensor(node.inputs[3]) if len(node.inputs) > 3 and node.inputs[3] is not None else None
    signed = data.dtype in (ir.DataType.INT4, ir.DataType.INT8)
    default = np.zeros((1, 1), np.float32) if data.dtype in _FOUR_BITS else None
    offsets = default if zeros is None and default is not None else _zeros(zeros, rows, bits)
    return BlockWeight(packed, scales, offsets, bits, size, packed.shape[1] * 8 // bits, signed)


def _dequantised(node: ir.Node, transposed: bool) -> Weight:
    """Return the weight that a DequantizeLinear node makes: the QDQ format."""
    data = _tensor(node.inputs[0])
    axis, size = _integer(node, "axis", 1), _integer(node, "block_size", 0)
    if axis != 0 or not size or len(data.shape) != 2 or not transposed:
        raise UnreadableError(f"{node.name} is quantised along another axis")
    codes, scales = _integers(data), _floats(_tensor(node.inputs[1]))
    offsets = _integers(_tensor(node.inputs[2])).T if len(node.inputs) > 2 and node.inputs[2] is not None else None
    zeros = np.zeros((1, 1), np.float32) if offsets is None else offsets
    return BlockWeight(
        codes.T, scales.T, zeros, 8, size, int(data.shape[0]), data.dtype in (ir.DataType.INT4, ir.DataType.INT8)
    )


def _zeros(tensor: Any, rows: int, bits: int) -> np.ndarray:
    """Return the zero points of a matrix by row and block. Without a tensor it is the middle of the range."""
    if tensor is None:
        return np.full((1, 1), 1 << (bits - 1), np.float32)
    if tensor.dtype in _NUMPY:
        return _floats(tensor).reshape(rows, -1)
    packed = _raw(tensor).reshape(rows, -1)
    return unpacked(packed) if bits == 4 else packed


def unpacked(packed: np.ndarray) -> np.ndarray:
    """Return the two 4-bit numbers in each byte of the last axis, the lower one first."""
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:-1], -1)


def _integers(tensor: Any) -> np.ndarray:
    """Return a tensor of integers, one number in a byte."""
    shape = tuple(int(size) for size in tensor.shape)
    if tensor.dtype in _FOUR_BITS:
        flat = unpacked(_raw(tensor))[: int(np.prod(shape))]
        if tensor.dtype == ir.DataType.INT4:
            flat = ((flat ^ 8).astype(np.int8) - 8).astype(np.int8)
        return flat.reshape(shape)
    if tensor.dtype in _INTEGERS:
        return _raw(tensor).view(_INTEGERS[tensor.dtype]).reshape(shape)
    raise UnreadableError(f"{tensor.name} has the type {tensor.dtype}")


def _floats(tensor: Any) -> np.ndarray:
    """Return a tensor of floats as it is stored; bfloat16 as its upper 16 bits."""
    if tensor.dtype not in _NUMPY:
        raise UnreadableError(f"{tensor.name} has the type {tensor.dtype}")
    return _raw(tensor).view(_NUMPY[tensor.dtype]).reshape(tuple(int(size) for size in tensor.shape))


def _raw(tensor: Any) -> np.ndarray:
    """Return the bytes of a tensor, mapped into memory if they are in a file."""
    if isinstance(tensor, ir.ExternalTensor):
        return np.memmap(tensor.path, np.uint8, "r", tensor.offset or 0, (tensor.nbytes,))
    return np.frombuffer(tensor.tobytes(), np.uint8)


def _tensor(value: ir.Value | None) -> Any:
    """Return the data of a constant: an initializer, or the output of a Constant node."""
    if value is not None and value.const_value is not None:
        return value.const_value
    producer = value.producer() if value is not None else None
    if producer is not None and producer.op_type == "Constant" and "value" in producer.attributes:
        return producer.attributes["value"].as_tensor()
    if producer is not None and producer.op_type == "Identity":
        return _tensor(producer.inputs[0])
    raise UnreadableError(f"{value.name if value else 'an input'} is computed, not stored")


def _integer(node: ir.Node, name: str, default: int | None = None) -> int:
    if name in node.attributes:
        return int(node.attributes[name].as_int())
    if default is None:
        raise UnreadableError(f"{node.name} has no attribute {name}")
    return default
