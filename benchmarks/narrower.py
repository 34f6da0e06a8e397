"""What fewer channels and fewer blocks save: ResNet-20 for 32x32 pixels, pruned in several ways, beside the whole one.

    python -m benchmarks.narrower [--rounds 500]

fp32 in ONNX Runtime, batch 1, 1 thread, one call of each in every round. The weights are new: what a network answers
does not change how long it takes.
"""

from __future__ import annotations

import argparse
import json
import time
from io import BytesIO
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image

from compress.export import export_onnx
from serve.manifest import ImagePreprocessing
from train.classifier import Classifier, ModelConfig, new_classifier
from train.draft import Wanted
from train.inputs import ImageInputs
from train.sources import Items

IMAGES = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "half the channels, of 8": ("teacher-channels:0.5", {"importance": "magnitude"}),
    "half the channels, of 16": ("teacher-channels:0.5", {"importance": "magnitude", "round_to": 16}),
    "6 of 9 blocks": ("teacher-channels:1.0", {"blocks": 6, "importance_items": 1}),
    "3 of 9 blocks": ("teacher-channels:1.0", {"blocks": 3, "importance_items": 1}),
}


def measure(rounds: int) -> list[dict[str, object]]:
    """Of each way parameters, multiply-accumulates, median milliseconds, and how many times as fast as the whole."""
    teacher = _new(ModelConfig(model="builtin:resnet20", options={"image_size": 32}), None)
    students = {way: _new(ModelConfig(model=model, options=options), teacher) for way, (model, options) in WAYS.items()}
    models = {"whole": teacher, **students}
    sessions = {way: _session(model) for way, model in models.items()}
    times = {way: np.empty(rounds) for way in models}
    for at in range(-10, rounds):  # ten to warm up, which the next rounds write over
        for way, session in sessions.items():
            started = time.perf_counter()
            session.run(None, {"images": IMAGES[at % len(IMAGES)][None]})
            times[way][at] = 1000 * (time.perf_counter() - started)
    whole = float(np.median(times["whole"]))
    return [
        {
            "network": way,
            "params": model.params,
            "macs": model.macs(),
            "ms": round(float(np.median(times[way])), 3),
            "times_as_fast": round(whole / float(np.median(times[way])), 2),
            "rounds": rounds,
        }
        for way, model in models.items()
    ]


def _new(config: ModelConfig, teacher: Classifier | None) -> Classifier:
    def images(_: ImagePreprocessing) -> ImageInputs:
        return ImageInputs(IMAGES, np.zeros(len(IMAGES), dtype=np.int64))

    items = Items([_png()], np.zeros(1, dtype=np.int64))
    labels = tuple(str(label) for label in range(10))
    return new_classifier(config, Wanted("image", labels, 0, items, images, teacher)).eval()


def _png() -> bytes:
    buffer = BytesIO()
    Image.fromarray(IMAGES[0]).save(buffer, "PNG")
    return buffer.getvalue()


def _session(classifier: Classifier) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(export_onnx(classifier), options, providers=["CPUExecutionProvider"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=500)
    for row in measure(parser.parse_args().rounds):
        print(json.dumps(row))
