"""A classifier that a user already has, as an ONNX file: read, checked, and given our signature.

Start here: `import_onnx` gives a graph like those that `export_onnx` writes, and `package_onnx` a package of it, which
can be scored, quantized and served as any other. Nothing of the file is trusted: see file.py.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto

from compress.onnx_model.adapt import adapt
from compress.onnx_model.description import read_description
from compress.onnx_model.file import read_onnx
from compress.onnx_model.trial import check_same, check_vocabulary
from compress.packaging import BATCH_TOLERANCE, Parity, batch_difference
from serve.errors import UserError
from serve.manifest import Manifest, Precision, Preprocessing, ServingConfig
from serve.package import MODEL, write_package
from serve.predictor import Predictor
from serve.preparer import TOKENIZER, Preparer, new_preparer

_FOUR_BITS = frozenset([TensorProto.INT4, TensorProto.UINT4])
_EIGHT_BITS = frozenset([TensorProto.INT8, TensorProto.UINT8])


@dataclass(frozen=True)
class OnnxClassifier:
    """A user's model: `model` takes `images` uint8 [N, H, W, C] or `input_ids` int64 [N, L], gives `logits` [N, K]."""

    model: bytes
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    precision: Precision  # what its graph already is
    parity: Parity  # with the graph as it was given
    files: Mapping[str, bytes] = field(default_factory=dict)  # beside the graph: the tokenizer.json of a text model

    def preparer(self) -> Preparer:
        """What turns request bytes into this model's input."""
        return new_preparer(self.preprocessing, self.files)


def import_onnx(file: Path, description: Path | None = None, labels: Sequence[str] | None = None) -> OnnxClassifier:
    """The classifier in `file`, described beside it (`description.py`), its scores in the order of `labels`.

    `labels` are those of the data; by default the model's own. The adapted graph has been run beside the original: one
    item at a time it gives the same scores, and in a batch too. Raises UserError.
    """
    described, files = read_description(file, description)
    order = _order(described.labels, labels or described.labels, str(file))
    preparer = new_preparer(described.preprocessing, files)
    model = read_onnx(file)
    original = model.SerializeToString()
    adapted = adapt(onnx.load_model_from_string(original), described, order, str(file))
    content = adapted.SerializeToString()
    parity = check_same(model, original, content, described, order, preparer, str(file))
    if TOKENIZER in files:
        check_vocabulary(content, files[TOKENIZER], str(file))
    return OnnxClassifier(
        model=content,
        labels=tuple(labels or described.labels),
        preprocessing=described.preprocessing,
        precision=_precision(model),
        parity=parity,
        files=files,
    )


def package_onnx(classifier: OnnxClassifier, folder: Path, probe: Sequence[bytes], card: dict[str, Any]) -> Predictor:
    """Write the package of an imported model into `folder`, as it is.

    `probe` are real items, to see whether its scores depend on the batch.
    """
    manifest = Manifest(
        task=classifier.preprocessing.kind,
        labels=classifier.labels,
        preprocessing=classifier.preprocessing,
        precision=classifier.precision,
        batch_invariant=True,
        files={},
    )
    contents = {MODEL: classifier.model, **classifier.files}
    draft = Predictor(write_package(folder, manifest, contents, card, ServingConfig()))
    if batch_difference(draft, probe) <= BATCH_TOLERANCE:
        return draft
    alone = manifest.model_copy(update={"batch_invariant": False})
    return Predictor(write_package(folder, alone, contents, card, ServingConfig()))


def _order(own: Sequence[str], wanted: Sequence[str], origin: str) -> list[int]:
    """For each of the data's labels the place of its score in the model's. Raises UserError where they differ."""
    if set(own) == set(wanted):
        return [own.index(label) for label in wanted]
    missing = [label for label in wanted if label not in own]
    unknown = [label for label in own if label not in wanted]
    told = [f"the data have {_few(missing)}, and the model has not"] if missing else []
    told += [f"the model has {_few(unknown)}, and the data have not"] if unknown else []
    raise UserError(
        f"{origin} has {len(own)} labels and the data have {len(wanted)}: {'; '.join(told)}",
        "labels in the description are the data's own, in the order of the model's scores",
    )


def _few(labels: Sequence[str]) -> str:
    shown = ", ".join(f"'{label}'" for label in labels[:5])
    return f"{shown} and {len(labels) - 5} more" if len(labels) > 5 else shown


def _precision(model: onnx.ModelProto) -> Precision:
    """What a graph is already, by its operators and the type of most of its weights."""
    operators = {node.op_type for node in model.graph.node}
    if "DynamicQuantizeLinear" in operators:
        return "int8-dynamic"
    if operators & {"QuantizeLinear", "MatMulInteger", "ConvInteger"} or any(
        op.startswith("QLinear") for op in operators
    ):
        return "int8-static"
    most = _type_of_most_weights(model)
    if most in _FOUR_BITS or (most in _EIGHT_BITS and any(_bits(node) == 4 for node in model.graph.node)):
        return "int4-weights"
    if most in _EIGHT_BITS:
        return "int8-weights"
    return "fp16" if most == TensorProto.FLOAT16 else "fp32"


def _type_of_most_weights(model: onnx.ModelProto) -> int:
    """By elements: a mask that lies in a graph as bytes makes no int8 model of it."""
    elements: Counter[int] = Counter()
    for tensor in model.graph.initializer:
        if len(tensor.dims) > 1:
            elements[tensor.data_type] += math.prod(tensor.dims)
    return elements.most_common(1)[0][0] if elements else TensorProto.FLOAT


def _bits(node: onnx.NodeProto) -> int | None:
    """Of the weights of a MatMulNBits, which lie packed in bytes."""
    return next((attribute.i for attribute in node.attribute if attribute.name == "bits"), None)
