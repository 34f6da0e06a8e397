"""What fewer and narrower layers save: students of a text teacher as int8-dynamic, untrained, beside it in torch eager.

    python -m benchmarks.narrower_text runs/sst2 [--rounds 150] [--vocabulary 17000]

Bytes to label on real validation items, batch 1, 1 thread, all in a new order in every round; milliseconds of the
processor, which a busy machine disturbs less than the clock. What a network answers does not change how long it takes,
so this tells which students are worth training. The graphs have the rewrites that int8-dynamic usually keeps. Sizes are
of graph and tokenizer, with all tokens and with those of the training texts and `--vocabulary` in all, as
`prune.vocabulary` leaves them. Needs ${LIMBECK_DATA}.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from compress.export import export_onnx
from compress.graph.rewrites import REWRITES, try_on
from compress.quantize.config import Quantize
from compress.quantize.dynamic import quantize_dynamically
from compress.recipe_file import parse_recipe
from compress.rundir import read_about
from serve.predictor import OUTPUT, open_session
from serve.preparer import TOKENIZER, Preparer
from serve.runner import softmax
from train.classifier import Classifier, ModelConfig, load_classifier, new_classifier
from train.data import Data, load_data
from train.draft import Wanted
from train.models.narrow import layer_parts
from train.prune import PruneConfig, prune
from train.torch_runner import TorchRunner

KEPT = ("lone-query", "residual-sum", "tokens-first")
SHAPES = ((3, 1), (4, 1), (4, 2 / 3), (4, 1 / 2), (5, 1 / 3), (6, 1 / 2), (6, 1 / 3), (6, 1 / 4))  # layers, share
_WARMUP = 5


def measure(run: Path, rounds: int, vocabulary: int) -> list[dict[str, Any]]:
    """Of the teacher and each shape the median ms, how many times faster, and sizes in bytes."""
    recipe = parse_recipe(read_about(run)["recipe"], str(run / "run.json"))
    data, teacher = load_data(recipe.data, recipe.seed, recipe.task), load_classifier(run / "teacher")
    whole = layer_parts(teacher.network, teacher.spec.network, teacher.spec.model)[0]
    torch_runner = TorchRunner(teacher)
    ways: dict[str, Callable[[bytes], object]] = {
        "teacher, torch": lambda item: torch_runner.compute(torch_runner.prepare([item]))
    }
    rows: dict[str, dict[str, Any]] = {"teacher, torch": {}}
    texts = [item.decode() for item in data.splits["train"].content]
    for layers, share in SHAPES:
        options = {"heads": round(whole.heads * share), "ffn_width": round(whole.neurons * share / 8) * 8}
        student = _student(teacher, layers, options if share < 1 else {}, data)
        name = f"{layers} layers" + (f", {options['heads']} heads, {options['ffn_width']} neurons" if share < 1 else "")
        graph = _graph(student)
        ways[name] = _way(graph, student.preparer())
        rows[name] = _sizes(student, len(graph), prune(student, PruneConfig(vocabulary=vocabulary), texts))
    times = _in_turn(ways, data.splits["validation"].content, rounds)
    baseline = float(np.median(times["teacher, torch"]))
    return [
        {"network": name, "ms": round(1e3 * median, 3), "times_faster": round(baseline / median, 2), "n": rounds, **row}
        for name, row in rows.items()
        for median in [float(np.median(times[name]))]
    ]


def _student(teacher: Classifier, layers: int, options: dict[str, int], data: Data) -> Classifier:
    def no_images(_: object) -> Any:
        raise AssertionError("a text model asks for no images")

    config = ModelConfig(
        model=f"teacher-layers:{layers}", options={**options, "importance": "magnitude"} if options else {}
    )
    return new_classifier(config, Wanted("text", data.classes, 0, data.splits["train"], no_images, teacher)).eval()


def _graph(student: Classifier) -> bytes:
    model = onnx.load_from_string(export_onnx(student))
    for rewrite in REWRITES:
        if rewrite.name in KEPT:
            model = try_on(rewrite, model) or model
    return quantize_dynamically(model, Quantize(), reduce_range=False)


def _sizes(student: Classifier, graph: int, pruned: Classifier) -> dict[str, int]:
    """Bytes; the embeddings, one byte for each weight, are all that pruning takes from the graph."""
    config = student.spec.network.config
    gone = (config["vocab_size"] - pruned.spec.network.config["vocab_size"]) * config["hidden_size"]
    return {
        "size_bytes": graph + len(student.files[TOKENIZER]),
        "pruned_bytes": graph - gone + len(pruned.files[TOKENIZER]),
        "params": student.params,
    }


def _way(graph: bytes, preparer: Preparer) -> Callable[[bytes], object]:
    session = open_session(graph, 1, "a student")
    return lambda item: softmax(session.run([OUTPUT], {preparer.input: preparer.prepare([item])})[0], 1.0).argmax()


def _in_turn(ways: dict[str, Callable[[bytes], object]], items: Sequence[bytes], rounds: int) -> dict[str, np.ndarray]:
    """Seconds of the processor [rounds] of each way."""
    random, times = np.random.default_rng(0), {name: np.empty(rounds) for name in ways}
    for at in range(-_WARMUP, rounds):  # what the first rounds write is written over
        item = items[int(random.integers(len(items)))]
        for name in random.permutation(list(ways)):
            started = time.thread_time()
            ways[name](item)
            times[name][at] = time.thread_time() - started
    return times


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run directory of a text recipe, with its teacher trained")
    parser.add_argument("--rounds", type=int, default=150)
    parser.add_argument("--vocabulary", type=int, default=17000)
    wanted = parser.parse_args()
    os.environ.setdefault("LIMBECK_DATA", "../shared/data")
    torch.set_num_threads(1)
    for row in measure(wanted.run, wanted.rounds, wanted.vocabulary):
        print(json.dumps(row))
