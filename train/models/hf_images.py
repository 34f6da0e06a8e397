"""Image classifiers of transformers: ViT, DeiT, Swin, ResNet, ConvNeXT, MobileNet and kin, prepared in their own way.

N images of C channels, height H and width W; K labels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn
from transformers import AutoModelForImageClassification, PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES

from serve.errors import UserError
from train.draft import Draft, NetworkSpec, Wanted
from train.images import IMAGE_SIZE, image_preprocessing, split_size
from train.models.heads import forget, head_of, matching_rows, own_labels, rename, take_rows
from train.models.hf_processor import read_processor
from train.models.hub import load_config, plain_config, quiet_transformers, saved_config
from train.models.options import parse_options
from train.models.pretrained import load_pretrained, set_dropout
from train.models.probe import check_input

_PLAIN_ATTENTION = ("swin", "swinv2", "donut-swin")
DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout_prob")


class ImageOptions(BaseModel):
    """`options` of a pretrained image model, beside `image_size`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dropout: float | None = Field(default=None, ge=0, lt=1)  # of hidden states, attention and head; None: its own


class ImageTransformer(nn.Module):
    """Normalised images float32 [N, C, H, W] -> logits float32 [N, K]."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(pixel_values=pixels).logits
        return logits.float()


def check(folder: Path, name: str, options: dict[str, Any]) -> None:
    """Raise UserError unless the folder's architecture can classify images, prepared as ours can be."""
    rest, _ = split_size(options)
    config = load_config(folder)
    set_dropout(config, DROPOUTS, parse_options(ImageOptions, name, rest, [IMAGE_SIZE]).dropout, name)
    read_processor(folder, name)
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        _new_model(config, name)


def draft(folder: Path, name: str, options: dict[str, Any], wanted: Wanted) -> Draft:
    """The model of a folder with a head for the wanted labels: its own where it has exactly these, else a new one."""
    rest, _ = split_size(options)
    own, normalisation = read_processor(folder, name)
    _, preprocessing = image_preprocessing(options, wanted, own)
    config = load_config(folder)
    has_head = any(kind.endswith("ForImageClassification") for kind in config.architectures or [])
    set_dropout(config, DROPOUTS, parse_options(ImageOptions, name, rest, [IMAGE_SIZE]).dropout, name)
    trained_for = own_labels(config)
    rows = matching_rows(config, wanted.labels) if has_head else None
    if rows is None:
        rename(config, wanted.labels)
    _settle(config)
    model = load_pretrained(AutoModelForImageClassification, folder, config, name, new_head=rows is None)
    if rows is None:
        forget(head_of(model))
    else:
        take_rows(head_of(model), rows)
        rename(model.config, wanted.labels)
    module = ImageTransformer(model)
    check_input(module, preprocessing, name)
    network = NetworkSpec(source="transformers", name=config.model_type, config=plain_config(model.config))
    untrained = None
    if rows is None:
        others = f"its head is for {len(trained_for)} other labels ({', '.join(trained_for[:3])}, ...)"
        untrained = others if has_head else "it has no classification head of its own"
    return Draft(network, module, preprocessing, normalisation, untrained=untrained)


def build(network: NetworkSpec, classes: int) -> nn.Module:
    """The architecture as its spec says, freshly initialised from torch's global generator."""
    config = saved_config(network.name, network.config)
    assert config.num_labels == classes
    return ImageTransformer(_new_model(config, network.name))


def _settle(config: PretrainedConfig) -> None:
    """What can be trained and exported: of DeiT's and LeViT's classifiers the one with a single head."""
    known = MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES.get(config.model_type)
    if isinstance(known, tuple):
        config.architectures = [known[0]]
    # Swin's windows, under scaled_dot_product_attention, are views that torch.onnx cannot follow (torch 2.15)
    if config.model_type in _PLAIN_ATTENTION:
        config._attn_implementation = "eager"


def _new_model(config: PretrainedConfig, name: str) -> nn.Module:
    _settle(config)
    if getattr(config, "num_channels", 3) != 3:
        raise UserError(
            f"'{name}' takes images of num_channels = {config.num_channels}, and they come as RGB",
            "take a model whose config.json says num_channels = 3",
        )
    with quiet_transformers():
        try:
            model: nn.Module = AutoModelForImageClassification.from_config(config, trust_remote_code=False)
        except ValueError:
            raise UserError(
                f"'{name}' is a {config.model_type} model, which cannot classify images",
                "take one of the ViT, DeiT, Swin, ResNet, ConvNeXT or MobileNet families",
            ) from None
    return model
