"""A classifier as one ONNX file: uint8 [N, H, W, C] or ids int64 [N, L] in, logits float32 [N, K] out, N and L free."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import onnx
import onnxslim
import torch
from transformers import PreTrainedModel

from compress.first_token import take_first_token_early
from compress.graph.positions import trim_positions
from kernels.sites import unfuse
from serve.predictor import OUTPUT
from train.classifier import Classifier


def export_onnx(classifier: Classifier) -> bytes:
    """The exported and simplified graph, weights inside. Normalisation and masks are a part of it, as of the module."""
    unfuse(classifier)  # no runtime of ONNX knows our kernels
    free = {0: torch.export.Dim("batch")}
    if classifier.spec.preprocessing.kind == "text":
        free[1] = torch.export.Dim("length", max=classifier.spec.preprocessing.max_length)
    with quiet(), _plain_attention(classifier):
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
        model: onnx.ModelProto = onnxslim.slim(program.model_proto)
    onnx.checker.check_model(model, full_check=True)
    if classifier.spec.preprocessing.kind == "text":
        model = trim_positions(take_first_token_early(model), classifier.spec.preprocessing.max_length)
    content: bytes = model.SerializeToString()
    return content


@contextmanager
def _plain_attention(classifier: Classifier) -> Iterator[None]:
    """Attention as matmul and softmax: torch's fused one exports with checks for rows of NaN, a tenth of the time."""
    found = [module for module in classifier.modules() if isinstance(module, PreTrainedModel)][:1]
    before = [model.config._attn_implementation for model in found]
    for model in found:
        model.set_attn_implementation("eager")
    try:
        yield
    finally:
        for model, implementation in zip(found, before, strict=True):
            model.set_attn_implementation(implementation or "sdpa")


def normalisation_nodes(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes from an image to the first layer with weights: permute, cast, multiply, add.

    They stay in floating point when the graph is quantized: int8 there would cost accuracy and win no time.
    """
    names: list[str] = []
    reached = {model.graph.input[0].name}
    for node in model.graph.node:  # in topological order
        if node.op_type in ("Transpose", "Cast", "Mul", "Add") and reached & set(node.input):
            names.append(node.name)
            reached.update(node.output)
    return names


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the chatter of the exporter and the quantizer, which means nothing to the user."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
