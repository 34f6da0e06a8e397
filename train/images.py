"""What is decided about images before training: how they are prepared, and the statistics that normalise them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from serve.errors import UserError
from serve.manifest import ImagePreprocessing
from train.draft import Wanted
from train.inputs import Inputs
from train.sources import Items

IMAGE_SIZE = "image_size"  # the option of an image model: pixels of the square that it sees, or [height, width]
_SIZE: TypeAdapter[tuple[int, int]] = TypeAdapter(tuple[int, int])
_STATISTICS_ITEMS, _CHUNK = 100_000, 1_000


def image_preprocessing(
    options: dict[str, Any], wanted: Wanted, own: ImagePreprocessing | None = None
) -> tuple[dict[str, Any], ImagePreprocessing]:
    """The options without `image_size`, and how images are prepared for this model.

    A student sees what its teacher sees. A teacher prepares as `own` says, that is as it was pretrained, or else for
    data of one size and colour. Raises UserError where the images are of several sizes and nobody says which to take.
    """
    rest = {name: value for name, value in options.items() if name != IMAGE_SIZE}
    if wanted.teacher is not None:
        shared = wanted.teacher.spec.preprocessing
        assert isinstance(shared, ImagePreprocessing)
        return rest, shared
    if IMAGE_SIZE in options:
        return rest, _resized(own, _size(options[IMAGE_SIZE]))
    return rest, own or of_one_size(wanted.train)


def of_one_size(items: Items) -> ImagePreprocessing:
    """For data of one size and colour: exactly that. A request's image of another size is resized to it."""
    with Image.open(io.BytesIO(items.content[0])) as image:
        return ImagePreprocessing(color="L" if image.mode == "L" else "RGB", size=(image.height, image.width))


def _size(option: Any) -> tuple[int, int]:
    try:
        size = (option, option) if isinstance(option, int) else _SIZE.validate_python(option)
    except ValidationError:
        size = (0, 0)
    if min(size) < 1:
        raise UserError(f"{IMAGE_SIZE} = {option!r} is no size", "expected for example image_size = 64, or [48, 64]")
    return size


def _resized(own: ImagePreprocessing | None, size: tuple[int, int]) -> ImagePreprocessing:
    """As `own` prepares, at another size; else the shorter side is scaled and the middle is cut out."""
    if own is not None and own.resize == "exact":
        return own.model_copy(update={"size": size})
    # torchvision's classifiers scale the shorter side to 256 and cut out 224
    ratio = 1.0 if own is None or own.resize_to is None else own.resize_to / min(own.size)
    base = own or ImagePreprocessing(color="RGB", size=size)
    scaled = {"resize": "shorter-side", "resize_to": round(ratio * max(size)), "crop": "center", "size": size}
    return ImagePreprocessing.model_validate({**base.model_dump(), **scaled})


def pixel_statistics(images: Inputs) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation per channel of images uint8 [N, H, W, C], scaled to 0..1; exact, from counts of grey levels.

    Of more than 100,000 images, as many are looked at, evenly spread.
    """
    step = -(-len(images) // _STATISTICS_ITEMS)
    rows = np.arange(0, len(images), step)
    counts = np.sum([_grey_levels(images.gather(rows[at : at + _CHUNK])) for at in range(0, len(rows), _CHUNK)], axis=0)
    levels = np.arange(256) / 255
    mean = (counts * levels).sum(axis=1) / counts.sum(axis=1)
    variance = (counts * (levels - mean[:, None]) ** 2).sum(axis=1) / counts.sum(axis=1)
    return tuple(mean.tolist()), tuple(np.maximum(np.sqrt(variance), 1 / 255).tolist())


def _grey_levels(images: np.ndarray) -> np.ndarray:
    """How often each grey level occurs in each channel: int64 [C, 256]."""
    channels = range(images.shape[-1])
    return np.stack([np.bincount(images[..., channel].ravel(), minlength=256) for channel in channels])
