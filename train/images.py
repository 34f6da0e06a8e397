"""What is decided about images before training: how they are prepared, and the statistics that normalise them."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from serve.errors import InputError, UserError
from serve.images import measure_image
from serve.manifest import ImagePreprocessing
from train.draft import Wanted
from train.inputs import Inputs, count_threads, unreadable
from train.sources import Items

IMAGE_SIZE = "image_size"  # the option of an image model: pixels of the square that it sees, or [height, width]
_SIZE: TypeAdapter[tuple[int, int]] = TypeAdapter(tuple[int, int])
_MEASURED_ITEMS = 10_000
_STATISTICS_ITEMS, _CHUNK = 100_000, 1_000


def image_preprocessing(
    options: dict[str, Any], wanted: Wanted, own: ImagePreprocessing | None = None
) -> tuple[dict[str, Any], ImagePreprocessing]:
    """The options without `image_size`, and how images are prepared for this model.

    A student sees what its teacher sees. A teacher prepares as `own` says, that is as it was pretrained, or else for
    data of one size and colour. Raises UserError where the images are of several sizes and nobody says which to take.
    """
    rest, size = split_size(options)
    if wanted.teacher is not None:
        shared = wanted.teacher.spec.preprocessing
        assert isinstance(shared, ImagePreprocessing)
        return rest, shared
    if size is not None:
        return rest, _resized(own, size)
    return rest, own or of_one_size(wanted.train)


def split_size(options: dict[str, Any]) -> tuple[dict[str, Any], tuple[int, int] | None]:
    """The options without `image_size`, and that as height and width. Raises UserError where it is no size."""
    rest = {name: value for name, value in options.items() if name != IMAGE_SIZE}
    return rest, _size(options[IMAGE_SIZE]) if IMAGE_SIZE in options else None


def of_one_size(items: Items) -> ImagePreprocessing:
    """For data of one size and colour: exactly that. A request's image of another size is resized to it.

    Headers alone are read, of at most 10,000 images, evenly spread. Raises UserError where they are of several sizes.
    """
    rows = np.unique(np.linspace(0, len(items) - 1, min(len(items), _MEASURED_ITEMS)).astype(np.int64))
    upright = ImagePreprocessing(color="RGB", size=(1, 1))
    with ThreadPoolExecutor(count_threads()) as threads:  # for items that are read from disk
        measured = list(threads.map(lambda row: _measure(items, int(row), upright), rows))
    sizes = Counter(size for _, size in measured)
    if len(sizes) > 1:
        common = ", ".join(f"{width}x{height} ({count})" for (height, width), count in sizes.most_common(3))
        raise UserError(
            f"the images have {len(sizes)} sizes, such as {common}, and nobody says which the model should see",
            "set options.image_size of the teacher, for example options = { image_size = 64 }",
        )
    return ImagePreprocessing(color="L" if all(grey for grey, _ in measured) else "RGB", size=measured[0][1])


def _measure(items: Items, row: int, spec: ImagePreprocessing) -> tuple[bool, tuple[int, int]]:
    try:
        return measure_image(items.content[row], spec)
    except InputError as error:
        raise unreadable(items, row, error) from None


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
    if own is None:
        # torchvision's classifiers scale the shorter side to 256 and cut out 224; this keeps all of a square
        changes = {"resize": "shorter-side", "resize_to": max(size), "crop": "center", "size": size}
        return ImagePreprocessing.model_validate({"color": "RGB", **changes})
    if own.resize_to is None:
        return own.model_copy(update={"size": size})
    return own.model_copy(update={"size": size, "resize_to": round(own.resize_to / min(own.size) * max(size))})


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
