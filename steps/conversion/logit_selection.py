"""Let whoever runs a decoder graph select the positions whose logits it computes.

Reading a prompt needs the logits of the last token alone. The other tokens only need their keys and values. So the last
layer after its attention, and the head, work on the selected positions:

    attention ---> Slice ---> projection ---> norm(sum of both) ---> MLP ---> head ---> logits [batch, selected]
    residual ----> Slice ------------------------^

The weights stay as they are. The new input has a default, so a runtime that does not know it gets all logits.
"""

import numpy as np
import onnx_ir as ir

from steps.chat.runtime.graph import FIRST_LOGIT


def select_logits(graph: ir.Graph) -> set[ir.Value]:
    """Give the graph an input FIRST_LOGIT [1], int64, default 0: the first position whose logits are computed.

    Returns:
        The outputs of the two new Slice nodes. The set is empty, and the graph unchanged, if the graph does not end
        with attention, projection and norm.
    """
    attention = [node for node in graph if node.op_type == "GroupQueryAttention"][-1:]
    projections = [node for last in attention for node in last.outputs[0].consumers()]
    norms = [node for projection in projections for node in projection.outputs[0].consumers()]
    if len(projections) != 1 or [node.op_type for node in norms] != ["SkipSimplifiedLayerNormalization"]:
        return set()
    limits = [
        _constant(graph, FIRST_LOGIT, 0),
        _constant(graph, "last_logit", np.iinfo(np.int64).max),
        _constant(graph, "logit_axis", 1),
    ]
    graph.inputs.append(limits[0])
    projection, norm = projections[0], norms[0]
    return {
        _slice_first_input(graph, projection, attention[0].outputs[0], limits),
        _slice_first_input(graph, norm, norm.inputs[0], limits),
    }


def _constant(graph: ir.Graph, name: str, number: int) -> ir.Value:
    """Add an initializer [1], int64, to the graph."""
    tensor = ir.tensor(np.array([number], np.int64), name=name)
    value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape([1]), const_value=tensor)
    graph.register_initializer(value)
    return value


def _slice_first_input(graph: ir.Graph, node: ir.Node, value: ir.Value | None, limits: list[ir.Value]) -> ir.Value:
    """Put a Slice between a node and its first input, which is `value`. Return the output of the Slice."""
    if value is None:
        raise TypeError(f"{node.name} has no first input")
    out = ir.Value(name=f"{value.name}/wanted", type=value.type)
    graph.append(ir.node("Slice", [value, *limits], outputs=[out], name=f"{node.name}/Slice"))
    node.replace_input_with(0, out)
    return out


def name_length(graph: ir.Graph, values: set[ir.Value], name: str) -> None:
    """Name the second dimension of everything that is computed from `values`. The nodes must be in order.

    ONNX Runtime plans to reuse memory between values whose dimensions have the same name. The selected positions are
    fewer than the sequence, so their dimension must not keep the sequence's name.
    """
    shorter = set(values)
    for node in graph:
        if shorter.intersection(node.inputs):
            for value in node.outputs:
                shorter.add(value)
                if value.shape is not None and len(value.shape) == 3 and not isinstance(value.shape[1], int):
                    value.shape = ir.Shape([value.shape[0], name, value.shape[2]])
