"""int8-static: the ranges of activations are fixed from calibration items, so an answer does not depend on the batch.

Of a graph with attention only the products with weights are quantized, and the embedding tables (`embeddings.py`).
Min-max ranges around every operator cost three layers of MiniLM 8.8 points on SST-2 (88.4 % to 79.6 %, n = 1,821) and
27 on TREC (94.6 % to 67.6 %, n = 500): of a softmax, a norm or a masked sum they leave few of the 256 levels to what
matters. So these stay in floating point, and so does what a product gives: 87.9 % and 94.8 %, no slower and no larger.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from pathlib import Path

import onnx
from onnx import TensorProto
from onnxruntime.quantization import QuantFormat, QuantType
from onnxruntime.quantization.calibrate import TensorData
from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.quant_utils import QuantizationMode, add_infer_metadata
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

from compress.export import normalisation_nodes
from compress.quantize.calibration import Ranges, calibrate
from compress.quantize.config import Quantize
from compress.quantize.embeddings import quantize_embeddings
from compress.quantize.operators import to_operators
from compress.quantize.smoothing import smooth
from compress.quantize.zero_points import leave_out_zeros
from serve.errors import UserError, said
from train.inputs import Inputs

# SmoothQuant's alpha where there is attention. Divergence from fp32 x 1000 on SST-2 (validation, n = 872), of three
# layers of MiniLM: none 1.4, 0.5 5.3, 0.7 0.53, 0.8 0.29, 0.9 0.28, 1 0.36, and of int8-dynamic 1.3; of its six: none
# 4.5, 0.7 1.4, 0.8 0.79, 0.85 0.69, 0.9 0.87, 1 0.78, and of int8-dynamic 3.6.
SMOOTHING = 0.85
WEIGHTED = ("MatMul", "Gemm", "Conv")
OUTPUT_IN_FLOAT = ("MatMul", "Gemm")  # a Conv without a quantized output would be computed in floating point


class Static:
    """A graph that was looked at on the calibration items, ready to be quantized, whole or in part.

    uint8 activations (signed ones fall back to fp32 on x86), int8 weights. Looking is what takes time, so that a
    search over what to leave in floating point does it once.
    """

    def __init__(self, model: onnx.ModelProto, calibration: Inputs, config: Quantize, reduce_range: bool) -> None:
        self._config, self._reduce_range = config, reduce_range
        alpha = config.smoothing
        if alpha == "auto":
            alpha = SMOOTHING if products_of_activations(model) else 0.0
        given = model
        if alpha > 0:
            model = smooth(model, calibration, alpha)
        self.smoothed = model is not given
        self.model = onnx.shape_inference.infer_shapes(model)
        add_infer_metadata(self.model)
        self.products = products_of_activations(self.model)
        self.kept = [*normalisation_nodes(self.model), *self.products]
        self.ranges: Ranges = calibrate(self.model, self._activations(), calibration, config)

    @property
    def quantizable(self) -> list[str]:
        """Names of the nodes with weights: what there is to quantize, or to give back."""
        constants = {tensor.name for tensor in self.model.graph.initializer}
        return [
            node.name
            for node in self.model.graph.node
            if node.op_type in WEIGHTED and node.name not in self.kept and constants & set(node.input)
        ]

    def without(self, exclude: Collection[str]) -> bytes:
        """The graph in int8 but for the nodes named in `exclude`."""
        config, attention = self._config, bool(self.products)
        ranges = {name: TensorData(lowest=low, highest=high) for name, (low, high) in self.ranges.items()}
        whole_operators = config.form == "operator" and not attention
        common = {
            "weight": QuantType.QInt8,
            "activation": QuantType.QUInt8,
            "nodes": [],
            "exclude": [*self.kept, *config.exclude, *exclude],
            "types": self._types(),
            "extra": {
                **({"OpTypesToExcludeOutputQuantization": list(OUTPUT_IN_FLOAT)} if attention else {}),
                **({} if config.symmetric_weights else {"WeightSymmetric": False}),
                **({"ActivationSymmetric": True} if config.symmetric_activations else {}),
            },
        }
        copy = onnx.ModelProto()
        copy.CopyFrom(self.model)
        form = QuantFormat.QOperator if whole_operators else QuantFormat.QDQ
        content = self._run(copy, form, ranges, common)
        if not attention and not self._own_tables:
            return content
        quantized = onnx.load_from_string(content)
        if config.embeddings != "none":
            quantized = quantize_embeddings(quantized, config.embeddings, config.exclude)
        if attention and config.operators:
            quantized = leave_out_zeros(to_operators(quantized))
        result: bytes = quantized.SerializeToString()
        return result

    def _run(
        self, model: onnx.ModelProto, form: QuantFormat, ranges: dict[str, TensorData], common: dict[str, object]
    ) -> bytes:
        head = (model, self._config.per_channel, self._reduce_range)
        tail = (common["nodes"], common["exclude"], common["types"], common["extra"])
        if form is QuantFormat.QOperator:
            mode = QuantizationMode.QLinearOps
            quantizer = ONNXQuantizer(*head, mode, True, common["weight"], common["activation"], ranges, *tail)
        else:
            quantizer = QDQQuantizer(*head, common["weight"], common["activation"], ranges, *tail)
        try:
            quantizer.quantize_model()
        except RuntimeError as error:  # its operator form does not know every reader of what it quantizes
            raise UserError(
                f"the graph cannot be quantized with quantize.form = '{self._config.form}': {said(error)}",
                "leave quantize.form out" if form is QuantFormat.QOperator else "take int8-dynamic",
            ) from None
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "model.onnx"
            quantizer.model.save_model_to_file(target, False)
            return target.read_bytes()

    @property
    def _own_tables(self) -> bool:
        """Whether embedding tables are as the recipe says; where there is no attention they are else the tool's."""
        return self._config.embeddings != "auto"

    def _types(self) -> list[str]:
        if self.products:
            return list(WEIGHTED)
        return sorted({*QLinearOpsRegistry, *QDQRegistry} - ({"Gather"} if self._own_tables else set()))

    def _activations(self) -> list[str]:
        """Float tensors that go into or come out of what is quantized; constants are none."""
        constants = {tensor.name for tensor in self.model.graph.initializer}
        entries = (*self.model.graph.value_info, *self.model.graph.output, *self.model.graph.input)
        floats = {entry.name for entry in entries if entry.type.tensor_type.elem_type == TensorProto.FLOAT}
        types = set(self._types())
        return list(
            dict.fromkeys(
                name
                for node in self.model.graph.node
                if node.op_type in types and node.name not in self.kept
                for name in (*node.input, *node.output)
                if name in floats and name not in constants
            )
        )


def products_of_activations(model: onnx.ModelProto) -> list[str]:
    """Names of the products with an activation, which is what makes attention; none where there is no attention."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return [node.name for node in model.graph.node if node.op_type == "MatMul" and node.input[1] not in constants]
