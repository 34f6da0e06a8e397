"""Where a graph splits a token into heads: the products of which attention is made. N texts, L tokens, H hidden,
A heads of D."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from compress.graph.values import constant, dims, made_by, permutation

BY_HEAD, BY_HEAD_TURNED = (0, 2, 1, 3), (0, 2, 3, 1)
TOKENS_FIRST, TOKENS_FIRST_TURNED = (1, 2, 0, 3), (1, 2, 3, 0)  # the same from [L, N, A, D]


@dataclass(frozen=True)
class Heads:
    """x [N, L, H] -> MatMul -> Add -> Reshape [N, L, A, D] -> Transpose [N, A, L, D], or [N, A, D, L] if `turned`.

    Where tokens come first, the same from x [L, N, H] and [L, N, A, D].
    """

    source: ir.Value
    weight: np.ndarray  # [H, A * D]
    bias: np.ndarray  # [A * D]; zero where there is none
    heads: int
    width: int
    turned: bool
    tokens_first: bool
    end: ir.Value


def heads_at(end: ir.Value | None) -> Heads | None:
    """What is split into heads to make `end`; None where it is made otherwise, or what lies between is read besides."""
    transpose = made_by(end, "Transpose")
    reshape = made_by(transpose.inputs[0], "Reshape") if transpose is not None else None
    if end is None or transpose is None or reshape is None:
        return None
    turn = permutation(transpose)
    if turn not in (BY_HEAD, BY_HEAD_TURNED, TOKENS_FIRST, TOKENS_FIRST_TURNED):
        return None
    summed = made_by(reshape.inputs[0], "Add")
    bias = next((found for found in map(constant, summed.inputs) if found is not None), None) if summed else None
    product = reshape.inputs[0] if summed is None else next((v for v in summed.inputs if constant(v) is None), None)
    node = made_by(product, "MatMul")
    weight = constant(node.inputs[1]) if node is not None else None
    if node is None or weight is None or weight.ndim != 2 or (summed is not None and bias is None):
        return None
    if bias is None:
        bias = np.zeros(weight.shape[1], dtype=weight.dtype)
    split, before = dims(reshape.outputs[0]), dims(node.outputs[0])
    if split is None or before is None or len(split) != 4 or len(before) != 3 or split[:2] != before[:2]:
        return None
    heads, width = split[2:]
    if not isinstance(heads, int) or not isinstance(width, int) or bias.shape != (heads * width,):
        return None
    between = [reshape.inputs[0], reshape.outputs[0], *([product] if summed is not None else [])]
    if any(value is None or len(list(value.uses())) != 1 for value in between) or node.inputs[0] is None:
        return None
    turned, tokens_first = turn in (BY_HEAD_TURNED, TOKENS_FIRST_TURNED), turn in (TOKENS_FIRST, TOKENS_FIRST_TURNED)
    return Heads(node.inputs[0], weight, bias, heads, width, turned, tokens_first, end)
