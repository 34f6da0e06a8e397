"""Our packages of a fine-tuned text teacher beside what Olive makes of the very same teacher.

    python -m benchmarks.olive_front runs/sst2 [--environment DIR] [--rounds 300] [--out FILE]

Olive runs as its documentation does for BERT on a CPU (`olive_child.py`), in a virtual environment of its own, made
where it is not there yet. Every point is a model's accuracy on the whole test split, its size, and its median time from
bytes to label, batch 1, 1 thread, all models in turn in each round, with the same tokenizer in front. A point dominates
another that is no better in any of the three and worse in one.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from compress.environment import hardware, versions
from compress.evidence.statistics import drop_interval
from compress.measure.predictions import read_scores
from compress.recipe_file import parse_recipe
from compress.rundir import read_about
from loadtests.peers.surroundings import own_environment
from serve.errors import UserError
from serve.package import load_package
from serve.predictor import Predictor, open_session
from serve.preparer import TOKENIZER, Preparer
from train.classifier import load_classifier
from train.data import load_data
from train.sources import Items

_PACKAGES = ("olive-ai[cpu]", "transformers<5", "onnxscript", "optimum", "datasets", "tabulate")
_CHILD = Path(__file__).parent / "olive_child.py"
_CALIBRATION, _WARM_UP = 300, 5


@dataclass(frozen=True)
class Point:
    """One model. Better is more accurate, smaller and faster."""

    name: str
    by: str  # "ours" or "olive"
    accuracy: float
    size_mb: float
    ms: float

    def dominates(self, other: Point) -> bool:
        """No worse in any of the three, and better in one."""
        ours, theirs = ((each.accuracy, -each.size_mb, -each.ms) for each in (self, other))
        return ours != theirs and all(mine >= its for mine, its in zip(ours, theirs, strict=True))


class OliveModel:
    """An ONNX file with the inputs that Hugging Face's BERT has."""

    def __init__(self, file: Path, preparer: Preparer, pad_id: int) -> None:
        self._preparer, self._pad_id = preparer, pad_id
        self._session: ort.InferenceSession = open_session(file.read_bytes(), 1, str(file))
        self._inputs = {each.name for each in self._session.get_inputs()}

    def __call__(self, item: bytes) -> int:
        ids, _ = self._preparer.prepare_one(item)
        inputs = {
            "input_ids": ids,
            "attention_mask": (ids != self._pad_id).astype(np.int64),
            "token_type_ids": np.zeros_like(ids),
        }
        given = {name: value for name, value in inputs.items() if name in self._inputs}
        return int(self._session.run(None, given)[0].argmax())


class OurModel:
    """A package through the predictor that serves it."""

    def __init__(self, package: Path) -> None:
        self._predictor = Predictor.load(package, threads=1)

    def __call__(self, item: bytes) -> int:
        return int(self._predictor.compute(self._predictor.prepare([item])).argmax())


def measure(run: Path, python: Path, rounds: int, folder: Path) -> dict[str, Any]:
    """Everything as plain JSON. Raises UserError."""
    recipe = parse_recipe(read_about(run)["recipe"], str(run / "run.json"))
    if recipe.task != "text":
        raise UserError("olive_front is for text classifiers", "give it the run of a recipe with task = 'text'")
    data = load_data(recipe.data, recipe.seed, recipe.task)
    made, about = _olive(run, python, data.splits["calibration"], folder)
    teacher = load_package(run / "packages" / "teacher-fp32")
    spec = teacher.manifest.preprocessing
    assert spec.kind == "text"
    preparer = Predictor(teacher).preparer
    models: dict[str, OurModel | OliveModel] = {}
    sizes: dict[str, float] = {}
    for package in sorted(run.glob("packages/*")):
        if "-alone-" not in package.name:
            models[f"ours: {package.name}"] = OurModel(package)
            sizes[f"ours: {package.name}"] = load_package(package).size_bytes / 1e6
    for name, file in made.items():
        models[f"olive: {name}"] = OliveModel(file, preparer, spec.pad_id)
        sizes[f"olive: {name}"] = (_bytes(file.parent) + len(teacher.files[TOKENIZER])) / 1e6
    test = data.splits["test"]
    right = {name: _right(run, name, model, test) for name, model in models.items()}
    medians = _times(models, test.content, rounds)
    points = [
        Point(name, name.split(":")[0], float(right[name].mean()), round(sizes[name], 2), round(medians[name], 3))
        for name in models
    ]
    return {"run": run.name, "items": len(test), "rounds": rounds, **about, **verdict(points), **_paired(points, right)}


def verdict(points: Sequence[Point]) -> dict[str, Any]:
    """Who dominates whom. Our front is what none of our own points dominates."""
    ours = [point for point in points if point.by == "ours"]
    theirs = [point for point in points if point.by == "olive"]
    front = [point for point in ours if not any(other.dominates(point) for other in ours)]
    return {
        "points": [asdict(point) for point in sorted(points, key=lambda point: point.ms)],
        "front": [point.name for point in front],
        "dominated_by_olive": {
            point.name: [other.name for other in theirs if other.dominates(point)]
            for point in front
            if any(other.dominates(point) for other in theirs)
        },
        "olive_dominated_by_us": {
            point.name: [other.name for other in ours if other.dominates(point)]
            for point in theirs
            if any(other.dominates(point) for other in ours)
        },
    }


def _paired(points: Sequence[Point], right: dict[str, np.ndarray]) -> dict[str, Any]:
    """The drop in points of each from the teacher in fp32, with its 95 % interval on the same items."""
    reference = right["ours: teacher-fp32"]
    drops = {
        point.name: drop_interval(
            int((reference & ~right[point.name]).sum()), int((~reference & right[point.name]).sum()), len(reference)
        )
        for point in points
    }
    return {"drop_points_ci95": {name: [round(100 * bound, 2) for bound in bounds] for name, bounds in drops.items()}}


def _olive(run: Path, python: Path, calibration: Items, folder: Path) -> tuple[dict[str, Path], dict[str, Any]]:
    """Olive's ONNX files by name, and what it said of itself and of workflows that failed."""
    classifier = load_classifier(run / "teacher")
    network: Any = classifier.network
    spec = classifier.spec.preprocessing
    assert spec.kind == "text"
    model = folder / "model"
    network.model.save_pretrained(model)
    special = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    shutil.copy(run / "teacher" / TOKENIZER, model)
    # written by hand: the transformers that Olive takes does not know the class that ours would name
    content = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": spec.max_length, **special}
    (model / "tokenizer_config.json").write_text(json.dumps(content))
    with (folder / "calibration.csv").open("w", newline="", encoding="utf-8") as file:
        rows = zip(calibration.content[:_CALIBRATION], calibration.labels[:_CALIBRATION], strict=True)
        csv.writer(file).writerows([("text", "label"), *((text.decode(), int(label)) for text, label in rows)])
    command = [python.absolute(), _CHILD, model, folder / "calibration.csv", folder / "out", spec.max_length]
    # elsewhere: Olive takes any word of its settings for a path where a file of that name is in the working directory
    done = subprocess.run([*map(str, command)], cwd=folder, capture_output=True, text=True, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    if not lines:
        raise UserError(f"Olive ended: {(done.stderr.strip().splitlines() or ['no reason'])[-1]}", "see its log")
    failed = {row["name"]: row["error"] for row in lines[1:] if "error" in row}
    return {row["name"]: Path(row["file"]) for row in lines[1:] if "file" in row}, {"olive": lines[0], "failed": failed}


def _bytes(folder: Path) -> int:
    """Of the graph, and of weights beside it."""
    return sum(file.stat().st_size for pattern in ("*.onnx", "*.onnx.data") for file in folder.glob(pattern))


def _right(run: Path, name: str, model: OurModel | OliveModel, test: Items) -> np.ndarray:
    """Which items a model is right about; what our packages answered, their run has kept."""
    if isinstance(model, OurModel):
        file = run / "predictions" / f"{name.removeprefix('ours: ')}.parquet"
        return np.asarray(read_scores(file).argmax(axis=1) == test.labels)
    return np.array([model(item) == label for item, label in zip(test.content, test.labels, strict=True)])


def _times(models: dict[str, OurModel | OliveModel], items: Sequence[bytes], rounds: int) -> dict[str, float]:
    """Median milliseconds of an item."""
    times: dict[str, list[float]] = {name: [] for name in models}
    for at in range(-_WARM_UP, rounds):
        for name, model in models.items():
            started = time.perf_counter()
            model(items[at % len(items)])
            if at >= 0:
                times[name].append(1000 * (time.perf_counter() - started))
    return {name: float(np.median(values)) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--environment", type=Path, default=Path(".venv-olive"))
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    try:
        python = own_environment("Olive", options.environment, _PACKAGES, "olive, datasets")
        with tempfile.TemporaryDirectory(prefix="limbeck-olive-") as folder:
            content = measure(options.run, python, options.rounds, Path(folder))
    except UserError as error:
        raise SystemExit(f"error: {error.message}\nhint: {error.hint}") from None
    for point in content["points"]:
        low, high = content["drop_points_ci95"][point["name"]]
        print(
            f"{point['name']:32s} {100 * point['accuracy']:6.2f} %  drop {low:+.2f} to {high:+.2f}  "
            f"{point['size_mb']:7.2f} MB  {point['ms']:7.3f} ms"
        )
    for title in ("front", "dominated_by_olive", "olive_dominated_by_us", "failed"):
        print(f"{title}: {json.dumps(content[title])}")
    if options.out:
        content |= {"hardware": hardware(), "versions": versions()}
        options.out.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
