"""What each precision of a model costs and saves: size, time of the processor, and how far its answers are from fp32's.

    limbeck run compress/recipes/sst2.toml --set \\
        'quantize.precisions=["fp32","fp16","int8-static","int8-dynamic","int8-mixed","int8-weights","int4-weights"]'
    python -m benchmarks.precisions runs/sst2 layers3 [--rounds 60] [--out FILE]

Answers are those of the run's validation split. Times are medians over rounds in which each package answers the same
item of the run's load test once, from bytes to label, batch 1, 1 thread; what other work takes of the machine is not
counted, since it is the processor's time.
"""

from __future__ import annotations

import argparse
import base64
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from compress.environment import hardware
from compress.measure.predictions import read_scores
from loadtests.payloads import PAYLOADS, load_payloads
from serve.predictor import Predictor
from serve.runner import scores

_WARM_UP = 5


def measure(run: Path, model: str, rounds: int) -> list[dict[str, Any]]:
    """A row for each precision of `model` that the run holds, fp32 first."""
    packages = sorted(run.glob(f"packages/{model}-*"))
    precisions = {name.name.removeprefix(f"{model}-"): name for name in packages if not _control(name, model)}
    if "fp32" not in precisions:
        raise SystemExit(
            f"error: {run} has no packages/{model}-fp32\nhint: name a model of the run, as its report does"
        )
    ordered = ["fp32", *sorted(precisions.keys() - {"fp32"})]
    predictors = {name: Predictor.load(precisions[name], threads=1) for name in ordered}
    answers = {name: _validation(run, f"{model}-{name}") for name in ordered}
    medians = _times(predictors, _items(run), rounds)
    return [
        {
            "precision": name,
            "size_mb": round(predictors[name].package.size_bytes / 1e6, 2),
            "ms": round(medians[name], 3),
            "of_fp32": round(medians[name] / medians["fp32"], 3),
            "divergence_nats": _divergence(answers["fp32"], answers[name]),
            "labels_that_differ": int((answers["fp32"].argmax(1) != answers[name].argmax(1)).sum()),
            "items": len(answers[name]),
            "depends_on_batch": not predictors[name].package.manifest.batch_invariant,
        }
        for name in ordered
    ]


def _control(package: Path, model: str) -> bool:
    """Whether the package is of another model whose name begins in the same way."""
    return package.name.removeprefix(f"{model}-").startswith("alone-")


def _validation(run: Path, variant: str) -> np.ndarray:
    return read_scores(run / "predictions" / "validation" / f"{variant}.parquet")


def _items(run: Path) -> list[bytes]:
    payloads = load_payloads(run / PAYLOADS)
    return [item.text.encode() if payloads.task == "text" else base64.b64decode(item.text) for item in payloads.items]


def _times(predictors: dict[str, Predictor], items: list[bytes], rounds: int) -> dict[str, float]:
    """Median milliseconds of the processor for one item."""
    times: dict[str, list[float]] = {name: [] for name in predictors}
    for at in range(-_WARM_UP, rounds):
        for name, predictor in predictors.items():
            started = time.process_time()
            scores(predictor, [items[at % len(items)]])
            if at >= 0:
                times[name].append(1000 * (time.process_time() - started))
    return {name: float(np.median(values)) for name, values in times.items()}


def _divergence(parent: np.ndarray, child: np.ndarray) -> float:
    """Mean Kullback-Leibler divergence of the child's scores from the parent's, in nats."""
    p, q = (np.clip(each.astype(np.float64), 1e-12, 1) for each in (parent, child))
    return float(f"{(p * np.log(p / q)).sum(axis=1).mean():.3g}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = measure(options.run, options.model, options.rounds)
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in row.items()))
    if options.out:
        content = {"run": options.run.name, "model": options.model, "rounds": options.rounds, "rows": rows}
        options.out.write_text(json.dumps({**content, "hardware": hardware()}, indent=2) + "\n")


if __name__ == "__main__":
    main()
