"""Which images are small, by files that Pillow writes and by files that only look small."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from serve.small_images import MOST_BYTES, MOST_PIECES, is_small_image

PNG = b"\x89PNG\r\n\x1a\n"


def file(width: int = 64, height: int = 64, kind: str = "PNG", mode: str = "RGB", **options: Any) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8) // 64
    buffer = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(*chunks: bytes, width: int = 8, height: int = 8) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * (width + 1) * height))
    return b"".join((PNG, header, *chunks, pixels, chunk(b"IEND")))


def segments(jpeg: bytes, *more: bytes) -> bytes:
    """`jpeg` with segments put in right behind its beginning."""
    return jpeg[:2] + b"".join(more) + jpeg[2:]


@pytest.mark.parametrize(
    "body",
    [
        file(),
        file(mode="L"),
        file(mode="P"),
        file(224, 224, "JPEG"),
        file(224, 160, "JPEG", mode="L", quality=30),
        file(100, 25),
        file(64, 64, "JPEG", exif=b"Exif\0\0" + b"\0" * 200),
        png(*[chunk(b"tEXt", b"a\0b")] * 20),
    ],
)
def test_usual_small_files_are_small(body: bytes) -> None:
    assert is_small_image(body)
    Image.open(io.BytesIO(body)).load()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"few",
        PNG,
        b"\xff\xd8",
        file(kind="GIF"),
        file(kind="WEBP"),
        file(kind="BMP"),
        file(2000, 2000, "JPEG", quality=1),
        file(200, 10),
        file(64, 64, "JPEG", progressive=True),
        png(width=4000, height=4000),
        png(width=0, height=8),
        png(chunk(b"zTXt", b"a\0\0" + zlib.compress(b"a" * 900_000))),
        png(chunk(b"iCCP", b"a\0\0" + zlib.compress(b"a" * 900_000))),
        png(chunk(b"IHDR", struct.pack(">IIBBBBB", 4000, 4000, 8, 0, 0, 0, 0))),
        png(*[chunk(b"tEXt")] * MOST_PIECES),
        png(chunk(b"tEXt", b"a\0" + b"b" * MOST_BYTES)),
        segments(file(kind="JPEG"), *[b"\xff\xe1\0\2"] * MOST_PIECES),
        segments(file(kind="JPEG"), b"\xff\xc0\0\x0b\x08\x10\x00\x10\x00\x01\x01\x11\0"),
        file(kind="JPEG").replace(b"\xff\xda", b"\xff\xda" * 5),
        file(kind="JPEG")[:100],
    ],
)
def test_what_is_not_plainly_small_is_not(body: bytes) -> None:
    assert not is_small_image(body)


def test_it_never_raises() -> None:
    random = np.random.default_rng(1)
    for body in (file(), file(kind="JPEG")):
        for _ in range(500):
            broken = bytearray(body[: random.integers(1, len(body))])
            for at in random.integers(0, min(len(broken), 200), 5):
                broken[at] = random.integers(0, 256)
            is_small_image(bytes(broken))


def test_a_comment_of_a_png_in_the_middle_changes_nothing() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Author", "somebody")
    assert is_small_image(file(pnginfo=info))
