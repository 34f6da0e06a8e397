"""`torchvision:NAME`: any of torchvision's image classifiers, new or pretrained, with its own preprocessing.

Options: `weights` (none: random; an entry of the model's weights enum such as "DEFAULT"; a .safetensors file),
`dropout` where the model takes it, `image_size`.

Without weights, batch norm averages as torch does, with a momentum of 0.1. Some models bring 0.01 (MobileNetV3, the
large EfficientNets, MaxViT) or 0.0003 (MNASNet), made for hundreds of thousands of updates: after the few of a small
data set the averages are mostly their first values still, and evaluation, which uses them, stays at chance. With
weights the model's own momentum stays, since its averages are good already.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from types import MethodType
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision import models
from torchvision.models.mnasnet import MNASNet
from torchvision.transforms import InterpolationMode
from torchvision.transforms._presets import ImageClassification

from serve.errors import UserError, did_you_mean, said
from serve.manifest import ImagePreprocessing, Task
from train.draft import Draft, NetworkSpec, Normalisation, Wanted
from train.images import IMAGE_SIZE, image_preprocessing, split_size
from train.models.options import parse_options
from train.models.probe import check_input
from train.models.torchvision_weights import check_weights, hash_weights, read_weights, take_weights

_AUXILIARY = ("googlenet", "inception_v3")  # they have extra heads for training, which we leave off
_DROPOUTS = ("dropout", "drop_rate")  # densenet says drop_rate
_MOMENTUM = 0.1  # torch's default: how much of a batch goes into the averages of batch norm


_ANOTHER = "served are resize, center crop and normalise, as torchvision:resnet18 does: take another model"


class ZooOptions(BaseModel):
    """`options` of a torchvision model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weights: str | None = Field(default=None, min_length=1)
    dropout: float | None = Field(default=None, ge=0, lt=1)


def check(name: str, options: dict[str, Any], task: Task) -> None:
    """Raise UserError unless `name` is an image classifier of torchvision that takes `options`. Fetches nothing."""
    if task != "image":
        raise UserError(
            f"'torchvision:{name}' classifies images, the recipe's task is {task}",
            "name a model of texts, such as builtin:textcnn",
        )
    _check_name(name)
    rest, size = split_size(options)
    chosen = parse_options(ZooOptions, f"torchvision:{name}", rest, [IMAGE_SIZE])
    with _without_weights(name):
        _network(name, _config(chosen), size or _own_size(name), 10)
    if chosen.weights is not None:
        check_weights(name, chosen.weights)


def draft(name: str, options: dict[str, Any], wanted: Wanted) -> Draft:
    """The network with a head for the wanted labels, prepared and normalised as its weights were, or would be."""
    rest, _ = split_size(options)
    chosen = parse_options(ZooOptions, f"torchvision:{name}", rest, [IMAGE_SIZE])
    weights = None if chosen.weights is None else read_weights(name, chosen.weights)
    preset = (weights and weights.preset) or models.get_model_weights(name).DEFAULT.transforms()
    _, preprocessing = image_preprocessing(options, wanted, preprocessing_of(preset, name))
    network = NetworkSpec(source="torchvision", name=name, config=_config(chosen))
    module = build(network, preprocessing, len(wanted.labels))
    check_input(module, preprocessing, f"torchvision:{name}")
    untrained: str | None = "its weights are new"
    if weights is not None:
        with _without_weights(name):
            other = build(network, preprocessing, len(wanted.labels) + 1).state_dict()
        heads = {key for key, tensor in module.state_dict().items() if tensor.shape != other[key].shape}
        untrained = take_weights(module, heads, weights, wanted.labels)
    normalisation = Normalisation(mean=tuple(preset.mean), std=tuple(preset.std))
    return Draft(network, module, preprocessing, normalisation, untrained=untrained)


def origin(name: str, options: dict[str, Any]) -> str:
    """The library, which defines the network and what its weights' names mean; a hash of weights from a file."""
    weights = parse_options(ZooOptions, f"torchvision:{name}", split_size(options)[0]).weights
    return " ".join(["torchvision", version("torchvision"), *([] if weights is None else hash_weights(weights))])


def build(network: NetworkSpec, preprocessing: ImagePreprocessing, classes: int) -> nn.Module:
    """The architecture as its spec says, freshly initialised from torch's global generator."""
    return _network(network.name, network.config, preprocessing.size, classes)


def preprocessing_of(preset: Any, name: str) -> ImagePreprocessing:
    """torchvision's preset in our schema. Raises UserError for what the schema cannot say."""
    if not isinstance(preset, ImageClassification):
        raise UserError(f"'torchvision:{name}' prepares images by {type(preset).__name__}", _ANOTHER)
    if len(preset.resize_size) != 1 or len(preset.crop_size) != 1 or preset.antialias is False:
        raise UserError(f"'torchvision:{name}' prepares images in a way that cannot be served: {preset}", _ANOTHER)
    return ImagePreprocessing(
        color="RGB",
        resize="shorter-side",
        resize_to=preset.resize_size[0],
        interpolation=InterpolationMode(preset.interpolation).value,
        crop="center",
        size=(preset.crop_size[0], preset.crop_size[0]),
    )


def _check_name(name: str) -> None:
    known = models.list_models(module=models)
    if name in known:
        return
    if name in models.list_models():
        kind = models.get_model_builder(name).__module__.split(".")[2]
        raise UserError(
            f"'torchvision:{name}' is a model of torchvision's {kind.replace('_', ' ')}, not an image classifier",
            f"for example torchvision:{next((other for other in known if other in name), 'resnet18')}",
        )
    raise UserError(f"torchvision has no image classifier '{name}'", did_you_mean(name, known))


@contextmanager
def _without_weights(name: str) -> Iterator[None]:
    """Networks built here cost next to nothing and leave the random numbers alone."""
    # RegNet computes its widths with tensors, which have no values on the meta device
    with torch.random.fork_rng(devices=[]), nullcontext() if name.startswith("regnet") else torch.device("meta"):
        yield


def _config(options: ZooOptions) -> dict[str, Any]:
    """What a spec keeps beside name and size: whatever changes the architecture or what it computes."""
    dropout = {} if options.dropout is None else {"dropout": options.dropout}
    return {**dropout, "pretrained": options.weights is not None}


def _own_size(name: str) -> tuple[int, int]:
    return preprocessing_of(models.get_model_weights(name).DEFAULT.transforms(), name).size


def _network(name: str, config: dict[str, Any], size: tuple[int, int], classes: int) -> nn.Module:
    arguments: dict[str, Any] = {"num_classes": classes}
    if name in _AUXILIARY:
        # Google's weights, which torchvision converted, want their input normalised in Google's way.
        arguments |= {"aux_logits": False, "init_weights": True, "transform_input": config["pretrained"]}
    if name.startswith("vit_"):
        arguments["image_size"] = _side(name, size)
    if name.startswith("maxvit"):
        arguments["input_size"] = size
    try:
        module = _with_dropout(name, arguments, config.get("dropout"))
    except (ValueError, AssertionError) as error:  # torchvision's own words on sizes that do not fit
        problem = said(error)
        raise UserError(f"'torchvision:{name}' cannot be built: {problem}", "choose another image_size") from None
    if not config["pretrained"]:
        _follow_batches(module)
    if isinstance(module, MNASNet):
        # Its own way of loading needs a version, which safetensors does not keep; ours is always the newest.
        module._load_from_state_dict = MethodType(nn.Module._load_from_state_dict, module)
    return module


def _follow_batches(module: nn.Module) -> None:
    """Raise the momentum of batch norms whose averages would take thousands of updates to be of use."""
    for part in module.modules():
        if isinstance(part, _BatchNorm) and part.momentum is not None:
            part.momentum = max(part.momentum, _MOMENTUM)


def _with_dropout(name: str, arguments: dict[str, Any], dropout: float | None) -> nn.Module:
    if dropout is None:
        return models.get_model(name, weights=None, **arguments)
    for option in _DROPOUTS:
        try:
            module = models.get_model(name, weights=None, **arguments, **{option: dropout})
        except TypeError:  # an unknown option
            continue
        if any(_drops(part, dropout) for part in module.modules()):
            return module  # ConvNeXt takes any option and ignores it
    raise UserError(f"'torchvision:{name}' has no dropout", "leave out options.dropout")


def _drops(part: nn.Module, dropout: float) -> bool:
    return (isinstance(part, nn.Dropout) and part.p == dropout) or getattr(part, "drop_rate", None) == dropout


def _side(name: str, size: tuple[int, int]) -> int:
    if size[0] != size[1]:
        raise UserError(f"'torchvision:{name}' takes squares, not {size[1]}x{size[0]}", "for example image_size = 224")
    return size[0]
