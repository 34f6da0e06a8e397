"""Read a stranger's ONNX file: refuse what is no ONNX, what reaches outside its folder, and what ONNX Runtime lacks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx import external_data_helper, inliner

from serve.errors import UserError, did_you_mean, said

MAX_BYTES = 2**31 - 1  # protobuf holds no more, and a package has its weights in the one file
MIN_OPSET = 7  # what ONNX Runtime runs at all
_DOMAINS = ("", "ai.onnx", "com.microsoft")  # the standard's operators, and ONNX Runtime's own
_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")  # torch.save's archives; pickles
_EXPORT_AGAIN = "export it with torch.onnx.export(..., dynamo=True), or with the converter of your framework"


def read_onnx(file: Path) -> onnx.ModelProto:
    """The model in `file`, its weights inside and its local functions inlined. Raises UserError.

    Weights in files of their own are read where these lie in the model's folder, and refused elsewhere.
    """
    content = _read_bytes(file)
    if content.startswith(_PICKLES):
        raise UserError(f"{file} is no ONNX file but a pickle, as torch.save writes: it is never opened", _EXPORT_AGAIN)
    try:
        model = onnx.load_model_from_string(content)
    except Exception:  # protobuf's own kinds, by its version
        raise UserError(
            f"{file} is no ONNX file", "expected a model that torch.onnx.export or the like wrote"
        ) from None
    if not model.graph.node or not model.opset_import:
        raise UserError(f"{file} is no ONNX model: there is no graph in it", "copy the file again")
    _take_weights_in(model, file)
    if model.functions:
        model = inliner.inline_local_functions(model)
    check_operators(model, str(file))
    return model


def _read_bytes(file: Path) -> bytes:
    try:
        _check_size(file, file.stat().st_size)
        return file.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the model {file}: {error.strerror}", "expected an ONNX file") from None


def _check_size(file: Path, size: int) -> None:
    if size > MAX_BYTES:
        raise UserError(
            f"{file} has {size / 1e9:.1f} GB of weights, at most 2 GB are taken", "limbeck is for smaller models"
        )


def _take_weights_in(model: onnx.ModelProto, file: Path) -> None:
    """Read external data into `model`. Only plain files in the very folder of `file` are opened."""
    outside = [tensor for tensor in _tensors(model) if external_data_helper.uses_external_data(tensor)]
    names = {entry.value for tensor in outside for entry in tensor.external_data if entry.key == "location"}
    size = 0
    for name in sorted(names):
        data = file.parent / name
        if Path(name).name != name or data.is_symlink():
            raise UserError(
                f"{file} has weights in '{name}', outside of its folder, which is never opened",
                "save it as one file: onnx.save(onnx.load(FILE), NEW)",
            )
        if not data.is_file():
            raise UserError(f"{file} has weights in '{name}', which is missing", "copy it beside the model")
        size += data.stat().st_size
    _check_size(file, size)
    if outside:
        try:
            external_data_helper.load_external_data_for_model(model, str(file.parent))
        except Exception as error:  # onnx raises its checker's errors, ValueError and OSError
            raise UserError(
                f"the weights of {file} cannot be read: {said(error)}", "copy its data files again"
            ) from None


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """All constant tensors, those of subgraphs and functions too."""
    nodes = [node for function in model.functions for node in function.node]
    yield from _tensors_of(model.graph)
    yield from _constants_of(nodes)


def _tensors_of(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _constants_of(list(graph.node))


def _constants_of(nodes: list[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for attribute in (attribute for node in nodes for attribute in node.attribute):
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            yield from _tensors_of(graph)


def check_operators(model: onnx.ModelProto, origin: str) -> None:
    """Raise UserError for operators that no standard ONNX Runtime has, naming them."""
    opset = opset_of(model)
    newest = onnx.defs.onnx_opset_version()
    if not MIN_OPSET <= opset <= newest:
        raise UserError(f"{origin} is of opset {opset}; expected {MIN_OPSET} to {newest}", _EXPORT_AGAIN + ", opset 18")
    nodes = list(all_nodes(model.graph))
    custom = sorted({f"{node.domain}.{node.op_type}" for node in nodes if node.domain not in _DOMAINS})
    if custom:
        raise UserError(
            f"{origin} has operators that are not ONNX Runtime's own: {', '.join(custom[:5])}",
            "custom operators need code of their own, which is never loaded: export without them",
        )
    known = {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""}
    for node in nodes:
        if node.domain in ("", "ai.onnx") and not onnx.defs.has(node.op_type, max_inclusive_version=opset, domain=""):
            raise UserError(
                f"{origin} has an operator that ONNX does not know at opset {opset}: {node.op_type}",
                did_you_mean(node.op_type, known) if node.op_type not in known else "export it with a newer opset",
            )


def opset_of(model: onnx.ModelProto) -> int:
    """The version of the standard's operators that the model is written in."""
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The nodes of a graph and, after each, those of its branches."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from all_nodes(inner)
