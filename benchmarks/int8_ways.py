"""The ways to compute one text classifier that int8_export compares: torch, the plain export, and our packages."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnxruntime.quantization import quantize_dynamic

from compress.export import quiet
from compress.packaging import make_package
from compress.variants import Variant
from serve.manifest import Precision
from serve.package import MODEL, load_package
from serve.predictor import OUTPUT, open_session
from train.classifier import Classifier
from train.inputs import Inputs
from train.torch_runner import TorchRunner

# ids int64 [1, L] to logits float32 [1, K], and the seconds that took: by the clock, and of the processor
Way = Callable[[np.ndarray], tuple[np.ndarray, float, float]]
OURS: tuple[Precision, ...] = ("fp32", "int8-dynamic", "int8-static")


def make_ways(
    classifier: Classifier,
    calibration: Inputs,
    probe: Sequence[bytes],
    folder: Path,
    precisions: Sequence[Precision] = OURS,
) -> tuple[dict[str, Way], dict[str, dict[str, Any]]]:
    """Every way by its name, and what is to know of how it was made. Writes into `folder`, plain.onnx among it."""
    name = classifier.preparer().input
    runner = TorchRunner(classifier)
    ways: dict[str, Way] = {"torch eager": timed(runner.logits)}
    made: dict[str, dict[str, Any]] = {}
    for way, file in plain(classifier, folder).items():
        ways[way], made[way] = timed(_graph(file.read_bytes(), name)), {"size_bytes": file.stat().st_size}
    for precision in precisions:
        for rewritten in (True, False):
            title = f"our {precision}" + ("" if rewritten else ", not rewritten")
            place = folder / title.replace(" ", "-").replace(",", "")
            fp32 = folder / ("our-fp32" if rewritten else "our-fp32-not-rewritten")
            result = make_package(
                Variant("teacher", "teacher", precision),
                classifier,
                None if precision == "fp32" else fp32,
                calibration,
                probe,
                {},
                place,
                rewrites=rewritten,
            )
            ways[title] = timed(_graph(load_package(place).files[MODEL], name))
            made[title] = {
                "size_bytes": result.size_bytes,
                "batch_invariant": result.batch_invariant,
                "rewrites": [tried.model_dump() for tried in result.rewrites],
            }
    return ways, made


def plain(classifier: Classifier, folder: Path) -> dict[str, Path]:
    """What torch's documentation says, and ONNX Runtime's: the dynamo export, and `quantize_dynamic` of it as it is.

    But for one thing: the quantizer refuses the shapes that the exporter noted ("Inferred shape and existing shape
    differ"), so these are left out.
    """
    preprocessing = classifier.spec.preprocessing
    assert preprocessing.kind == "text"
    free = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=preprocessing.max_length)}
    files = {"plain fp32": folder / "plain.onnx", "plain int8": folder / "plain-int8.onnx"}
    with quiet():
        program = torch.onnx.export(
            classifier.eval(),
            (classifier.example(2),),
            dynamo=True,
            verbose=False,
            input_names=[classifier.preparer().input],
            output_names=[OUTPUT],
            dynamic_shapes=(free,),
            external_data=False,
        )
        assert program is not None
        model: onnx.ModelProto = program.model_proto
        del model.graph.value_info[:]
        onnx.save(model, files["plain fp32"])
        quantize_dynamic(files["plain fp32"], files["plain int8"])
    return files


def timed(compute: Callable[[np.ndarray], np.ndarray]) -> Way:
    """`compute`, whose time all passes in this thread, as a way."""

    def way(ids: np.ndarray) -> tuple[np.ndarray, float, float]:
        wall, processor = time.perf_counter(), time.thread_time()
        logits = compute(ids)
        return logits, time.perf_counter() - wall, time.thread_time() - processor

    return way


def _graph(model: bytes, name: str) -> Callable[[np.ndarray], np.ndarray]:
    session = open_session(model, 1, "a graph to be timed")

    def compute(ids: np.ndarray) -> np.ndarray:
        logits: np.ndarray = session.run([OUTPUT], {name: ids})[0]
        return logits

    return compute
