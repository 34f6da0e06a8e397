"""What several test modules share: tiny models, their packages, images and texts."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing

from serve.manifest import ImagePreprocessing, Manifest, ServingConfig, TextPreprocessing
from serve.package import Package, write_package
from serve.predictor import Predictor
from train.classifier import Classifier, ModelConfig, new_classifier
from train.draft import Wanted
from train.inputs import ImageInputs
from train.sources import Items

LABELS = ("dark", "red", "green", "blue")
TEXT_LABELS = ("negative", "neutral", "positive")
WORDS = ("a", "bad", "dull", "film", "fine", "good", "great", "not", "the", "very")
PAD, UNKNOWN, START, END = "[PAD]", "[UNK]", "[CLS]", "[SEP]"
VOCABULARY = (PAD, UNKNOWN, START, END, *WORDS)

# Of the real server that the tests share: small enough for a test to reach each within a moment.
SERVER_LIMITS = {
    "LIMBECK_MAX_BODY_BYTES": str(256 * 1024),
    "LIMBECK_MAX_ITEMS": "40",
    "LIMBECK_MAX_TEXT_CHARS": "2000",
    "LIMBECK_MAX_CONCURRENCY": "8",
    "LIMBECK_BODY_SECONDS": "2",
    "LIMBECK_HEAD_SECONDS": "1",
}


@dataclass(frozen=True)
class Served:
    """A real server, and the same model at hand."""

    url: str
    port: int
    log: Path
    predictor: Predictor
    pid: int

    @property
    def model_id(self) -> str:
        return self.predictor.package.manifest.id


def image_inputs(images: np.ndarray, labels: np.ndarray | None = None) -> ImageInputs:
    """Images uint8 [N, H, W, C] as a prepared split."""
    return ImageInputs(images, np.zeros(len(images), dtype=np.int64) if labels is None else labels)


def image_classifier(
    images: np.ndarray, labels: tuple[str, ...], seed: int = 1, model: str = "builtin:cnn-8", **options: Any
) -> Classifier:
    """A new classifier for images like these: uint8 [N, H, W, C]."""
    item = encoded(Image.fromarray(images[0, ..., 0] if images.shape[-1] == 1 else images[0]))
    wanted = Wanted(
        task="image",
        labels=labels,
        seed=seed,
        train=Items([item], np.zeros(1, dtype=np.int64)),
        images=lambda _: image_inputs(images),
    )
    return new_classifier(ModelConfig(model=model, options=options).checked(), wanted)


def tiny_onnx(channels: int = 3, classes: int = 4) -> bytes:
    """`images` uint8 [N, H, W, C] to `logits` float32 [N, K]: the mean colour, times a fixed matrix."""
    weight = np.zeros((channels, classes), np.float32)
    for channel in range(channels):
        weight[channel, 1 + channel % (classes - 1)] = 8.0
    bias = np.linspace(1.0, 0.0, classes, dtype=np.float32)
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["pixels", "scale"], ["unit"]),
        helper.make_node("ReduceMean", ["unit", "axes"], ["mean"], keepdims=0),
        helper.make_node("Gemm", ["mean", "weight", "bias"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", "H", "W", channels])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", classes])],
        [
            numpy_helper.from_array(np.array(1 / 255, np.float32), "scale"),
            numpy_helper.from_array(np.array([1, 2], np.int64), "axes"),
            numpy_helper.from_array(weight, "weight"),
            numpy_helper.from_array(bias, "bias"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def tiny_package(path: Path, **changes: Any) -> Package:
    """A package of the tiny model for 8x8 RGB images. `changes` go into its manifest."""
    fields: dict[str, Any] = {
        "task": "image",
        "labels": LABELS,
        "preprocessing": ImagePreprocessing(color="RGB", size=(8, 8)),
        "precision": "fp32",
        "batch_invariant": True,
        "files": {},
        **changes,
    }
    card = {"name": "tiny", "metrics": {"accuracy": 0.5}}
    return write_package(path, Manifest(**fields), {"model.onnx": tiny_onnx()}, card, ServingConfig())


def tiny_tokenizer(special: bool = True) -> bytes:
    """The tokenizer.json of a small vocabulary of whole words, in lower case; `special` puts [CLS] and [SEP] around."""
    ids = {token: at for at, token in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(WordLevel(ids, unk_token=UNKNOWN))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.add_special_tokens([PAD, UNKNOWN, START, END])
    if special:
        ends = [(START, ids[START]), (END, ids[END])]
        tokenizer.post_processor = TemplateProcessing(single=f"{START} $A {END}", special_tokens=ends)
    return tokenizer.to_str().encode()


def tiny_text_onnx(pad_id: int = 0, classes: int = 3) -> bytes:
    """`input_ids` int64 [N, L] to `logits` float32 [N, K]: the mean of the tokens' vectors, times a fixed matrix."""
    random = np.random.default_rng(7)
    vectors = random.normal(size=(len(VOCABULARY), 4)).astype(np.float32)
    weight = random.normal(scale=2, size=(4, classes)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["vectors", "input_ids"], ["embedded"]),
        helper.make_node("Equal", ["input_ids", "pad"], ["padding"]),
        helper.make_node("Not", ["padding"], ["kept"]),
        helper.make_node("Cast", ["kept"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
        helper.make_node("Mul", ["embedded", "column"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "tokens"], ["sum"], keepdims=0),
        helper.make_node("ReduceSum", ["mask", "tokens"], ["count"], keepdims=1),
        helper.make_node("Max", ["count", "one"], ["divisor"]),  # a text may have no token at all
        helper.make_node("Div", ["sum", "divisor"], ["mean"]),
        helper.make_node("MatMul", ["mean", "weight"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny-text",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["N", "L"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", classes])],
        [
            numpy_helper.from_array(vectors, "vectors"),
            numpy_helper.from_array(weight, "weight"),
            numpy_helper.from_array(np.array(pad_id, np.int64), "pad"),
            numpy_helper.from_array(np.array([1], np.int64), "tokens"),
            numpy_helper.from_array(np.array([2], np.int64), "last"),
            numpy_helper.from_array(np.array(1, np.float32), "one"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def tiny_text_package(path: Path, tokenizer: bytes | None = None, **changes: Any) -> Package:
    """A package of the tiny text model, which takes 16 tokens. `changes` go into its manifest."""
    fields: dict[str, Any] = {
        "task": "text",
        "labels": TEXT_LABELS,
        "preprocessing": TextPreprocessing(max_length=16, pad_id=0),
        "precision": "fp32",
        "batch_invariant": True,
        "files": {},
        **changes,
    }
    files = {"model.onnx": tiny_text_onnx(), "tokenizer.json": tokenizer or tiny_tokenizer()}
    card = {"name": "tiny-text", "metrics": {"accuracy": 0.5}}
    return write_package(path, Manifest(**fields), files, card, ServingConfig())


def texts(count: int, seed: int = 0, longest: int = 14) -> list[bytes]:
    """Texts of 1 to `longest` of the tiny model's words."""
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, random.integers(1, longest + 1))).encode() for _ in range(count)]


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    """The file of `image`."""
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def colored(red: int, green: int, blue: int, size: tuple[int, int] = (8, 8)) -> bytes:
    """A PNG of one colour."""
    return encoded(Image.new("RGB", size, (red, green, blue)))


def multipart(*parts: tuple[str, bytes], boundary: str = "limbeck-test") -> tuple[bytes, str]:
    """A multipart/form-data body with these named parts, and its Content-Type."""
    lines = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="f"\r\n\r\n'.encode()
        + content
        + b"\r\n"
        for name, content in parts
    ]
    return b"".join(lines) + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"
