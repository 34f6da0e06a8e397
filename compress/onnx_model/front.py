"""What comes before a stranger's graph: from `images` uint8 [N, H, W, C] or `input_ids` int64 [N, L] to its inputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from compress.onnx_model.description import OnnxDescription, Pixels
from serve.errors import UserError
from serve.manifest import ImagePreprocessing

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
_INTEGERS = (TensorProto.INT64, TensorProto.INT32)
MASK, TYPES = "attention_mask", "token_type_ids"
BATCH, _LENGTH = "batch", "length"
INNER = "model/"  # before every name of the user's graph, so that none of ours can be one of theirs


def image_front(
    inputs: list[onnx.ValueInfoProto], described: OnnxDescription, graph: onnx.GraphProto, origin: str
) -> list[onnx.NodeProto]:
    """From uint8 pixels to what the graph takes; its input becomes `images`."""
    spec, pixels = described.preprocessing, described.pixels
    assert isinstance(spec, ImagePreprocessing)
    if len(inputs) != 1:
        raise _unexpected(origin, inputs, "one input of images")
    value, kind = inputs[0], inputs[0].type.tensor_type.elem_type
    takes_bytes = kind == TensorProto.UINT8
    if pixels is None and not takes_bytes:
        raise UserError(
            f"{origin} takes '{value.name}' as {_named(kind)}, and nothing says how pixels become that",
            "describe it under [pixels]: layout, mean, std; mean 0 and std 1 for pixels that are only divided by 255",
        )
    if pixels is not None and takes_bytes:
        raise UserError(f"{origin} takes uint8 pixels as they are, so [pixels] means nothing", "leave it out")
    if not takes_bytes and kind not in FLOATS:
        raise _unexpected(origin, inputs, "an input of float or uint8")
    layout = pixels.layout if pixels is not None else "NHWC"
    height, width, channels = spec.shape
    wanted = (channels, height, width) if layout == "NCHW" else (height, width, channels)
    shape = dims(value)
    if len(shape) != 4 or any(
        isinstance(found, int) and found != size for found, size in zip(shape[1:], wanted, strict=True)
    ):
        raise UserError(
            f"{origin} takes '{value.name}' of shape {_spoken(shape)}, but the description gives [N, "
            f"{', '.join(map(str, wanted))}] ({layout})",
            "mend preprocessing.size, preprocessing.color or pixels.layout",
        )
    _replace_inputs(graph, helper.make_tensor_value_info("images", TensorProto.UINT8, [BATCH, *spec.shape]))
    return _pixel_nodes(pixels, layout, kind, INNER + value.name, graph)


def _pixel_nodes(
    pixels: Pixels | None, layout: str, kind: int, target: str, graph: onnx.GraphProto
) -> list[onnx.NodeProto]:
    """Transpose, cast, multiply, add: in the order of our own front, which quantizers leave in floating point."""
    if pixels is None:
        return [helper.make_node("Identity", ["images"], [target], name="front/identity")]
    std, mean = np.array(pixels.std), np.array(pixels.mean)
    shape = (1, -1, 1, 1) if layout == "NCHW" else (1, 1, 1, -1)
    for name, values in (("scale", 1 / (255 * std)), ("shift", -mean / std)):
        graph.initializer.append(numpy_helper.from_array(values.reshape(shape).astype(np.float32), f"front/{name}"))
    nodes, last = [], "images"
    if layout == "NCHW":
        nodes.append(helper.make_node("Transpose", [last], ["front/nchw"], name="front/transpose", perm=[0, 3, 1, 2]))
        last = "front/nchw"
    nodes += [
        helper.make_node("Cast", [last], ["front/float"], name="front/cast", to=TensorProto.FLOAT),
        helper.make_node("Mul", ["front/float", "front/scale"], ["front/scaled"], name="front/scale"),
        helper.make_node("Add", ["front/scaled", "front/shift"], ["front/shifted"], name="front/shift"),
        helper.make_node("Cast", ["front/shifted"], [target], name="front/to_model", to=kind),
    ]
    return nodes


def text_front(
    inputs: list[onnx.ValueInfoProto], pad_id: int, graph: onnx.GraphProto, origin: str
) -> list[onnx.NodeProto]:
    """Mask and token types from the ids; the graph's inputs become `input_ids`."""
    by_name = {value.name: value for value in inputs}
    others = [name for name in by_name if name not in (MASK, TYPES)]
    if len(others) != 1 or any(value.type.tensor_type.elem_type not in _INTEGERS for value in inputs):
        raise _unexpected(origin, inputs, f"ids of tokens and perhaps {MASK} and {TYPES}")
    for value in inputs:
        shape = dims(value)
        if len(shape) != 2 or isinstance(shape[1], int):
            raise UserError(
                f"{origin} takes '{value.name}' of shape {_spoken(shape)}, not of any number of tokens",
                "export it with a dynamic second axis: dynamic_shapes in torch.onnx.export, or dynamic_axes",
            )
    _replace_inputs(graph, helper.make_tensor_value_info("input_ids", TensorProto.INT64, [BATCH, _LENGTH]))
    graph.initializer.append(numpy_helper.from_array(np.array(pad_id, np.int64), "front/pad_id"))
    nodes = [_cast("input_ids", by_name[others[0]])]
    if MASK in by_name:
        nodes += [
            helper.make_node("Equal", ["input_ids", "front/pad_id"], ["front/padding"], name="front/equal"),
            helper.make_node("Not", ["front/padding"], ["front/kept"], name="front/not"),
            _cast("front/kept", by_name[MASK]),
        ]
    if TYPES in by_name:  # one text, so all of them are 0
        nodes.append(helper.make_node("Sub", ["input_ids", "input_ids"], ["front/zeros"], name="front/zeros"))
        nodes.append(_cast("front/zeros", by_name[TYPES]))
    return nodes


def _cast(source: str, value: onnx.ValueInfoProto) -> onnx.NodeProto:
    kind = value.type.tensor_type.elem_type
    return helper.make_node("Cast", [source], [INNER + value.name], name=f"front/{value.name}", to=kind)


def _replace_inputs(graph: onnx.GraphProto, value: onnx.ValueInfoProto) -> None:
    del graph.input[:]
    graph.input.append(value)


def dims(value: onnx.ValueInfoProto) -> list[int | str]:
    """The shape: sizes, and names of axes that may be of any size ("?" without one). Of no rank: empty."""
    axes = value.type.tensor_type.shape.dim
    return [axis.dim_value if axis.HasField("dim_value") else axis.dim_param or "?" for axis in axes] or ["?"]


def _spoken(shape: Sequence[int | str]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _named(kind: int) -> str:
    return TensorProto.DataType.Name(kind).lower()


def _unexpected(origin: str, inputs: list[onnx.ValueInfoProto], expected: str) -> UserError:
    found = ", ".join(
        f"{value.name} {_named(value.type.tensor_type.elem_type)} {_spoken(dims(value))}" for value in inputs
    )
    return UserError(f"{origin} takes {found or 'nothing'}: expected {expected}", "export the classifier alone")
