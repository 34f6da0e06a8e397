"""The runner that ships: a verified package on ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

from serve.errors import PackageError, said
from serve.manifest import GraphLevel
from serve.package import MODEL, Package, load_package
from serve.preparer import Preparer, new_preparer
from serve.runner import softmax

OUTPUT = "logits"
_LEVELS: dict[GraphLevel, ort.GraphOptimizationLevel] = {
    "off": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
_PADDING_TOLERANCE = 0.01  # of a score; more than the rounding of fp16


class Predictor:
    """Scores request bytes with a model package. Safe to call from several threads."""

    def __init__(self, package: Package, threads: int | None = None, graph_level: GraphLevel | None = None) -> None:
        """`threads` and `graph_level` are those of its serving.json where nothing else is said."""
        self.package = package
        self.labels = package.manifest.labels
        self.preparer = _open_preparer(package)
        self._temperature = package.manifest.temperature
        self._one_by_one = not package.manifest.batch_invariant
        serving = package.serving
        self._session = open_session(
            package.files[MODEL],
            threads or serving.threads,
            str(package.path),
            graph_level or serving.graph_level,
        )
        self._check_signature()

    @classmethod
    def load(cls, path: Path, threads: int | None = None, graph_level: GraphLevel | None = None) -> Predictor:
        return cls(load_package(path), threads, graph_level)

    @property
    def provider(self) -> str:
        """The execution provider that runs the graph, as ONNX Runtime names it."""
        return str(self._session.get_providers()[0])

    def prepare(self, items: Sequence[bytes]) -> np.ndarray:
        return self.preparer.prepare(items)

    def compute(self, inputs: np.ndarray) -> np.ndarray:
        return softmax(self.logits(inputs), self._temperature)

    def logits(self, inputs: np.ndarray) -> np.ndarray:
        """Raw logits, float32 [N, K]. A graph whose answer depends on the batch gets its items one by one."""
        if self._one_by_one and len(inputs) > 1:
            return np.concatenate([self._run(item) for item in self.preparer.alone(inputs)])
        return self._run(inputs)

    def _run(self, inputs: np.ndarray) -> np.ndarray:
        logits: np.ndarray = self._session.run([OUTPUT], {self.preparer.input: inputs})[0]
        return logits

    def _check_signature(self) -> None:
        """One run: the first moment at which a graph and a manifest that disagree can be told apart."""
        inputs = self.prepare([self.preparer.sample()])
        try:
            logits = self._run(inputs)
        except Exception as error:  # ORT raises a dozen kinds, none of them public
            raise PackageError(
                f"{self.package.path}: the model does not run on an input {self.preparer.input!r}: {said(error)}",
                f"expected {self.preparer.expected()} in, float32 {OUTPUT!r} out",
            ) from None
        if logits.shape != (1, len(self.labels)):
            raise PackageError(
                f"{self.package.path}: the model gives {logits.shape[-1]} scores for {len(self.labels)} labels",
                "the graph and the manifest are from different models; write the package again",
            )
        self._check_padding(inputs)

    def _check_padding(self, inputs: np.ndarray) -> None:
        padded = self.preparer.padded(inputs)
        floats = self.package.manifest.precision in ("fp32", "fp16")  # int8 may round by what else is in the input
        if self._one_by_one or not floats or padded.shape == inputs.shape:
            return
        moved = float(np.abs(self.compute(padded) - self.compute(inputs)).max())
        if not moved <= _PADDING_TOLERANCE:
            raise PackageError(
                f"{self.package.path}: the model does not ignore padding: it moves a score by {moved:.2g}",
                "pad_id in manifest.json is not that of the model; write the package again",
            )


def _open_preparer(package: Package) -> Preparer:
    try:
        return new_preparer(package.manifest.preprocessing, package.files)
    except PackageError as error:
        raise PackageError(f"{package.path}: {error.message}", error.hint) from None


def open_session(model: bytes, threads: int, origin: str, graph_level: GraphLevel = "all") -> ort.InferenceSession:
    """An ONNX Runtime session on the CPU. `origin` names the model in errors."""
    options = ort.SessionOptions()
    options.graph_optimization_level = _LEVELS[graph_level]
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning threads burn the cores that decoding and the event loop need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ORT raises a dozen kinds, none of them public
        raise PackageError(
            f"ONNX Runtime {ort.__version__} cannot load {origin}: {said(error)}",
            "was it exported for a newer runtime?",
        ) from None
