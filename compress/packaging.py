"""Make a model package from a trained classifier at one precision, and check it before anyone relies on it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict

from compress.export import export_onnx
from compress.quantize.inspect import check_changed, describe_graph
from compress.quantize.precisions import quantize
from compress.variants import Variant
from serve.errors import LimbeckError
from serve.manifest import Manifest, Preprocessing, ServingConfig
from serve.package import MODEL, load_package, write_package
from serve.predictor import Predictor
from serve.runner import Runner, scores, softmax
from train.classifier import Classifier
from train.inputs import Inputs
from train.torch_runner import TorchRunner

# `limbeck verify` allows scores to differ by 1e-5 between a batch in evaluation and a single request in serving.
BATCH_TOLERANCE = 5e-6
EXPORT_TOLERANCE = 1e-4  # fp32 against torch, in probability; other precisions are judged by their predictions
CHECKED_BATCHES = (1, 7, 32)
_CHECKED_ITEMS = 64


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
) -> PackageResult:
    """Write the package of `variant` into `folder`.

    fp32 is exported from the classifier; other precisions are made from `fp32_package`. `probe` holds the bytes of
    real items (the validation split) on which the result is compared with what it was made from.
    Raises LimbeckError when the graph is not what it should be.
    """
    parent: Runner = TorchRunner(classifier) if fp32_package is None else Predictor.load(fp32_package)
    fp32 = export_onnx(classifier) if fp32_package is None else load_package(fp32_package).files[MODEL]
    model = quantize(fp32, variant.precision, calibration)
    check_changed(model, variant.precision)

    draft = _write(variant, classifier, model, card, folder, batch_invariant=True)
    difference = batch_difference(draft, probe)
    invariant = difference <= BATCH_TOLERANCE
    final = draft if invariant else _write(variant, classifier, model, card, folder, batch_invariant=False)

    parity = compare(final, parent, probe, f"{variant.model}-{'torch' if fp32_package is None else 'fp32'}")
    if fp32_package is None and parity.max_abs > EXPORT_TOLERANCE:
        raise LimbeckError(
            f"the exported graph of {variant.model} does not compute what the model does: "
            f"scores differ by up to {parity.max_abs:.1e} on {parity.n} items",
            "this is a bug in the export; please report it with the recipe",
        )
    return PackageResult(
        package_id=final.package.manifest.id,
        size_bytes=final.package.size_bytes,
        parity=parity,
        batch_invariant=invariant,
        batch_difference=difference,
        graph=describe_graph(model),
        preprocessing=final.package.manifest.preprocessing,
    )


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


def compare(runner: Runner, parent: Runner, items: Sequence[bytes], against: str) -> Parity:
    """Scores of two runners on the same bytes."""
    ours, theirs = scores(runner, items), scores(parent, items)
    return Parity(
        against=against,
        n=len(items),
        max_abs=float(np.abs(ours - theirs).max()),
        disagreements=int((ours.argmax(axis=1) != theirs.argmax(axis=1)).sum()),
    )


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
