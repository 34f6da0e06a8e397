"""Positions cut from their table in one piece, where they count from zero: Slice instead of Slice, Gather and, where
tables are quantized, DequantizeLinear.

L tokens, P positions known, H hidden.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from compress.graph.values import Writer, axis, constant, made_by, nodes, read, replace, write


def cut_positions(model: onnx.ModelProto) -> onnx.ModelProto:
    """table[at[:, :L]], at [1, P] the numbers from 0 on, as table[None, :P][:, :L]: float32 [1, L, H] both."""
    graph = read(model)
    for gather, rows, cut, numbers in _looked_up(graph):
        add = Writer(graph, gather, gather.outputs[0].name)
        table = add.constant(rows[None, : numbers.shape[1]])
        replace(gather.outputs[0], add.one("Slice", [table, *cut.inputs[1:]]))
    return write(graph)


def trim_positions(model: onnx.ModelProto, length: int) -> onnx.ModelProto:
    """The positions of `length` tokens alone, of a graph that is never given more; a table read elsewhere too stays."""
    graph = read(model)
    longer = [found for found in _looked_up(graph) if len(found[1]) > length]
    for gather, rows, cut, numbers in longer:
        add = Writer(graph, cut, cut.outputs[0].name)
        cut.replace_input_with(0, add.constant(numbers[:, :length]))
        gather.replace_input_with(0, add.constant(rows[:length]))
    return write(graph) if longer else model


def _looked_up(graph: ir.Model) -> list[tuple[ir.Node, np.ndarray, ir.Node, np.ndarray]]:
    """Each Gather of rows [P, H] by the first of the numbers [1, P] from 0 on; the rows, the Slice, and the numbers."""
    found = []
    for gather in nodes(graph, "Gather"):
        rows, cut = constant(gather.inputs[0]), made_by(gather.inputs[1], "Slice")
        numbers = constant(cut.inputs[0]) if cut is not None else None
        if rows is None or rows.ndim != 2 or axis(gather, 0) != 0 or cut is None or numbers is None:
            continue
        starts, axes, steps = ([constant(value) for value in (cut.inputs[1], *cut.inputs[3:])] + [None] * 2)[:3]
        by_ones = steps is None or steps.tolist() == [1]
        of_columns = axes is not None and axes.tolist() == [1] and starts is not None and starts.tolist() == [0]
        counts = numbers.ndim == 2 and numbers.tolist() == [list(range(numbers.shape[1]))]
        if by_ones and of_columns and counts and numbers.shape[1] <= len(rows):
            found.append((gather, rows, cut, numbers))
    return found
