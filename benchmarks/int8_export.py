"""The int8 graph of a text teacher beside what others make of it: speed in turn, accuracy on the same items.

    python -m benchmarks.int8_export runs/sst2 [--split test] [--items 0] [--rounds 300] [--openvino DIR] [--out FILE]

Measured are torch eager; the plain export of torch.onnx.export(dynamo=True), and `quantize_dynamic` on it with its
defaults; our packages, their graphs rewritten where that is measured faster, and int8-dynamic without that; OpenVINO
with int8 by NNCF, in a virtual environment of its own (`--openvino`: a folder for it, made where it is not there yet;
"none" leaves it out). Batch 1, 1 thread; the graph alone at `--tokens` tokens, and from bytes to label on real items.
Milliseconds by the clock, and of the processor, which a busy machine disturbs less. Needs ${LIMBECK_DATA}.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.int8_ways import OURS, Way, make_ways
from benchmarks.openvino_peer import OpenVino, environment
from compress.environment import hardware, versions
from compress.evidence.statistics import drop_interval
from compress.recipe_file import parse_recipe
from compress.rundir import read_about
from serve.errors import UserError
from train.classifier import Classifier, load_classifier
from train.data import load_data
from train.inputs import PreparedSplits

REFERENCE = "plain int8"  # what the others are compared with
_WARMUP = 5
_CALIBRATION = 300  # items for NNCF, whose default it is


def measure(wanted: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Everything of one run as plain JSON; graphs and packages go into `folder`. Raises UserError."""
    recipe = parse_recipe(read_about(wanted.run)["recipe"], str(wanted.run / "run.json"))
    if recipe.task != "text":
        raise UserError("int8_export is for text classifiers", "give it the run of a recipe with task = 'text'")
    data = load_data(recipe.data, recipe.seed, recipe.task)
    classifier = load_classifier(wanted.run / "teacher")
    precisions = [precision for precision in OURS if precision in {"fp32", *wanted.precisions}]
    calibration = PreparedSplits().get("calibration", data.splits["calibration"], classifier.preparer())
    ways, made = make_ways(classifier, calibration, data.splits["validation"].content, folder, precisions)
    peer = _openvino(wanted.openvino, folder, classifier, data.splits["calibration"].content[:_CALIBRATION])
    left_out = None if isinstance(peer, OpenVino) else peer
    if isinstance(peer, OpenVino):
        ways["OpenVINO int8"], made["OpenVINO int8"] = peer, peer.about
    items = data.splits[wanted.split]
    count = wanted.items or len(items)
    content, labels = items.content[:count], items.labels[:count]
    tokens = _of_length(classifier.preparer(), content, wanted.tokens)
    graph = _in_turn(ways, [tokens] * wanted.rounds, None)
    whole = _in_turn(ways, [content[row % count] for row in range(wanted.rounds)], classifier.preparer())
    said = {name: _labels(way, classifier.preparer(), content) for name, way in ways.items()}
    if isinstance(peer, OpenVino):
        peer.close()
    rows = {
        name: {
            "graph": _told(graph, name),
            "bytes_to_label": _told(whole, name),
            "accuracy": _accuracy(said, labels, name),
            **made.get(name, {}),
        }
        for name in ways
    }
    return {
        "run": wanted.run.name,
        "split": wanted.split,
        "items": count,
        "tokens": wanted.tokens,
        "rounds": wanted.rounds,
        "reference": REFERENCE,
        "left_out": left_out,
        "hardware": hardware(),
        "load_average": [round(load, 1) for load in os.getloadavg()],
        "versions": versions(),
        "ways": rows,
    }


def _openvino(wanted: str, folder: Path, classifier: Classifier, items: Sequence[bytes]) -> OpenVino | str:
    """Its int8 of plain.onnx, calibrated on `items`; or why it is left out."""
    if wanted == "none":
        return "OpenVINO is left out, as was asked"
    try:
        python = environment(Path(wanted) if wanted else folder / "openvino")
        some = [classifier.preparer().prepare([item]) for item in items]
        return OpenVino(python, folder / "plain.onnx", some, folder)
    except UserError as error:
        print(f"{error.message}; {error.hint}", file=sys.stderr)
        return error.message


def _of_length(preparer: Any, content: Sequence[bytes], tokens: int) -> np.ndarray:
    """Ids int64 [1, tokens] of real items one after another, so that no token is padding."""
    ids: list[int] = []
    for item in content:
        ids += [int(token) for token in preparer.prepare([item])[0]]
        if len(ids) >= tokens:
            return np.array([ids[:tokens]], dtype=np.int64)
    raise UserError(f"the split has no {tokens} tokens", "take fewer with --tokens")


def _in_turn(ways: dict[str, Way], inputs: Sequence[Any], preparer: Any) -> dict[str, np.ndarray]:
    """Seconds [rounds, (clock, processor)] of each way, which take turns in a new order each round.

    With a preparer, inputs are bytes, and the time is that to the label.
    """
    random = np.random.default_rng(0)
    times = {name: np.empty((len(inputs), 2)) for name in ways}
    for round_, given in enumerate([inputs[0]] * _WARMUP + list(inputs)):
        for name in random.permutation(list(ways)):
            wall, processor = time.perf_counter(), time.thread_time()
            ids = given if preparer is None else preparer.prepare([given])
            prepared = time.perf_counter() - wall, time.thread_time() - processor
            spent = ways[name](ids)[1:]
            times[name][max(0, round_ - _WARMUP)] = np.add(prepared, spent)
    return times


def _told(times: dict[str, np.ndarray], name: str) -> dict[str, Any]:
    """Medians and the middle four fifths in ms, and how many times faster than the reference: medians of ratios."""
    told: dict[str, Any] = {"n": len(times[name])}
    for at, clock in enumerate(("clock", "processor")):
        own = times[name][:, at] * 1e3
        told[f"{clock}_ms"] = round(float(np.median(own)), 3)
        told[f"{clock}_ms_p10_p90"] = [round(float(value), 3) for value in np.percentile(own, [10, 90])]
        ratios = times[REFERENCE][:, at] / times[name][:, at]
        told[f"{clock}_times_faster"] = round(float(np.median(ratios)), 3)
    return told


def _labels(way: Way, preparer: Any, content: Sequence[bytes]) -> np.ndarray:
    return np.array([way(preparer.prepare([item]))[0][0].argmax() for item in content])


def _accuracy(said: dict[str, np.ndarray], labels: np.ndarray, name: str) -> dict[str, Any]:
    """Percent right; the drop from the reference in points, paired, with its 95 % interval (Tango 1998)."""
    right, theirs = said[name] == labels, said[REFERENCE] == labels
    lost, gained, n = int((theirs & ~right).sum()), int((right & ~theirs).sum()), len(labels)
    return {
        "percent": round(100 * float(right.mean()), 2),
        "drop_points": round(100 * (lost - gained) / n, 2),
        "drop_points_ci95": [round(100 * end, 2) for end in drop_interval(lost, gained, n)],
        "flips": [lost, gained],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what was measured as JSON, and keep it in `--out`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run directory of a text recipe, with its teacher trained")
    parser.add_argument("--split", choices=["validation", "test"], default="test")
    parser.add_argument("--items", type=int, default=0, help="only so many items of the split; 0: all")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--openvino", default="", help="a folder for its environment; none: leave it out")
    parser.add_argument(
        "--precisions", nargs="*", choices=OURS, default=OURS, help="of ours; fp32 is always among them"
    )
    parser.add_argument("--out", type=Path)
    wanted = parser.parse_args(arguments)
    os.environ.setdefault("LIMBECK_DATA", "../shared/data")
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            text = json.dumps(measure(wanted, Path(folder)), indent=1)
    except UserError as error:
        print(f"{error.message}; {error.hint}", file=sys.stderr)
        return 2
    print(text)
    if wanted.out is not None:
        wanted.out.parent.mkdir(parents=True, exist_ok=True)
        wanted.out.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
