"""Make a model package from a trained classifier at one precision, and check it before anyone relies on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict

from compress.evidence.abstain import Abstention
from compress.export import export_onnx
from compress.graph.build import hides_rewrites, rewritten
from compress.graph.choose import Tried, told
from compress.quantize.collapse import diagnose, permuted
from compress.quantize.config import Quantize
from compress.quantize.inspect import check_changed, describe_graph, transposed_weights
from compress.quantize.precisions import convert
from compress.variants import Variant
from serve.errors import LimbeckError
from serve.manifest import Manifest, Precision, Preprocessing, ServingConfig
from serve.package import MODEL, load_package, write_package
from serve.predictor import Predictor
from serve.preparer import Preparer
from serve.runner import Runner, softmax
from train.classifier import Classifier
from train.inputs import Inputs, prepare_inputs
from train.sources import Items
from train.torch_runner import TorchRunner

# `limbeck verify` allows scores to differ by 1e-5 between a batch in evaluation and a single request in serving.
BATCH_TOLERANCE = 5e-6
EXPORT_TOLERANCE = 1e-4  # fp32 against torch, in probability; other precisions are judged by their predictions
CHECKED_BATCHES = (1, 7, 32)
_CHECKED_ITEMS = 64
_JUDGED_ITEMS = 200  # on which a rewritten graph is compared with the one before
_JUDGED_TOGETHER = 7  # of them, in one batch


class Parity(BaseModel):
    """How far the scores are from those of `against`, on the same items."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    against: str
    n: int
    max_abs: float
    disagreements: int


class PackageResult(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    package_id: str
    size_bytes: int
    parity: Parity
    batch_invariant: bool
    batch_difference: float
    graph: dict[str, Any]
    preprocessing: Preprocessing  # what a request's bytes meet
    notes: list[str] = []  # how it was quantized, where that was not the recipe's to say
    tried: list[dict[str, Any]] = []  # of int8-mixed: every graph that was tried
    collapse: str = ""  # why it answers otherwise than its parent; empty where it does not
    temperature: float = 1.0  # of its scores
    abstention: Abstention | None = None  # what it promises of those answers that it gives
    rewrites: list[Tried] = []  # what was tried on its graph, and what that was worth


class LogitRunner(Runner, Protocol):
    """A runner that also shows its raw logits; both of ours do."""

    def logits(self, inputs: np.ndarray) -> np.ndarray:
        """Model input to logits: float32 [N, K]."""


def make_package(
    variant: Variant,
    classifier: Classifier,
    fp32_package: Path | None,
    calibration: Inputs,
    probe: Sequence[bytes],
    card: dict[str, Any],
    folder: Path,
    config: Quantize | None = None,
    say: Callable[[str], None] = lambda _: None,
    rewrites: bool = False,
) -> PackageResult:
    """Write the package of `variant` into `folder`; with `rewrites` its graph keeps those that are measured faster.

    fp32 is exported from the classifier; other precisions are made from `fp32_package`. `probe` holds the bytes of
    real items (the validation split) on which the result is compared with what it was made from.
    Raises LimbeckError when the graph is not what it should be.
    """
    parent: LogitRunner = TorchRunner(classifier) if fp32_package is None else Predictor.load(fp32_package)
    fp32 = export_onnx(classifier) if fp32_package is None else load_package(fp32_package).files[MODEL]
    config = config or Quantize()
    tried: list[Tried] = []
    if rewrites and not config.exclude:  # which names nodes, and they must stay
        if fp32_package is not None and hides_rewrites(fp32):
            fp32 = export_onnx(classifier)  # as nothing was rewritten yet: what fp32 kept may hide what pays in int8
        fp32, tried = rewritten_for(fp32, variant.precision, calibration, config, probe, classifier.preparer())
    quantized = convert(fp32, variant.precision, calibration, config, say)
    model = quantized.model
    check_changed(model, variant.precision, config.least_changed(variant.precision))

    draft = _write(variant, classifier, model, card, folder, batch_invariant=True)
    difference = batch_difference(draft, probe)
    invariant = difference <= BATCH_TOLERANCE
    final = draft if invariant else _write(variant, classifier, model, card, folder, batch_invariant=False)

    against = f"{variant.model}-{'torch' if fp32_package is None else 'fp32'}"
    ours, theirs = _scores_of_both(final, parent, probe, against)
    parity = _parity(ours, theirs, against)
    collapse = ""
    if fp32_package is None:
        _check_export(parity, ours, theirs, model, classifier)
    else:
        items = prepare_inputs(_as_items(probe), classifier.preparer())
        collapse = diagnose(ours, theirs, final.labels, against, model, fp32, items)
        if collapse:
            say(f"{variant.id}: {collapse}")
    return PackageResult(
        package_id=final.package.manifest.id,
        size_bytes=final.package.size_bytes,
        parity=parity,
        batch_invariant=invariant,
        batch_difference=difference,
        graph=describe_graph(model) | ({"rewrites": told(tried)} if tried else {}),
        preprocessing=final.package.manifest.preprocessing,
        notes=quantized.notes,
        tried=quantized.trace,
        collapse=collapse,
        rewrites=tried,
    )


def rewritten_for(
    fp32: bytes, precision: Precision, calibration: Inputs, config: Quantize, probe: Sequence[bytes], preparer: Preparer
) -> tuple[bytes, list[Tried]]:
    """The graph to be quantized to `precision`, with the rewrites that pay on `probe`, and what was tried on it."""
    items = [preparer.prepare([item]) for item in probe[:_JUDGED_ITEMS]]
    together = preparer.prepare(probe[:_JUDGED_TOGETHER])
    return rewritten(fp32, precision, calibration, config, items, preparer.input, together)


def is_batch_invariant(runner: LogitRunner, items: Sequence[bytes]) -> bool:
    """Whether an item's scores stay the same whichever items come with it, as measured on some of `items`."""
    return batch_difference(runner, items) <= BATCH_TOLERANCE


def batch_difference(runner: LogitRunner, items: Sequence[bytes]) -> float:
    """The largest change of a score when the same items come in batches of 1, 7 and 32."""
    checked = items[:_CHECKED_ITEMS]
    answers = []
    for size in CHECKED_BATCHES:
        batches = [checked[start : start + size] for start in range(0, len(checked), size)]
        parts = [runner.logits(runner.prepare(batch)) for batch in batches]
        answers.append(softmax(np.concatenate(parts), temperature=1.0))
    return max(float(np.abs(answer - answers[0]).max()) for answer in answers)


def compare(runner: LogitRunner, parent: LogitRunner, items: Sequence[bytes], against: str) -> Parity:
    """Scores of two runners on the same bytes. Raises LimbeckError where their labels are not the same."""
    return _parity(*_scores_of_both(runner, parent, items, against), against)


def explain(
    runner: Predictor, parent: Predictor, items: Sequence[bytes], against: str, preparer: Preparer
) -> tuple[Parity, str]:
    """`compare` of a package with the one that it was made from, and why its answers collapsed; empty if they did not.

    Raises LimbeckError where their labels are not the same.
    """
    ours, theirs = _scores_of_both(runner, parent, items, against)
    graphs = (runner.package.files[MODEL], parent.package.files[MODEL])
    inputs = prepare_inputs(_as_items(items), preparer)
    return _parity(ours, theirs, against), diagnose(ours, theirs, runner.labels, against, *graphs, inputs)


def _scores_of_both(
    runner: LogitRunner, parent: LogitRunner, items: Sequence[bytes], against: str
) -> tuple[np.ndarray, np.ndarray]:
    """float32 [N, K] each, both at temperature 1: a package may have one of its own."""
    if tuple(runner.labels) != tuple(parent.labels):
        raise LimbeckError(
            f"the label map is not that of {against}: {', '.join(runner.labels)} against {', '.join(parent.labels)}",
            "the order of the labels decides what a score means; make the package again",
        )
    ours, theirs = (softmax(one.logits(one.prepare(items)), temperature=1.0) for one in (runner, parent))
    return ours, theirs


def _parity(ours: np.ndarray, theirs: np.ndarray, against: str) -> Parity:
    return Parity(
        against=against,
        n=len(ours),
        max_abs=float(np.abs(ours - theirs).max()),
        disagreements=int((ours.argmax(axis=1) != theirs.argmax(axis=1)).sum()),
    )


def _check_export(parity: Parity, ours: np.ndarray, theirs: np.ndarray, model: bytes, classifier: Classifier) -> None:
    """Raise LimbeckError, with the cause where it can be found, unless the graph computes what torch does."""
    if parity.max_abs <= EXPORT_TOLERANCE:
        return
    causes = [permuted(ours.argmax(axis=1), theirs.argmax(axis=1), classifier.spec.labels)]
    causes += transposed_weights(model, {name: weight.numpy() for name, weight in classifier.state_dict().items()})
    cause = next((f": {cause}" for cause in causes if cause), "")
    raise LimbeckError(
        f"the exported graph of {parity.against.removesuffix('-torch')} does not compute what the model does: "
        f"scores differ by up to {parity.max_abs:.1e} on {parity.n} items, labels on {parity.disagreements}{cause}",
        "this is a bug in the export; please report it with the recipe",
    )


def _as_items(content: Sequence[bytes]) -> Items:
    """Bytes without labels, as a split."""
    return Items(list(content), np.zeros(len(content), dtype=np.int64))


def _write(
    variant: Variant, classifier: Classifier, model: bytes, card: dict[str, Any], folder: Path, batch_invariant: bool
) -> Predictor:
    manifest = Manifest(
        task=classifier.spec.preprocessing.kind,
        labels=classifier.spec.labels,
        preprocessing=classifier.spec.preprocessing,
        precision=variant.precision,
        batch_invariant=batch_invariant,
        files={},
    )
    return Predictor(write_package(folder, manifest, {MODEL: model, **classifier.files}, card, ServingConfig()))
