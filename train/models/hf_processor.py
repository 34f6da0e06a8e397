"""preprocessor_config.json of a Hugging Face image model in our schema. What it cannot say is refused by field name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoImageProcessor

from serve.errors import UserError, said
from serve.manifest import ImagePreprocessing
from train.draft import Normalisation
from train.models.hub import quiet_transformers

PROCESSOR = "preprocessor_config.json"
# Classes whose steps are those of transformers' base class: resize, center crop, rescale, normalise; ConvNext's resize
# is its own. Others scale, cut or turn in ways of their own.
_PLAIN = ("Bit", "DeiT", "MobileNetV1", "MobileNetV2", "Pvt", "Siglip", "ViT")
_CONVNEXT = "ConvNext"
_WARPED = 384  # from this size on, ConvNext's resizes to a square without a crop
_READ = (
    *("do_resize", "size", "resample", "do_center_crop", "crop_size", "crop_pct"),
    *("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std"),
)
# Fields that change no pixel of an RGB photograph: names, containers, and labels of segmentation
_IDLE = (
    *("image_processor_type", "feature_extractor_type", "processor_class", "_valid_processor_keys"),
    *("do_convert_rgb", "return_tensors", "data_format", "input_data_format", "device", "disable_grouping"),
    *("do_reduce_labels", "reduce_labels", "default_to_square", "model_input_names"),
)
_INTERPOLATION = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # as Pillow counts


def read_processor(folder: Path, name: str) -> tuple[ImagePreprocessing, Normalisation]:
    """How the model in `folder` wants its images. Raises UserError naming the field that cannot be served."""
    if not (folder / PROCESSOR).is_file():
        raise UserError(
            f"'{name}' has no {PROCESSOR}: nobody says how its images are prepared", f"put that file into {folder}"
        )
    with quiet_transformers():
        try:  # it fills in what old files leave out, and turns old forms of `size` into the new one
            processor = AutoImageProcessor.from_pretrained(
                folder, backend="pil", local_files_only=True, trust_remote_code=False
            )
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise UserError(
                f"cannot read {folder / PROCESSOR}: {said(error)}", "copy it from the model again"
            ) from None
    fields: dict[str, Any] = json.loads(json.dumps(processor.to_dict(), default=str))
    return map_processor(fields, type(processor).__name__.removesuffix("Pil"), name)


def map_processor(fields: Mapping[str, Any], kind: str, name: str) -> tuple[ImagePreprocessing, Normalisation]:
    """`fields` of a processor of class `kind`, all defaults filled in, in our terms."""
    kind = kind.removesuffix("Fast").removesuffix("ImageProcessor")
    if kind not in (*_PLAIN, _CONVNEXT):
        raise _unfit(name, "image_processor_type", f"{kind}ImageProcessor")
    for field, value in fields.items():
        if field not in (*_READ, *_IDLE) and value not in (None, False):
            raise _unfit(name, field, value)
    return _geometry(fields, kind, name), _normalisation(fields, name)


def _geometry(fields: Mapping[str, Any], kind: str, name: str) -> ImagePreprocessing:
    if not fields.get("do_resize"):
        raise _unfit(name, "do_resize", fields.get("do_resize"))
    if fields.get("resample") not in _INTERPOLATION:
        raise _unfit(name, "resample", fields.get("resample"))
    size = {side: value for side, value in dict(fields["size"]).items() if value is not None}
    resize = _convnext(fields, size, name) if kind == _CONVNEXT else _plain(fields, size, name)
    return ImagePreprocessing.model_validate(
        {"color": "RGB", "interpolation": _INTERPOLATION[fields["resample"]], **resize}
    )


def _plain(fields: Mapping[str, Any], size: Mapping[str, int], name: str) -> dict[str, Any]:
    crop = _sides(fields["crop_size"], "crop_size", name) if fields.get("do_center_crop") else None
    if set(size) == {"shortest_edge"}:
        if crop is None:  # images of different shapes cannot share a batch
            raise _unfit(name, "do_center_crop", fields.get("do_center_crop"))
        return {"resize": "shorter-side", "resize_to": size["shortest_edge"], "crop": "center-down", "size": crop}
    height, width = _sides(size, "size", name)
    if crop is None or crop == (height, width):
        return {"resize": "exact", "size": (height, width)}
    if height != width:
        raise _unfit(name, "size", dict(size))
    return {"resize": "exact", "resize_to": height, "crop": "center-down", "size": crop}


def _convnext(fields: Mapping[str, Any], size: Mapping[str, int], name: str) -> dict[str, Any]:
    if set(size) != {"shortest_edge"}:
        raise _unfit(name, "size", dict(size))
    if fields.get("do_center_crop"):
        raise _unfit(name, "do_center_crop", True)
    edge = size["shortest_edge"]
    if edge >= _WARPED:
        return {"resize": "exact", "size": (edge, edge)}
    resize_to = int(edge / fields["crop_pct"])
    return {"resize": "shorter-side", "resize_to": resize_to, "crop": "center-down", "size": (edge, edge)}


def _sides(size: Any, field: str, name: str) -> tuple[int, int]:
    known = {side: value for side, value in dict(size or {}).items() if value is not None}
    if set(known) != {"height", "width"}:
        raise _unfit(name, field, size)
    return known["height"], known["width"]


def _normalisation(fields: Mapping[str, Any], name: str) -> Normalisation:
    """Our graph scales pixels to 0..1 first; theirs may multiply by something else, or by nothing, before."""
    factor = 255.0 * fields.get("rescale_factor", 1 / 255) if fields.get("do_rescale") else 255.0
    if not fields.get("do_normalize"):
        return Normalisation(mean=(0.0,) * 3, std=(1 / factor,) * 3)
    mean, std = (_per_channel(fields[field], field, name) for field in ("image_mean", "image_std"))
    return Normalisation(mean=tuple(value / factor for value in mean), std=tuple(value / factor for value in std))


def _per_channel(value: Any, field: str, name: str) -> tuple[float, ...]:
    values = tuple(value) if isinstance(value, list | tuple) else (value,) * 3
    if len(values) != 3 or not all(isinstance(part, int | float) for part in values):
        raise _unfit(name, field, value)
    return values


def _unfit(name: str, field: str, value: Any) -> UserError:
    return UserError(
        f"'{name}' prepares its images in a way that cannot be served: {field} = {value!r} in {PROCESSOR}",
        "known are resize, center crop, rescale and normalise, as ViT, DeiT, ConvNeXT, ResNet, Swin and MobileNet do",
    )
