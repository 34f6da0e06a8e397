"""The short way for plain PNG files gives what Pillow gives, and leaves it all that is not plain."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from helpers import encoded
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from serve import images
from serve.png import decode_plain_png

RANDOM = np.random.default_rng(0)


def picture(mode: str, width: int = 13, height: int = 9, smooth: bool = True) -> Image.Image:
    """Smooth ones are written with all of PNG's filters, noise with none."""
    shape = (height, width) if mode == "L" else (height, width, 3)
    steps = RANDOM.integers(-3, 4, shape).cumsum(axis=0).cumsum(axis=1) if smooth else RANDOM.integers(0, 256, shape)
    return Image.fromarray((steps % 256).astype(np.uint8))


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(*pixels: bytes, width: int = 2, height: int = 2, kind: tuple[int, ...] = (8, 0, 0, 0, 0)) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, *kind))
    body = b"".join(chunk(b"IDAT", piece) for piece in pixels)
    return b"\x89PNG\r\n\x1a\n" + header + body + chunk(b"IEND", b"")


ROWS = bytes([0, 10, 20, 0, 30, 40])  # two rows of two pixels, unfiltered


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("smooth", [True, False])
@pytest.mark.parametrize("level", [0, 1, 9])
def test_plain_files_give_their_pixels(mode: str, smooth: bool, level: int) -> None:
    image = picture(mode, smooth=smooth)
    decoded = decode_plain_png(encoded(image, compress_level=level))
    assert decoded is not None
    assert decoded.mode == mode
    assert np.array_equal(np.asarray(decoded), np.asarray(image))


def test_what_is_not_plain_is_left_to_pillow() -> None:
    pixels, text = zlib.compress(ROWS), PngImagePlugin.PngInfo()
    text.add_text("made", "here")
    plain = png(pixels)
    assert decode_plain_png(plain) is not None
    for item in (
        encoded(picture("L"), pnginfo=text),
        encoded(picture("RGB").convert("RGBA")),
        encoded(picture("RGB").quantize(16)),
        encoded(picture("L").convert("I;16")),
        encoded(Image.new("L", (257, 256))),
        encoded(picture("RGB"), format="JPEG"),
        png(pixels[:5], pixels[5:]),
        png(pixels, kind=(8, 0, 0, 0, 1)),
        png(pixels[:-6]),
        png(b"", pixels),
        png(width=0),
        plain + b"more",
        plain[:-1],
        plain[:40],
        b"",
    ):
        assert decode_plain_png(item) is None


@pytest.mark.filterwarnings("ignore:Image size")
@settings(max_examples=300, deadline=None)
@given(st.integers(0, 70), st.integers(0, 255), st.booleans())
def test_damaged_bytes_mean_what_they_mean_to_pillow(at: int, value: int, mended: bool) -> None:
    """One byte changed anywhere; with the checksums put right again, so that only the content is wrong."""
    item = bytearray(png(zlib.compress(ROWS)))
    item[at % len(item)] = value
    if mended:
        for start, end in ((12, 29), (37, len(item) - 16)):
            item[end : end + 4] = zlib.crc32(item[start:end]).to_bytes(4, "big")
    decoded = decode_plain_png(bytes(item))
    if decoded is not None:
        assert np.array_equal(np.asarray(decoded), np.asarray(images._decode(bytes(item))))
