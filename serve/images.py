"""The one implementation of image preprocessing, for training's evaluation view, evaluation and serving alike.

H height, W width, C channels (1 for "L", 3 for "RGB").
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from serve.errors import InputError
from serve.manifest import ImagePreprocessing
from serve.png import decode_plain_png

# Formats that a request may carry. Others in Pillow are rare, old or have parsers with a history.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
_JPEGS = ("JPEG", "MPO")  # MPO: a JPEG with further pictures behind it, as telephones write
MAX_PIXELS = 32 * 1024 * 1024
# Work that a file can ask for beside its pixels. Pillow walks over segments, chunks and blocks in Python: 16 MB of such
# ones took 4 to 7 s and up to 500 MB; a PNG of that size in pieces of 8 KiB, as encoders write them, takes 8,000 reads.
# Each scan of a progressive JPEG goes over all its pixels: 200 scans of 53 bytes over 32 megapixels took 4.6 s
# (2.5 GHz). Encoders write about 10.
_MAX_READS = 20_000
_MAX_SCANS = 100
_SCAN = b"\xff\xda"  # JPEG's start of a scan; within one, a byte of 255 is followed by 0

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
_SIDEWAYS = (5, 6, 7, 8)  # orientations that swap height and width
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

    def prepare_one(self, item: bytes) -> tuple[np.ndarray, bool]:
        return self.prepare([item]), False  # an image is resized, or cropped as the specification says

    def join(self, batches: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate(batches)

    def alone(self, batch: np.ndarray) -> list[np.ndarray]:
        return [batch[row : row + 1] for row in range(len(batch))]

    def padded(self, batch: np.ndarray) -> np.ndarray:
        return batch  # images all have one size

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
    if len(items) == 1:  # as most requests are: no copy into a batch
        return prepare_image(items[0], spec)[np.newaxis]
    batch = np.empty((len(items), *spec.shape), dtype=np.uint8)
    for row, item in enumerate(items):
        batch[row] = prepare_image(item, spec)
    return batch


def prepare_image(item: bytes, spec: ImagePreprocessing) -> np.ndarray:
    """Decode and prepare one image: uint8 [H, W, C]."""
    image = decode_plain_png(item)  # which has no orientation
    if image is None:
        image = _decode(item)
        if spec.exif_orientation:
            image = _upright(image)
    image = _to_color(image, spec)
    image = _resize(image, spec)
    if spec.crop != "none":
        image = _center_crop(image, spec)
    # a bytearray, since torch warns of memory that is read-only
    return np.frombuffer(bytearray(image.tobytes()), dtype=np.uint8).reshape(spec.shape)


def measure_image(item: bytes, spec: ImagePreprocessing) -> tuple[bool, tuple[int, int]]:
    """Whether an image is grey, and its height and width as `spec` turns it, from its header alone."""
    image = _open(item)
    # Only formats of cameras are turned here: to look for EXIF data, Pillow decodes a PNG as a whole.
    turns = spec.exif_orientation and image.format in _JPEGS and _orientation(image) in _SIDEWAYS
    size = (image.width, image.height) if turns else (image.height, image.width)
    return image.mode in ("1", "L", "LA") or image.mode.startswith("I;16"), size


def _open(item: bytes) -> Image.Image:
    """The image with its header read. Raises InputError unless it is one that may be decoded."""
    if not item:
        raise InputError("empty_input", "the image is empty", "send the bytes of an image file")
    try:
        image = Image.open(_Pieces(item), formats=FORMATS)
    except _TooManyPiecesError:
        raise _too_many_pieces() from None
    except Image.DecompressionBombError:  # Pillow's own, much higher limit
        raise _too_many_pixels("the image is far too large") from None
    except Exception:  # Pillow's parsers raise many kinds; all mean the same to the sender
        raise InputError(
            "not_an_image", "the bytes are not an image in a known format", f"send one of {', '.join(FORMATS)}"
        ) from None
    if image.width * image.height > MAX_PIXELS:  # known from the header, before a pixel is decoded
        raise _too_many_pixels(f"the image is {image.width}x{image.height}")
    return image


def _decode(item: bytes) -> Image.Image:
    image = _open(item)
    if image.format in _JPEGS and item.count(_SCAN) > _MAX_SCANS:
        raise _too_many_pieces()
    try:
        image.load()
    except _TooManyPiecesError:
        raise _too_many_pieces() from None
    except Exception:
        raise InputError("broken_image", "the image breaks off or is damaged", "send the whole file") from None
    return image


class _TooManyPiecesError(Exception):
    pass


class _Pieces(io.BytesIO):
    """The bytes of an image, which may be read so many times and no more."""

    _reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self._reads += 1
        if self._reads > _MAX_READS:
            raise _TooManyPiecesError
        return super().read(size)


def _too_many_pieces() -> InputError:
    message = "the image is cut into far more pieces than any encoder makes"
    return InputError("too_many_pieces", message, "open it in an image editor and save it again")


def _too_many_pixels(what: str) -> InputError:
    return InputError("too_many_pixels", f"{what}; at most {MAX_PIXELS} pixels are decoded", "send a smaller image")


def _upright(image: Image.Image) -> Image.Image:
    orientation = _orientation(image)
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _orientation(image: Image.Image) -> Any:
    """As ImageOps.exif_transpose reads it, but damaged EXIF data, for which that raises, is no data, as in browsers."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:
        return 1


def _to_color(image: Image.Image, spec: ImagePreprocessing) -> Image.Image:
    if image.mode == spec.color and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16"):
        image = _to_eight_bits(image)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, spec.alpha)
        image = Image.alpha_composite(ground, image)
    return image.convert(spec.color)


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey to its high bytes, as Pillow itself reads 16-bit colour; its conversion of grey clips at 255."""
    levels = np.asarray(image)
    grey = Image.fromarray((levels >> 8).astype(np.uint8))
    if "transparency" not in image.info:
        return grey
    solid = Image.fromarray(np.where(levels == image.info["transparency"], 0, 255).astype(np.uint8))
    return Image.merge("LA", (grey, solid))


def _resize(image: Image.Image, spec: ImagePreprocessing) -> Image.Image:
    width, height = image.size
    if spec.resize == "shorter-side":
        size = _shorter_side(width, height, spec.resize_to)
    elif spec.resize_to is not None:
        size = (spec.resize_to, spec.resize_to)
    else:
        size = (spec.size[1], spec.size[0])
    if size[0] * size[1] > MAX_PIXELS:  # of a line of pixels that grows into a band
        raise _too_many_pixels(f"the image is {width}x{height}, which makes {size[0]}x{size[1]} for the model")
    return image if image.size == size else image.resize(size, _RESAMPLING[spec.interpolation])


def _shorter_side(width: int, height: int, target: int | None) -> tuple[int, int]:
    """As torchvision's Resize(int): the shorter side becomes `target`, the longer is truncated to an int."""
    assert target is not None
    if width <= height:
        return target, int(target * height / width)
    return int(target * width / height), target


def _center_crop(image: Image.Image, spec: ImagePreprocessing) -> Image.Image:
    """As torchvision's CenterCrop or transformers' center_crop; what lies outside the image is black."""
    height, width = spec.size
    down = spec.crop == "center-down"
    left, top = _offset(image.width, width, down), _offset(image.height, height, down)
    return image.crop((left, top, left + width, top + height))


def _offset(size: int, crop: int, down: bool) -> int:
    """Where a crop begins. Both libraries put the odd pixel of black behind an image that is too small."""
    if size < crop:
        return -((crop - size) // 2)
    return (size - crop) // 2 if down else round((size - crop) / 2)
