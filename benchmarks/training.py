"""How fast `train.fit` trains, against a bare PyTorch loop that does the same arithmetic on the same items.

    python -m benchmarks.training [--rounds 7] [--out FILE] [mnist cifar10 sst2]

Both train the recipe's teacher for an epoch on real items and score it on others, in turn, so that a noisy machine
troubles both alike. Same model, precision, optimizer, clipping, batches of the same rows; no augmentation. Needs
${LIMBECK_DATA}.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from compress.environment import hardware, versions
from compress.recipe_file import load_recipe
from serve.errors import UserError
from serve.images import ImagePreparer
from train.arguments import scored_at_once
from train.augment import AugmentConfig
from train.classifier import Classifier, ModelConfig, new_classifier
from train.data import load_data
from train.draft import Wanted
from train.fit import fit
from train.fit_config import FitConfig
from train.inputs import Inputs, PreparedSplits
from train.precision import choose_arithmetic
from train.views import ByLength, EpochSampler, View

RECIPES = Path(__file__).parent.parent / "compress" / "recipes"
ITEMS = {"mnist": 25_600, "cifar10": 2_560, "sst2": 640}  # some seconds an epoch on two cores
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Workload:
    """A recipe's teacher, and some real items to train it on for an epoch."""

    model: str
    config: FitConfig
    train: Inputs
    validation: Inputs
    new: Callable[[], Classifier]


def workload(name: str) -> Workload:
    """The teacher of the recipe `name`, without augmentation. Raises UserError."""
    sizes = [f"data.train={ITEMS[name]}", "data.calibration=50", "data.validation=50"]
    recipe = load_recipe(RECIPES / f"{name}.toml", sizes)
    data = load_data(recipe.data, recipe.seed, recipe.task)
    prepared = PreparedSplits()
    wanted = Wanted(
        task=data.task,
        labels=data.classes,
        seed=0,
        train=data.splits["train"],
        images=lambda spec: prepared.get("train", data.splits["train"], ImagePreparer(spec)),
    )

    def new() -> Classifier:
        return new_classifier(ModelConfig(model=recipe.teacher.model, options=recipe.teacher.options), wanted)

    preparer = new().preparer()
    train, validation = (prepared.get(split, data.splits[split], preparer) for split in ("train", "validation"))
    config = recipe.teacher.fit.model_copy(update={"epochs": 1, "augment": AugmentConfig()})
    return Workload(recipe.teacher.model, config, train, validation, new)


def in_turn(ways: Sequence[Callable[[], float]], rounds: int) -> np.ndarray:
    """The seconds of each way in each round: [W, R]. They take turns, also in going first; a first round warms up."""
    times = []
    for at in range(rounds + 1):
        forward = [way() for way in (ways if at % 2 else ways[::-1])]
        times.append(forward if at % 2 else forward[::-1])
    return np.array(times[1:]).T


def bare_epoch(classifier: Classifier, config: FitConfig, train: Inputs, validation: Inputs) -> float:
    """Seconds of one epoch in a plain loop: updates, and the evaluation of a few items."""
    low = choose_arithmetic(config.precision, classifier, classifier.macs(), _CPU).precision == "bf16"
    optimizer: torch.optim.Optimizer = torch.optim.AdamW(classifier.parameters(), config.learning_rate, fused=True)
    if config.optimizer == "sgd":
        optimizer = torch.optim.SGD(classifier.parameters(), config.learning_rate, momentum=0.9, nesterov=True)
    order = np.array(list(EpochSampler(View(train, AugmentConfig(), 0), 0, config.batch_size)))
    classifier.train()
    started = time.perf_counter()
    for at in range(0, len(order), config.batch_size):
        rows = order[at : at + config.batch_size]
        inputs, labels = torch.from_numpy(train.gather(rows)), torch.from_numpy(train.labels[rows])
        with _arithmetic(low):
            logits = classifier(inputs)
        loss = F.cross_entropy(logits.float(), labels)
        loss.backward()
        if config.clip:
            torch.nn.utils.clip_grad_norm_(classifier.parameters(), config.clip)
        optimizer.step()
        optimizer.zero_grad()
    _bare_accuracy(classifier, validation, low)
    return time.perf_counter() - started


@torch.inference_mode()
def _bare_accuracy(classifier: Classifier, validation: Inputs, low: bool) -> float:
    classifier.eval()
    order, right, batch_size = list(ByLength(validation)), 0, scored_at_once(validation)
    for at in range(0, len(order), batch_size):
        rows = np.array(order[at : at + batch_size])
        with _arithmetic(low):
            logits = classifier(torch.from_numpy(validation.gather(rows)))
        right += int((logits.argmax(dim=1).numpy() == validation.labels[rows]).sum())
    return right / len(validation)


def _arithmetic(low: bool) -> AbstractContextManager[None]:
    return torch.autocast("cpu", torch.bfloat16) if low else nullcontext()


def our_epoch(classifier: Classifier, config: FitConfig, train: Inputs, validation: Inputs) -> float:
    """Seconds of one epoch of `fit`, as its record has them: updates, and the evaluation of a few items."""
    with tempfile.TemporaryDirectory() as folder:
        return fit(classifier, config, train, validation, 0, Path(folder)).epochs[0].seconds


def measure(name: str, rounds: int) -> dict[str, object]:
    """Medians of both in items a second, and the ratio's own median and range over the rounds."""
    work = workload(name)
    ways: list[Callable[[], float]] = [
        lambda: our_epoch(work.new(), work.config, work.train, work.validation),
        lambda: bare_epoch(work.new(), work.config, work.train, work.validation),
    ]
    ours, bare = in_turn(ways, rounds)
    ratios = bare / ours
    return {
        "recipe": name,
        "model": work.model,
        "items": len(work.train),
        "rounds": rounds,
        "ours_items_s": round(len(work.train) / float(np.median(ours)), 1),
        "bare_items_s": round(len(work.train) / float(np.median(bare)), 1),
        "ratio": round(float(np.median(ratios)), 3),
        "ratio_range": [round(float(ratios.min()), 3), round(float(ratios.max()), 3)],
    }


def main() -> None:
    """Print one JSON line for each recipe."""
    measure_each(__doc__, measure, rounds=7)


def measure_each(about: str | None, measure: Callable[[str, int], dict[str, object]], rounds: int) -> None:
    """A command that measures the recipes it is given: a JSON line for each; all of them and the machine in `--out`.

    Exits with 2 if a recipe could not be measured; the others are all the same.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", default=list(ITEMS))
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--out", type=Path, help="where to write all figures")
    wanted = parser.parse_args()
    os.environ.setdefault("LIMBECK_DATA", "../shared/data")
    measured = []
    for name in wanted.recipes:
        try:
            measured.append(measure(name, wanted.rounds))
            print(json.dumps(measured[-1]), flush=True)
        except UserError as error:
            print(f"{name}: {error.message}; {error.hint}", file=sys.stderr)
    if wanted.out is not None:
        content = {"recipes": measured, "hardware": hardware(), "versions": versions()}
        wanted.out.write_text(json.dumps(content, indent=1, default=str) + "\n")
    if len(measured) < len(wanted.recipes):
        raise SystemExit(2)


if __name__ == "__main__":
    main()
