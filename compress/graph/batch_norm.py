"""Batch norm in the weights of the convolution before it, by onnxscript's own rules.

An evaluated batch norm is a multiplication and an addition by channel (Ioffe & Szegedy 2015, section 3.1). Most graphs
come without: the exporter's simplifier and ONNX Runtime fold what they find.
"""

from __future__ import annotations

import onnx
from onnxscript.rewriter import RewriteRuleSet
from onnxscript.rewriter.rules.common import (
    fuse_batchnorm_into_conv_rule,
    fuse_batchnorm_into_conv_transpose_rule,
    fuse_batchnorm_into_gemm_rule,
)

from compress.graph.values import read, write

_RULES = (fuse_batchnorm_into_conv_rule, fuse_batchnorm_into_conv_transpose_rule, fuse_batchnorm_into_gemm_rule)


def fold_batch_norms(model: onnx.ModelProto) -> onnx.ModelProto:
    """Conv, ConvTranspose or Gemm with constant weights, and the BatchNormalization that alone reads it, as one."""
    graph = read(model)
    RewriteRuleSet(list(_RULES)).apply_to_model(graph)
    return write(graph)
