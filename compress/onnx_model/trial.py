"""Does an adapted graph answer as the user's own does? Both run on the same few items before anyone relies on it.

N items, K labels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime as ort
from tokenizers import Tokenizer

from compress.onnx_model.adapt import output_of
from compress.onnx_model.description import OnnxDescription
from compress.onnx_model.front import MASK, TYPES
from compress.packaging import Parity
from serve.errors import UserError, said
from serve.images import ImagePreparer
from serve.manifest import TextPreprocessing
from serve.predictor import OUTPUT, open_session
from serve.preparer import Preparer
from serve.runner import softmax

TOLERANCE = 1e-3  # of a probability, between the user's graph and ours; fp16 rounds by less
_ROUNDING = 0.1  # between an item alone and in a batch, where int8 measures its ranges for each batch anew
_SUM = 1e-2  # how far probabilities may be from summing to 1: those of fp16 are not exact
_ITEMS = 3
_TEXTS = (b"a", b"A text of some more words, and so of more tokens.", b"two words")
_NUMPY: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
}


def check_same(
    model: onnx.ModelProto,
    original: bytes,
    adapted: bytes,
    described: OnnxDescription,
    order: Sequence[int],
    preparer: Preparer,
    origin: str,
) -> Parity:
    """Raise UserError unless `adapted` gives the scores of `original`, whose graph `model` is: alone and in a batch.

    How far they are apart is returned.
    """
    before, after = open_session(original, 1, origin), open_session(adapted, 1, origin)
    batch = _images(preparer) if isinstance(preparer, ImagePreparer) else preparer.prepare(_TEXTS)
    output = output_of(model, origin).name
    alone = preparer.alone(batch)
    given = np.concatenate([_given(before, output, item, described, origin) for item in alone])
    theirs = _probabilities(given, described, origin)[:, list(order)]
    ours = np.concatenate([softmax(after.run([OUTPUT], {preparer.input: item})[0], 1.0) for item in alone])
    if not np.abs(ours - theirs).max() <= TOLERANCE:
        raise UserError(
            f"{origin} answers differently once it takes {preparer.expected()}: scores differ by up to "
            f"{np.abs(ours - theirs).max():.1e}",
            "export it with opset 18; if it was, please report this with the model",
        )
    _check_batch(after, batch, ours, model, origin)
    return Parity(
        against=origin,
        n=len(ours),
        max_abs=float(np.abs(ours - theirs).max()),
        disagreements=int((ours.argmax(axis=1) != theirs.argmax(axis=1)).sum()),
    )


def check_vocabulary(adapted: bytes, tokenizer: bytes, origin: str) -> None:
    """Raise UserError where the graph has no embedding for a token of tokenizer.json."""
    highest = max(Tokenizer.from_buffer(tokenizer).get_vocab().values())
    try:
        open_session(adapted, 1, origin).run([OUTPUT], {"input_ids": np.array([[highest]], np.int64)})
    except Exception as error:  # ORT raises a dozen kinds, none of them public
        raise UserError(
            f"{origin} does not run on token {highest} of its tokenizer: {said(error)}",
            "the tokenizer.json is that of another model: copy the one that this model was trained with",
        ) from None


def _check_batch(
    session: ort.InferenceSession, batch: np.ndarray, alone: np.ndarray, model: onnx.ModelProto, origin: str
) -> None:
    """Raise UserError unless several items at once get the scores float32 [N, K] that each has alone."""
    hint = "export it with a dynamic batch: dynamic_shapes in torch.onnx.export, or dynamic_axes"
    try:
        together = softmax(session.run([OUTPUT], {session.get_inputs()[0].name: batch})[0], 1.0)
    except Exception as error:  # ORT raises a dozen kinds, none of them public
        raise UserError(
            f"{origin} takes one item at a time, and its graph has that number inside: {said(error)}", hint
        ) from None
    measured = any(node.op_type == "DynamicQuantizeLinear" for node in model.graph.node)
    if together.shape != alone.shape or not np.abs(together - alone).max() <= (_ROUNDING if measured else 0.01):
        raise UserError(f"{origin} gives items in a batch other scores than alone", hint)


def _images(preparer: ImagePreparer) -> np.ndarray:
    """Noise uint8 [N, H, W, C]: no item is like another."""
    shape = preparer.prepare([preparer.sample()]).shape[1:]
    return np.random.default_rng(0).integers(0, 256, (_ITEMS, *shape)).astype(np.uint8)


def _given(
    session: ort.InferenceSession, output: str, item: np.ndarray, described: OnnxDescription, origin: str
) -> np.ndarray:
    """Scores float32 [1, K] of the user's graph, fed as the description says that it is fed."""
    feed = {value.name: _fed(value, item, described) for value in session.get_inputs()}
    try:
        found = session.run([output], feed)[0].astype(np.float32)
    except Exception as error:  # ORT raises a dozen kinds, none of them public
        raise UserError(
            f"{origin} does not run on what its description says: {said(error)}",
            "mend the description; a tokenizer of another model gives ids that the graph has no embedding for",
        ) from None
    if found.shape != (1, len(described.labels)):
        count = found.shape[-1] if found.ndim == 2 else f"an output of shape {list(found.shape)}, not [1, K],"
        raise UserError(
            f"{origin} gives {count} scores for {len(described.labels)} labels",
            "name all labels of the model, in the order of its scores; two labels need two scores",
        )
    return found


def _probabilities(given: np.ndarray, described: OnnxDescription, origin: str) -> np.ndarray:
    """Scores [N, K] as probabilities. Raises UserError where they are not what the description calls them."""
    sum_to_one = bool((given >= 0).all() and (np.abs(given.sum(axis=1) - 1) < _SUM).all())
    if sum_to_one != (described.scores == "probabilities"):
        found = "probabilities" if sum_to_one else "logits"
        raise UserError(
            f"{origin} is described as giving {described.scores}, but gives {np.round(given[0, :4], 3).tolist()}",
            f'set scores = "{found}" in the description',
        )
    return given if sum_to_one else softmax(given, 1.0)


def _fed(value: ort.NodeArg, item: np.ndarray, described: OnnxDescription) -> np.ndarray:
    """One prepared item as input `value` of the user's graph takes it."""
    if isinstance(described.preprocessing, TextPreprocessing):
        kind = _NUMPY[value.type]
        if value.name == TYPES:
            return np.zeros_like(item, kind)
        return (item != described.preprocessing.pad_id if value.name == MASK else item).astype(kind)
    if described.pixels is None:
        return item
    pixels = (item / 255 - np.array(described.pixels.mean)) / np.array(described.pixels.std)
    return (pixels.transpose(0, 3, 1, 2) if described.pixels.layout == "NCHW" else pixels).astype(_NUMPY[value.type])
