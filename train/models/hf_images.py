"""Image classifiers of transformers: ViT, DeiT, Swin, ResNet, ConvNeXT, MobileNet and kin, prepared in their own way.

N images of C channels, height H and width W; K labels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import nn
from transformers import AutoModelForImageClassification, PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES

from serve.errors import UserError, did_you_mean
from train.draft import Draft, NetworkSpec, Wanted
from train.images import IMAGE_SIZE, image_preprocessing, split_size
from train.models.heads import forget, head_of, matching_rows, own_labels, rename, take_rows
from train.models.hf_processor import read_processor
from train.models.hub import load_config, plain_config, quiet_transformers, saved_config
from train.models.probe import check_input

_PLAIN_ATTENTION = ("swin", "swinv2", "donut-swin")
_DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout_prob")


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
    _set_dropout(config, _options(name, rest).dropout, name)
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
    _set_dropout(config, _options(name, rest).dropout, name)
    trained_for = own_labels(config)
    rows = matching_rows(config, wanted.labels) if has_head else None
    if rows is None:
        rename(config, wanted.labels)
    model = _load(folder, config, name, new_head=rows is None)
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
        raise UserError(f"'{name}' takes {config.num_channels} channels, not the 3 of RGB", "take another model")
    with quiet_transformers():
        try:
            model: nn.Module = AutoModelForImageClassification.from_config(config, trust_remote_code=False)
        except ValueError:
            raise UserError(
                f"'{name}' is a {config.model_type} model, which cannot classify images",
                "take one of the ViT, DeiT, Swin, ResNet, ConvNeXT or MobileNet families",
            ) from None
    return model


def _load(folder: Path, config: PretrainedConfig, name: str, new_head: bool) -> PreTrainedModel:
    """The model with the folder's weights; a head that is new, and a pooler, may be missing among them."""
    _settle(config)
    with quiet_transformers():
        try:
            model, report = AutoModelForImageClassification.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(
                f"cannot read the weights of '{name}': {str(error).splitlines()[0]}", "copy the model's folder again"
            ) from None
    head = {key for key, parameter in model.named_parameters() if _is_part(parameter, head_of(model))}
    odd = {*report["missing_keys"], *(entry[0] for entry in report["mismatched_keys"])}
    missing = sorted(key for key in odd - (head if new_head else set()) if ".pooler." not in key)
    if missing:
        raise UserError(
            f"the weights in {folder} are not those of the model that its config.json describes: "
            f"{len(missing)} are missing or of another size, such as {missing[0]}",
            "copy config.json and model.safetensors from the same model",
        )
    loaded: PreTrainedModel = model
    return loaded


def _is_part(parameter: nn.Parameter, module: nn.Module) -> bool:
    return any(parameter is own for own in module.parameters())


def _set_dropout(config: PretrainedConfig, dropout: float | None, name: str) -> None:
    if dropout is None:
        return
    known = [option for option in _DROPOUTS if hasattr(config, option)]
    if not known:
        raise UserError(f"'{name}' has no dropout", "drop options.dropout")
    for option in known:
        setattr(config, option, dropout)


def _options(name: str, options: dict[str, Any]) -> ImageOptions:
    try:
        return ImageOptions.model_validate(options)
    except ValidationError as error:
        problem = error.errors()[0]
        key, known = str(problem["loc"][0]), [*ImageOptions.model_fields, IMAGE_SIZE]
        hint = did_you_mean(key, known) if problem["type"] == "extra_forbidden" else f"options: {', '.join(known)}"
        raise UserError(f"model '{name}' does not take option {key} = {options.get(key)!r}", hint) from None
