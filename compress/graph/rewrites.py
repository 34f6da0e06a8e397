"""Every rewrite there is, in the order in which they are tried: each is tried on what those before it have left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx

from compress.graph.batch_norm import fold_batch_norms
from compress.graph.lone_query import ask_for_one
from compress.graph.mask import shorten_masks
from compress.graph.one_product import join_products
from compress.graph.plain_shapes import fix_reshapes
from compress.graph.positions import cut_positions
from compress.graph.residual import sum_residuals
from compress.graph.token_types import fold_token_type
from compress.graph.tokens_first import put_tokens_first


@dataclass(frozen=True)
class Rewrite:
    """A function from a graph to a graph that computes the same, which is unchanged where it does not fit."""

    name: str
    what: str  # as a report's reader meets it
    apply: Callable[[onnx.ModelProto], onnx.ModelProto]
    needs: frozenset[str]  # operators without which it cannot fit, so that it need not be tried


REWRITES = (
    Rewrite("lone-query", "the last attention asked for one token alone", ask_for_one, frozenset(["Softmax"])),
    Rewrite(
        "residual-sum",
        "residual and layer norm kept apart",
        sum_residuals,
        frozenset(["LayerNormalization"]),
    ),
    Rewrite("tokens-first", "tokens before texts between the layers", put_tokens_first, frozenset(["Softmax"])),
    Rewrite("one-product", "queries, keys and values in one product", join_products, frozenset(["Softmax"])),
    Rewrite("plain-shapes", "shapes that are not computed anew", fix_reshapes, frozenset(["Reshape", "Shape"])),
    Rewrite("short-mask", "the attention mask in fewer steps", shorten_masks, frozenset(["Not", "Cast", "Sub"])),
    Rewrite("token-type", "the token type in the table of positions", fold_token_type, frozenset(["Gather", "Add"])),
    Rewrite("positions", "positions cut from their table", cut_positions, frozenset(["Gather", "Slice"])),
    Rewrite("batch-norm", "batch norm in the weights before it", fold_batch_norms, frozenset(["BatchNormalization"])),
)


def try_on(rewrite: Rewrite, model: onnx.ModelProto) -> onnx.ModelProto | None:
    """The rewritten graph, checked by ONNX; None where nothing in `model` fits."""
    if not rewrite.needs <= {node.op_type for node in model.graph.node}:
        return None
    changed = rewrite.apply(model)
    if _operators(changed) == _operators(model):
        return None
    onnx.checker.check_model(changed)
    return changed


def _operators(model: onnx.ModelProto) -> list[tuple[str, tuple[str, ...]]]:
    return [(node.op_type, tuple(node.input)) for node in model.graph.node]
