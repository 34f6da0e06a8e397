"""Students to try where [optimize] names none: smaller networks of the teacher's own kind, narrower and shallower."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import nn

from compress.init.plan import batch_for, epochs_for
from compress.optimize.config import StudentSpace
from compress.recipe import Recipe, Student
from serve.manifest import ImagePreprocessing
from train.classifier import Classifier, ClassifierSpec
from train.distill import DistillConfig
from train.fit_config import FitConfig
from train.models import takes_channels, takes_layers
from train.models.residual_blocks import removable_blocks, residual_blocks

_LAYERS = ("num_hidden_layers", "n_layers", "n_layer")  # BERT and ViT, DistilBERT, GPT-2
_HEADS = ("num_attention_heads", "n_heads", "n_head")
_WIDTHS = ("intermediate_size", "hidden_dim", "n_inner")
_HIDDEN = ("hidden_size", "dim", "n_embd")
_DEPTHS = (1 / 6, 1 / 3, 1 / 2, 2 / 3)  # of the teacher's layers
_BLOCKS = (2 / 3, 1 / 3)  # of its residual blocks
_MULTIPLE = 8  # widths that processors multiply well
_SMALL_IMAGE = 64
# Settings of a teacher's training that mean nothing for a network that begins anew.
_OF_PRETRAINED = ("final_refit", "train_layers", "layer_decay", "unfreeze", "stack")


def default_students(recipe: Recipe, teacher: Classifier, train: int) -> tuple[StudentSpace, ...]:
    """What suits such a teacher, for `train` training items. Settings of training come from the recipe's own students,

    then from its teacher, then from the size of the data.
    """
    spec = teacher.spec
    found: list[StudentSpace] = []
    if spec.network.source == "transformers":
        found += _of_layers(recipe, spec.network.config, spec.network.widths is not None, train)
    if isinstance(spec.preprocessing, ImagePreprocessing):
        found += [*_for_images(recipe, spec, train), *_pruned(recipe, teacher, train)]
    else:
        found.append(_textcnn(recipe, spec, train))
    return tuple(found)


def _of_layers(recipe: Recipe, config: Mapping[str, Any], narrow: bool, train: int) -> list[StudentSpace]:
    """Some of a transformer's own layers, whole and narrower."""
    layers = layers_of(config)
    if layers is None:
        return []
    fit, distill = _settings(recipe, "layers", train)
    depths = sorted({max(1, round(share * layers)) for share in _DEPTHS} - {layers})
    models = tuple(f"teacher-layers:{count}" for count in depths) or ("teacher-layers:1",)
    found = [StudentSpace(name="layers", model=models, fit=fit, distill=distill)]
    heads, width = _number(config, _HEADS), _number(config, _WIDTHS)
    if narrow or heads is None or width is None:
        return found
    less = [width // part for part in (2, 4) if width // part % _MULTIPLE == 0]
    half = heads // 2
    size = (_number(config, _HIDDEN) or 0) // heads
    every = (*models, f"teacher-layers:{layers}")
    if less:
        ffn: dict[str, Any] = {"ffn_width": less}
        found.append(StudentSpace(name="ffn", model=every, options=ffn, fit=fit, distill=distill))
        if half and half * size % _MULTIPLE == 0:
            both = {"heads": half, **ffn}
            found.append(StudentSpace(name="narrow", model=every, options=both, fit=fit, distill=distill))
    return found


def _textcnn(recipe: Recipe, spec: ClassifierSpec, train: int) -> StudentSpace:
    """Convolutions over word embeddings: the teacher's own where it is a transformer."""
    fit, distill = _settings(recipe, "textcnn", train)
    if spec.network.source == "transformers":
        own = _number(spec.network.config, _HIDDEN) or 64
        widths = [width for width in (64, 128, 256) if width < own] or own
        options: dict[str, Any] = {"embeddings": "teacher", "embedding": widths, "filters": [64, 128]}
    else:
        wide, filters = int(spec.network.config.get("embedding", 128)), int(spec.network.config.get("filters", 100))
        options = {"embedding": _smaller(wide), "filters": _smaller(filters)}
    return StudentSpace(name="textcnn", model="builtin:textcnn", options=options, fit=fit, distill=distill)


def _for_images(recipe: Recipe, spec: ClassifierSpec, train: int) -> list[StudentSpace]:
    assert isinstance(spec.preprocessing, ImagePreprocessing)
    fit, distill = _settings(recipe, "images", train)
    size, width = max(spec.preprocessing.size), int(spec.network.config.get("width", 16))
    name = spec.network.name if spec.network.source == "builtin" else ""
    common: dict[str, Any] = {"fit": fit, "distill": distill}
    if found := re.fullmatch(r"mlp-([\dx]+)", name):
        widths = [int(part) for part in found[1].split("x")]
        models = tuple("mlp-" + "x".join(str(max(8, each // part)) for each in widths) for part in (2, 4, 8))
        return [StudentSpace(name="mlp", model=_builtin(models), **common)]
    if found := re.fullmatch(r"cnn-([\dx]+)", name):
        widths = [int(part) for part in found[1].split("x")]
        models = tuple("cnn-" + "x".join(str(max(4, each // part)) for each in widths) for part in (2, 4))
        hidden = int(spec.network.config.get("hidden", 64))
        return [StudentSpace(name="cnn", model=_builtin(models), options={"hidden": _smaller(hidden)}, **common)]
    depth = int(found[1]) if (found := re.fullmatch(r"resnet(\d+)", name)) else 20
    depths = tuple(f"resnet{each}" for each in (8, 14, 20, 32) if each < max(depth, 9)) or ("resnet8",)
    widths = sorted({max(_MULTIPLE, width // 2), max(_MULTIPLE, width * 3 // 4), width})
    resnets = StudentSpace(name="resnet", model=_builtin(depths), options={"width": widths}, **common)
    if size > _SMALL_IMAGE:
        return [resnets]
    cnn = ("cnn-24x48", "cnn-16x32")
    return [resnets, StudentSpace(name="cnn", model=_builtin(cnn), options={"hidden": [64, 32]}, **common)]


def _pruned(recipe: Recipe, teacher: Classifier, train: int) -> list[StudentSpace]:
    """The teacher's own network with fewer channels and residual blocks, where it is made of convolutions."""
    if not any(isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1) for module in teacher.network.modules()):
        return []
    if layers_of(teacher.spec.network.config) is not None:
        return []  # a vision transformer, whose convolution cuts the image into patches
    fit, distill = _settings(recipe, "pruned", train)
    blocks, removable = residual_blocks(teacher.network), removable_blocks(teacher.network)
    least = len(blocks) - len(removable)
    fewer = sorted({max(least, round(share * len(blocks))) for share in _BLOCKS} - {len(blocks)}, reverse=True)
    common: dict[str, Any] = {"fit": fit, "distill": distill}
    shares = ("teacher-channels:0.75", "teacher-channels:0.5", "teacher-channels:0.25")
    found = [StudentSpace(name="channels", model=shares, **common)]
    if removable:
        found.append(StudentSpace(name="blocks", model="teacher-channels:1.0", options={"blocks": fewer}, **common))
        found.append(StudentSpace(name="both", model=shares[:2], options={"blocks": fewer}, **common))
    return found


def layers_of(config: Mapping[str, Any]) -> int | None:
    """How many layers a transformer's configuration says that it has."""
    return _number(config, _LAYERS)


def _builtin(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"builtin:{name}" for name in dict.fromkeys(names))


def _smaller(width: int) -> list[int]:
    """A width, a half and a quarter of it, in multiples of 8."""
    return sorted({max(_MULTIPLE, width // part // _MULTIPLE * _MULTIPLE) for part in (1, 2, 4)}, reverse=True)


def _number(config: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    return next((config[name] for name in names if isinstance(config.get(name), int)), None)


def _settings(recipe: Recipe, kind: str, train: int) -> tuple[FitConfig, DistillConfig]:
    """How such students are trained."""
    like = next((student for student in recipe.students if student.role == "student" and _kind(student) == kind), None)
    if like is not None:
        return like.without_control().fit, like.distill or DistillConfig()
    if kind == "layers":
        batch = batch_for(train, 32, 8)
        fit = FitConfig(
            epochs=epochs_for(train, batch, 600, 3, 10),
            batch_size=batch,
            learning_rate=1e-4,
            schedule="linear",
            warmup=0.1,
        )
        return fit, DistillConfig(temperature=2.0, alpha=0.9)
    if kind == "textcnn":
        batch = batch_for(train, 64, 8)
        fit = FitConfig(epochs=epochs_for(train, batch, 1_000, 5, 20), batch_size=batch)
        return fit, DistillConfig(temperature=2.0, alpha=0.9)
    if kind == "pruned":
        return _settings(recipe, "images", train)
    if recipe.teacher.fit.epochs:  # what trains the teacher trains smaller networks of its kind
        anew = {name: FitConfig.model_fields[name].default for name in _OF_PRETRAINED}
        return recipe.teacher.fit.model_copy(update=anew), DistillConfig(temperature=4.0, alpha=0.9)
    batch = batch_for(train, 64, 16)
    fit = FitConfig(epochs=epochs_for(train, batch, 3_000, 5, 60), batch_size=batch, learning_rate=2e-3)
    return fit, DistillConfig(temperature=4.0, alpha=0.9)


def _kind(student: Student) -> str:
    if takes_layers(student.model):
        return "layers"
    if takes_channels(student.model):
        return "pruned"
    return "textcnn" if student.model == "builtin:textcnn" else "images"
