"""The one implementation of image preprocessing, for training's evaluation view, evaluation and serving alike.

H height, W width, C channels (1 for "L", 3 for "RGB").
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import ExifTags, Image

from serve.errors import InputError
from serve.manifest import ImagePreprocessing

# Formats that a request may carry. Others in Pillow are rare, old or have parsers with a history.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
MAX_PIXELS = 32 * 1024 * 1024

_Transpose = Image.Transpose
_UPRIGHT = {  # EXIF orientation -> what makes the picture upright
    2: _Transpose.FLIP_LEFT_RIGHT,
    3: _Transpose.ROTATE_180,
    4: _Transpose.FLIP_TOP_BOTTOM,
    5: _Transpose.TRANSPOSE,
    6: _Transpose.ROTATE_270,
    7: _Transpose.TRANSVERSE,
    8: _Transpose.ROTATE_90,
}
_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


class ImagePreparer:
    """Prepares images as one specification says; `serve.preparer.Preparer`."""

    input = "images"

    def __init__(self, spec: ImagePreprocessing) -> None:
        self._spec = spec

    def prepare(self, items: Sequence[bytes]) -> np.ndarray:
        return prepare_images(items, self._spec)

    def join(self, batches: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate(batches)

    def alone(self, batch: np.ndarray) -> list[np.ndarray]:
        return [batch[row : row + 1] for row in range(len(batch))]

    def sample(self) -> bytes:
        height, width = self._spec.size
        png = io.BytesIO()
        Image.new("RGB", (width, height)).save(png, "PNG")
        return png.getvalue()

    def fingerprint(self) -> str:
        return self._spec.model_dump_json()

    def expected(self) -> str:
        return f"uint8 [N, {', '.join(map(str, self._spec.shape))}]"


def prepare_images(items: Sequence[bytes], spec: ImagePreprocessing) -> np.ndarray:
    """Decode and prepare images: uint8 [N, H, W, C]. Raises InputError for the first that cannot be read."""
    batch = np.empty((len(items), *spec.shape), dtype=np.uint8)
    for row, item in enumerate(items):
        batch[row] = prepare_image(item, spec)
    return batch


def prepare_image(item: bytes, spec: ImagePreprocessing) -> np.ndarray:
    """Decode and prepare one image: uint8 [H, W, C]."""
    image = _decode(item)
    if spec.exif_orientation:
        image = _upright(image)
    image = _to_color(image, spec)
    height, width = spec.size
    if spec.resize == "shorter-side":
        image = _center_crop(_resize_shorter_side(image, spec), height, width)
    elif image.size != (width, height):
        image = image.resize((width, height), _RESAMPLING[spec.interpolation])
    return np.asarray(image, dtype=np.uint8).reshape(spec.shape)


def _decode(item: bytes) -> Image.Image:
    if not item:
        raise InputError("empty_input", "the image is empty", "send the bytes of an image file")
    try:
        image = Image.open(io.BytesIO(item), formats=FORMATS)
    except Image.DecompressionBombError:  # Pillow's own, much higher limit
        raise _too_many_pixels("the image is far too large") from None
    except Exception:  # Pillow's parsers raise many kinds; all mean the same to the sender
        raise InputError(
            "not_an_image", "the bytes are not an image in a known format", f"send one of {', '.join(FORMATS)}"
        ) from None
    if image.width * image.height > MAX_PIXELS:  # known from the header, before a pixel is decoded
        raise _too_many_pixels(f"the image is {image.width}x{image.height}")
    try:
        image.load()
    except Exception:
        raise InputError("broken_image", "the image breaks off or is damaged", "send the whole file") from None
    return image


def _too_many_pixels(what: str) -> InputError:
    return InputError("too_many_pixels", f"{what}; at most {MAX_PIXELS} pixels are decoded", "send a smaller image")


def _upright(image: Image.Image) -> Image.Image:
    """As ImageOps.exif_transpose, but damaged EXIF data, which that raises for, means nothing, as in browsers."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:
        return image
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _to_color(image: Image.Image, spec: ImagePreprocessing) -> Image.Image:
    if image.mode == spec.color and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16"):  # Pillow would clip 16-bit grey at 255 instead of scaling it
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, spec.alpha)
        image = Image.alpha_composite(ground, image)
    return image.convert(spec.color)


def _resize_shorter_side(image: Image.Image, spec: ImagePreprocessing) -> Image.Image:
    """As torchvision's Resize(int): the shorter side becomes `resize_to`, the longer is truncated to an int."""
    target = spec.resize_to
    assert target is not None
    width, height = image.size
    if width <= height:
        size = (target, int(target * height / width))
    else:
        size = (int(target * width / height), target)
    if size[0] * size[1] > MAX_PIXELS:  # of a line of pixels that grows into a band
        raise _too_many_pixels(f"the image is {width}x{height}, which makes {size[0]}x{size[1]} for the model")
    return image if image.size == size else image.resize(size, _RESAMPLING[spec.interpolation])


def _center_crop(image: Image.Image, height: int, width: int) -> Image.Image:
    """As torchvision's CenterCrop; what lies outside the image is black."""
    left, top = _offset(image.width, width), _offset(image.height, height)
    return image.crop((left, top, left + width, top + height))


def _offset(size: int, crop: int) -> int:
    return round((size - crop) / 2) if size >= crop else -((crop - size) // 2)
