"""Tiny image classifiers in folders as a user would have them: configuration, weights, preprocessor_config.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from helpers import image_inputs
from transformers import (
    AutoModel,
    AutoModelForImageClassification,
    ConvNextConfig,
    DeiTConfig,
    MobileNetV2Config,
    PretrainedConfig,
    ResNetConfig,
    SwinConfig,
    ViTConfig,
)

from train.classifier import Classifier, ModelConfig, new_classifier
from train.draft import Wanted
from train.sources import Items

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
PROCESSORS: dict[str, dict[str, Any]] = {
    "vit": {"image_processor_type": "ViTImageProcessor", "size": 32},
    "deit": {"image_processor_type": "DeiTImageProcessor", "size": 37, "crop_size": 32, "resample": 3},
    "swin": {"feature_extractor_type": "ViTFeatureExtractor", "size": 32, "resample": 3},
    "resnet": {"image_processor_type": "ConvNextImageProcessorFast", "size": {"shortest_edge": 32}, "crop_pct": 0.875},
    "convnext": {"image_processor_type": "ConvNextImageProcessor", "size": 32, "crop_pct": 0.95},
    "mobilenet_v2": {
        "image_processor_type": "MobileNetV2ImageProcessor",
        "size": {"shortest_edge": 36},
        "crop_size": {"height": 32, "width": 32},
    },
}
FAMILIES = tuple(PROCESSORS)


def tiny_config(family: str, layers: int = 2) -> PretrainedConfig:
    """A configuration of a few thousand weights for images of 32x32."""
    encoder: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    }
    configs: dict[str, Any] = {
        "vit": lambda: ViTConfig(image_size=32, patch_size=8, **encoder),
        "deit": lambda: DeiTConfig(image_size=32, patch_size=8, **encoder),
        "swin": lambda: SwinConfig(image_size=32, embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4),
        "resnet": lambda: ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"),
        "convnext": lambda: ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2),
        "mobilenet_v2": lambda: MobileNetV2Config(image_size=32, depth_multiplier=0.25, initializer_range=0.3),
    }
    config: PretrainedConfig = configs[family]()
    if family == "deit":  # without it, transformers cannot choose between its two classifiers
        config.architectures = ["DeiTForImageClassification"]
    return config


def tiny_folder(
    path: Path,
    family: str = "vit",
    labels: tuple[str, ...] | None = ("ant", "bee", "cat"),
    layers: int = 2,
    **processor: Any,
) -> Path:
    """A model with random weights, saved; with a trained head for `labels`, or without one."""
    torch.manual_seed(0)
    config = tiny_config(family, layers)
    if labels is None:
        AutoModel.from_config(config).save_pretrained(path)
    else:
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: at for at, label in enumerate(labels)}
        AutoModelForImageClassification.from_config(config).save_pretrained(path)
    (path / "preprocessor_config.json").write_text(json.dumps({**PROCESSORS[family], **processor}))
    return path


def transformer(
    folder: Path, labels: tuple[str, ...] = ("ant", "bee", "cat"), teacher: Classifier | None = None, **options: Any
) -> Classifier:
    """A new classifier of images from a folder, in eval mode."""
    return image_model(f"hf:{folder}", labels, teacher, **options)


def image_model(
    model: str, labels: tuple[str, ...] = ("ant", "bee", "cat"), teacher: Classifier | None = None, **options: Any
) -> Classifier:
    """A new classifier of images, in eval mode."""
    items = Items([b""], np.zeros(1, dtype=np.int64))
    wanted = Wanted("image", labels, 1, items, lambda _: image_inputs(IMAGES), teacher)
    return new_classifier(ModelConfig(model=model, options=options).checked("image"), wanted).eval()
