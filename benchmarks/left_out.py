"""A class that the student never saw: Hinton et al. 2015 (arXiv 1503.02531, section 3), the digit 3 left out.

    limbeck repeat compress/recipes/hinton.toml --seeds 0,1,2
    python -m benchmarks.left_out runs/hinton-seeds/seed-* [--label 3] [--student distilled] [--out FILE]

The student learns from its teacher's answers alone, on a transfer set without one item of the label. It then knows the
label only by how likely the teacher found it for other items, and names it too rarely: adding a number to the label's
logit mends that. The paper chose this bias on test; here it is chosen on validation. One JSON line for each run; the
epochs are told on stderr.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import BaseModel

from compress.console import Console
from compress.measure.predictions import score_items
from compress.recipe import Recipe, Student
from compress.recipe_file import parse_recipe
from compress.rundir import read_about
from serve.errors import UserError, did_you_mean
from serve.images import ImagePreparer
from train.classifier import Classifier, ModelConfig, load_classifier, new_classifier
from train.data import Data, load_data
from train.draft import Wanted
from train.fit import fit
from train.following import Following
from train.inputs import PreparedSplits
from train.sources import Items
from train.teaching import Teaching
from train.torch_runner import TorchRunner

_BIASES = np.arange(0.0, 12.01, 0.1)  # of the logit; the paper's best was 3.5


class LeftOut(BaseModel):
    """What a student knows of a label that it never saw: counts of test items, before and after the bias."""

    run: str
    label: str
    transfer_items: int
    test_items: int
    of_label: int
    errors: int
    errors_of_label: int
    bias: float  # added to the label's logit, best on validation
    errors_with_bias: int
    errors_of_label_with_bias: int
    recall_with_bias: float  # in percent


def best_bias(logits: np.ndarray, labels: np.ndarray, label: int) -> float:
    """The bias of `label`'s logit with the most right of `logits` float [N, K]; the middle of equals."""
    right = np.array([(_biased(logits, label, bias) == labels).sum() for bias in _BIASES])
    return float(np.median(_BIASES[right == right.max()]))


def _biased(logits: np.ndarray, label: int, bias: float) -> np.ndarray:
    moved = logits.copy()
    moved[:, label] += bias
    answers: np.ndarray = moved.argmax(axis=1)
    return answers


def leave_out(folder: Path, label: str, name: str) -> LeftOut:
    """Train the run's student `name` without the items of `label`, and count its errors. Raises UserError."""
    recipe = parse_recipe(read_about(folder)["recipe"], str(folder / "run.json"))
    student = _student(recipe, name)
    data = load_data(recipe.data, recipe.seed, recipe.task)
    if label not in data.classes:
        raise UserError(f"the data have no label '{label}'", did_you_mean(label, data.classes))
    index = data.classes.index(label)
    transfer = data.splits["train"].take(np.flatnonzero(data.splits["train"].labels != index))
    trained = _train(recipe, student, data, transfer, load_classifier(folder / "teacher"))
    validation, test = (_logits(trained, data.splits[split]) for split in ("validation", "test"))
    bias = best_bias(validation, data.splits["validation"].labels, index)
    labels = data.splits["test"].labels
    wrong, still = (_biased(test, index, moved) != labels for moved in (0.0, bias))
    of_label = labels == index
    return LeftOut(
        run=str(folder),
        label=label,
        transfer_items=len(transfer),
        test_items=len(labels),
        of_label=int(of_label.sum()),
        errors=int(wrong.sum()),
        errors_of_label=int((wrong & of_label).sum()),
        bias=round(bias, 2),
        errors_with_bias=int(still.sum()),
        errors_of_label_with_bias=int((still & of_label).sum()),
        recall_with_bias=round(100 * float(1 - still[of_label].mean()), 2),
    )


def _student(recipe: Recipe, name: str) -> Student:
    found = next((student for student in recipe.students if student.name == name and student.distill), None)
    if found is None:
        known = [student.name for student in recipe.students if student.distill]
        raise UserError(f"the run has no distilled student '{name}'", did_you_mean(name, known))
    return found


def _train(recipe: Recipe, student: Student, data: Data, transfer: Items, teacher: Classifier) -> Classifier:
    """The student, taught on `transfer` by the teacher's answers alone: labels would say that the label never is."""
    assert student.distill is not None
    prepared = PreparedSplits()
    wanted = Wanted(
        task=data.task,
        labels=data.classes,
        seed=recipe.seed,
        train=transfer,
        images=lambda spec: prepared.get("transfer", transfer, ImagePreparer(spec)),
        teacher=teacher,
    )
    classifier = new_classifier(ModelConfig(model=student.model, options=student.options), wanted)
    parts = {"transfer": transfer, "validation": data.splits["validation"]}
    seen, checked = (prepared.get(part, items, classifier.preparer()) for part, items in parts.items())
    lesson = student.distill.model_copy(update={"alpha": 1.0})
    teaching = Teaching(teacher, lesson, prepared.get("transfer", transfer, teacher.preparer()))
    with tempfile.TemporaryDirectory() as folder, Console().epochs() as on_epoch:
        following = Following(on_epoch)
        fit(classifier, student.fit, seen, checked, recipe.seed, Path(folder), teaching, following=following)
        return load_classifier(Path(folder))


def _logits(classifier: Classifier, items: Items) -> np.ndarray:
    """Logarithms of the scores: logits but for a number that is the same for all labels of an item."""
    scores = score_items(TorchRunner(classifier), items).astype(np.float64)
    logits: np.ndarray = np.log(np.maximum(scores, 1e-300))
    return logits


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one JSON line for each run, and keep them all in `--out`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--label", default="3")
    parser.add_argument("--student", default="distilled")
    parser.add_argument("--out", type=Path)
    wanted = parser.parse_args(arguments)
    found = []
    try:
        for folder in wanted.runs:
            found.append(leave_out(folder, wanted.label, wanted.student).model_dump(mode="json"))
            print(json.dumps(found[-1]), flush=True)
    except UserError as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        return 2
    if wanted.out is not None:
        wanted.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
