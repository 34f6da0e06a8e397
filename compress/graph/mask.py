"""The attention mask in fewer steps: what is padding, straight from a comparison.

transformers makes (1 - int(not padding)) * lowest of a boolean (transformers/masking_utils.py); 1 - [not p] is [p].
"""

from __future__ import annotations

from typing import Any

import onnx
import onnx_ir as ir
from onnxscript.rewriter import MatchResult, RewriteRuleClassBase, RewriteRuleSet

from compress.graph.values import constant, read, write


class _OneMinusNot(RewriteRuleClassBase):
    """Sub(1, Cast(Cast(Not(p)))) -> Cast(p), and the same with one Cast."""

    def pattern(self, op: Any, one: ir.Value, padding: ir.Value) -> Any:
        return op.Sub(one, op.Cast(op.Cast(op.Not(padding)), _outputs=["floats"]))

    def check(self, op: Any, *_: Any, **matched: Any) -> MatchResult:
        content = constant(matched["one"])
        is_one = content is not None and content.size == 1 and float(content.reshape(())) == 1.0
        return MatchResult() if is_one else MatchResult().fail("subtracted from something else than 1")

    def rewrite(self, op: Any, padding: ir.Value, floats: ir.Value, **_: Any) -> Any:
        cast = floats.producer()
        assert cast is not None
        return op.Cast(padding, to=cast.attributes["to"].as_int())


def shorten_masks(model: onnx.ModelProto) -> onnx.ModelProto:
    """Every mask that is one minus a negation, without either."""
    graph = read(model)
    RewriteRuleSet([_OneMinusNot.rule()]).apply_to_model(graph)
    return write(graph)
