"""x + f(x) before a layer norm as Sum instead of Add, so that ONNX Runtime leaves the two apart.

It would make one SkipLayerNormalization of an Add and a LayerNormalization, whose CPU kernel takes some three times as
long as the two (57 us against 18 us at 32 x 384, onnxruntime 1.31). The Sum of two tensors is the same addition, and is
not in the pattern of that fusion (onnxruntime/core/optimizer/skip_layer_norm_fusion.cc).
"""

from __future__ import annotations

import onnx

from compress.graph.values import Writer, constant, made_by, nodes, read, replace, write


def sum_residuals(model: onnx.ModelProto) -> onnx.ModelProto:
    """Every Add of two activations that a LayerNormalization reads, as a Sum."""
    graph = read(model)
    for norm in nodes(graph, "LayerNormalization"):
        add = made_by(norm.inputs[0], "Add")
        if add is None or any(constant(value) is not None for value in add.inputs) or add.outputs[0].is_graph_output():
            continue
        new = Writer(graph, add, add.outputs[0].name).one("Sum", list(add.inputs))
        replace(add.outputs[0], new)
    return write(graph)
