"""int8-weights and int4-weights: small files. Weights are integers on disk and floats again once they are loaded.

Cast, Mul and Reshape of constants are folded by ONNX Runtime when it opens the graph, so that it runs exactly as fast
as fp32 and takes as much memory; activations are never rounded, so an answer does not depend on the batch. The
runtime's own MatMulNBits, which unpacks weights at each call, took twice the time of int8-dynamic with 4 bits, and with
8 bits longer than fp32, on three layers of MiniLM at 32 tokens. Tables that are only looked up stay integers in memory.

K rows, N columns of a weight; B rows that share a scale; V tokens known, H hidden.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper, version_converter

from compress.quantize.config import Quantize
from compress.quantize.embeddings import is_table, looked_up, quantize_embeddings
from serve.errors import UserError, said

_OPSET_WITH_INT4 = 21
_OPSET_OF_EXPORTS = 18
_INT8, _INT4 = 127, 7
_SMALLEST = 64  # elements: a smaller weight is not worth a node
_TABLE_BLOCK = 32


def quantize_weights(model: onnx.ModelProto, config: Quantize, bits: int) -> bytes:
    """The graph with its weights at `bits` (8 or 4) on disk. Weights of convolutions get 8 in either case."""
    if bits == 4:
        model = _with_inputs_as_of_18(model)
    graph = model.graph
    tables = looked_up(model, is_table, config.exclude) if config.embeddings != "none" else {}
    if tables and (bits == 8 or config.embeddings != "auto"):
        model = quantize_embeddings(model, "row" if config.embeddings == "auto" else config.embeddings, config.exclude)
    elif tables:
        _tables_in_int4(model, tables, config.exclude)
    kept = {name for node in graph.node if node.name in config.exclude for name in node.input}
    before: list[NodeProto] = []
    for tensor in list(graph.initializer):
        products = [node for node in graph.node if tensor.name in node.input]
        if tensor.name in kept or not _is_weight(tensor, products):
            continue
        matrix = len(tensor.dims) == 2 and all(node.op_type != "Conv" for node in products)
        by_block = bits == 4 and matrix and tensor.dims[0] % config.block_size == 0
        parts, nodes = (
            _in_int4(tensor, config.block_size)
            if by_block
            else _in_int8(tensor, _axis(products[0]), config.per_channel)
        )
        graph.initializer.remove(tensor)
        graph.initializer.extend(parts)
        before += nodes
    for at, node in enumerate(before):
        graph.node.insert(at, node)
    if bits == 4:
        _raise_opset(model)
    content: bytes = model.SerializeToString()
    return content


def _is_weight(tensor: TensorProto, readers: list[NodeProto]) -> bool:
    """Whether it is the second factor of nothing but products and convolutions."""
    floats = tensor.data_type == TensorProto.FLOAT and len(tensor.dims) >= 2
    return (
        floats
        and np.prod(tensor.dims) >= _SMALLEST
        and bool(readers)
        and all(node.op_type in ("MatMul", "Gemm", "Conv") and node.input[1] == tensor.name for node in readers)
    )


def _axis(product: NodeProto) -> int:
    """The axis of the output channels."""
    transposed = any(attribute.name == "transB" and attribute.i for attribute in product.attribute)
    return 0 if product.op_type == "Conv" or transposed else -1


def _in_int8(tensor: TensorProto, axis: int, per_channel: bool) -> tuple[list[TensorProto], list[NodeProto]]:
    """Levels int8 of the weight's shape, and scales that broadcast over all but `axis`; nodes that multiply them."""
    weights, name = numpy_helper.to_array(tensor), tensor.name
    others = tuple(at for at in range(weights.ndim) if at != axis % weights.ndim) if per_channel else None
    levels, scale = _rounded(weights, others, _INT8)
    parts = [numpy_helper.from_array(levels, f"{name}_int8"), numpy_helper.from_array(scale, f"{name}_scale")]
    return parts, _product(name, f"{name}_int8", name)


def _in_int4(tensor: TensorProto, block: int) -> tuple[list[TensorProto], list[NodeProto]]:
    """Levels int4 [K / B, B, N] and scales float32 [K / B, 1, N]; nodes that make [K, N] of them."""
    weights, name = numpy_helper.to_array(tensor), tensor.name
    rows, columns = weights.shape
    levels, scale = _rounded(weights.reshape(rows // block, block, columns), (1,), _INT4)
    parts = [
        _packed(levels, f"{name}_int4"),
        numpy_helper.from_array(scale, f"{name}_scale"),
        numpy_helper.from_array(np.array(weights.shape, dtype=np.int64), f"{name}_shape"),
    ]
    blocks = f"{name}_blocks"
    shaped = helper.make_node("Reshape", [blocks, f"{name}_shape"], [name], name=f"{name}_whole")
    return parts, [*_product(name, f"{name}_int4", blocks), shaped]


def _product(name: str, levels: str, output: str) -> list[NodeProto]:
    floats = f"{name}_levels"
    return [
        helper.make_node("Cast", [levels], [floats], name=f"{name}_cast", to=TensorProto.FLOAT),
        helper.make_node("Mul", [floats, f"{name}_scale"], [output], name=f"{name}_scaled"),
    ]


def _rounded(weights: np.ndarray, axes: tuple[int, ...] | None, largest_level: int) -> tuple[np.ndarray, np.ndarray]:
    """Levels int8 and scales float32, one over all of `axes`, from the largest weight there."""
    largest = np.abs(weights).max(axis=axes, keepdims=True)
    scale = np.where(largest > 0, largest / largest_level, 1).astype(np.float32)
    return np.clip(np.round(weights / scale), -largest_level, largest_level).astype(np.int8), scale


def _packed(levels: np.ndarray, name: str) -> TensorProto:
    """int4 as ONNX packs it: two in a byte, the first in its lower half."""
    nibbles = levels.reshape(-1).astype(np.uint8) & 15
    if len(nibbles) % 2:
        nibbles = np.append(nibbles, np.uint8(0))
    tensor = TensorProto(name=name, data_type=TensorProto.INT4, dims=levels.shape)
    tensor.raw_data = (nibbles[0::2] | (nibbles[1::2] << 4)).tobytes()
    return tensor


def _tables_in_int4(model: onnx.ModelProto, tables: dict[str, TensorProto], exclude: tuple[str, ...]) -> None:
    """Lookups that dequantize the rows they take: com.microsoft.GatherBlockQuantized. Odd widths get int8."""
    for name, tensor in tables.items():
        if tensor.dims[1] % _TABLE_BLOCK:
            continue
        weights = numpy_helper.to_array(tensor)
        levels, scale = _rounded(weights.reshape(len(weights), -1, _TABLE_BLOCK), (2,), _INT4)
        model.graph.initializer.remove(tensor)
        model.graph.initializer.append(_packed(levels.reshape(weights.shape), f"{name}_int4"))
        model.graph.initializer.append(numpy_helper.from_array(scale[..., 0], f"{name}_scale"))
        for node in model.graph.node:
            if node.input and node.input[0] == name:
                ids, rows = node.input[1], node.output[0]
                node.CopyFrom(
                    helper.make_node(
                        "GatherBlockQuantized",
                        [f"{name}_int4", ids, f"{name}_scale"],
                        [rows],
                        name=node.name,
                        domain="com.microsoft",
                        block_size=_TABLE_BLOCK,
                        gather_axis=0,
                        quantize_axis=1,
                    )
                )
    quantize_embeddings(model, "row", exclude)


def _with_inputs_as_of_18(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` at opset 18 at least, in which what were attributes (the axes of a ReduceMean) are inputs."""
    version = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if version >= _OPSET_OF_EXPORTS:
        return model
    try:
        return version_converter.convert_version(model, _OPSET_OF_EXPORTS)
    except Exception as error:  # the converter raises RuntimeError and others, by operator
        raise UserError(
            f"int4-weights needs opset {_OPSET_WITH_INT4}; the graph is of opset {version} and cannot be converted: "
            f"{said(error)}",
            f"export it with opset {_OPSET_OF_EXPORTS}, or take int8-weights for this model",
        ) from None


def _raise_opset(model: onnx.ModelProto) -> None:
    """int4 came with opset 21, which since 18 changed types that operators take, and the meaning of one alone."""
    entry = next(entry for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if entry.version < _OPSET_WITH_INT4 and any(node.op_type == "GroupNormalization" for node in model.graph.node):
        raise UserError(
            f"int4-weights needs opset {_OPSET_WITH_INT4}, in which GroupNormalization means something else",
            "take int8-weights for this model",
        )
    entry.version = max(entry.version, _OPSET_WITH_INT4)
    if all(entry.domain != "com.microsoft" for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
