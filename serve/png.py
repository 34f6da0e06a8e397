"""PNG files that hold pixels and nothing else, decoded without Pillow's walk over chunks.

Pillow reads a file chunk by chunk in Python, which takes several times as long as the pixels of a small image. Here the
few bytes around them are compared, and Pillow's own decoder in C gets the one piece of compressed pixels as it is. What
is not exactly such a file, sound in every byte, is left to Pillow, which also says what is wrong with it.
"""

from __future__ import annotations

import struct
import zlib

from PIL import Image

_START = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
_HEADER = struct.Struct(">IIBBBBB")  # width, height, bits, colour type, compression, filter, interlacing
_MODES = {(8, 0, 0, 0, 0): "L", (8, 2, 0, 0, 0): "RGB"}
_LARGEST = 256 * 256  # pixels; of larger images the walk is no longer the greater part
_FIXED = 33 + 12 + 12  # bytes of the header, and around the pixels and the end


def decode_plain_png(item: bytes) -> Image.Image | None:
    """The grey or RGB image of 8 bits in a file of header, one piece of pixels and end; None for all others."""
    if not item.startswith(_START) or not item.endswith(_END) or len(item) < _FIXED:
        return None
    width, height, *kind = _HEADER.unpack_from(item, 16)
    mode = _MODES.get(tuple(kind))
    if mode is None or not 0 < width * height <= _LARGEST or not _sound(item, 12, 29):
        return None
    end = len(item) - len(_END) - 4
    if item[33:41] != (end - 41).to_bytes(4, "big") + b"IDAT" or not _sound(item, 37, end):
        return None
    try:
        return Image.frombytes(mode, (width, height), item[41:end], "zip", mode)
    except ValueError:  # the pixels break off, or zlib cannot read them
        return None


def _sound(item: bytes, start: int, end: int) -> bool:
    """Whether the checksum of the bytes from `start` to `end` stands behind them."""
    return zlib.crc32(item[start:end]) == int.from_bytes(item[end : end + 4], "big")
