"""The runner that ships: a verified package on ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

from serve.errors import PackageError
from serve.images import prepare_images
from serve.package import Package, load_package
from serve.runner import softmax

INPUT, OUTPUT = "images", "logits"


class Predictor:
    """Scores request bytes with a model package. Safe to call from several threads."""

    def __init__(self, package: Package, threads: int | None = None) -> None:
        self.package = package
        self.labels = package.manifest.labels
        self._spec = package.manifest.preprocessing
        self._temperature = package.manifest.temperature
        self._one_by_one = not package.manifest.batch_invariant
        self._session = open_session(package.model, threads or package.serving.threads, str(package.path))
        self._check_signature()

    @classmethod
    def load(cls, path: Path, threads: int | None = None) -> Predictor:
        return cls(load_package(path), threads)

    @property
    def provider(self) -> str:
        """The execution provider that runs the graph, as ONNX Runtime names it."""
        return str(self._session.get_providers()[0])

    def prepare(self, items: Sequence[bytes]) -> np.ndarray:
        return prepare_images(items, self._spec)

    def compute(self, inputs: np.ndarray) -> np.ndarray:
        return softmax(self.logits(inputs), self._temperature)

    def logits(self, inputs: np.ndarray) -> np.ndarray:
        """Raw logits, float32 [N, K]. A graph whose answer depends on the batch gets its items one by one."""
        if self._one_by_one and len(inputs) > 1:
            return np.concatenate([self._run(inputs[row : row + 1]) for row in range(len(inputs))])
        return self._run(inputs)

    def _run(self, inputs: np.ndarray) -> np.ndarray:
        logits: np.ndarray = self._session.run([OUTPUT], {INPUT: inputs})[0]
        return logits

    def _check_signature(self) -> None:
        """One run on zeros: the first moment at which a graph and a manifest that disagree can be told apart."""
        try:
            logits = self._run(np.zeros((1, *self._spec.shape), dtype=np.uint8))
        except Exception as error:  # ORT raises a dozen kinds, none of them public
            raise PackageError(
                f"{self.package.path}: the model does not run on an input {INPUT!r}: {str(error).splitlines()[0]}",
                f"expected uint8 [N, {', '.join(map(str, self._spec.shape))}] in, float32 {OUTPUT!r} out",
            ) from None
        if logits.shape != (1, len(self.labels)):
            raise PackageError(
                f"{self.package.path}: the model gives {logits.shape[-1]} scores for {len(self.labels)} labels",
                "the graph and the manifest are from different models; write the package again",
            )


def open_session(model: bytes, threads: int, origin: str) -> ort.InferenceSession:
    """An ONNX Runtime session on the CPU. `origin` names the model in errors."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning threads burn the cores that decoding and the event loop need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ORT raises a dozen kinds, none of them public
        raise PackageError(
            f"ONNX Runtime {ort.__version__} cannot load {origin}: {str(error).splitlines()[0]}",
            "was it exported for a newer runtime?",
        ) from None
