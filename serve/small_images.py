"""Which image files cost no more than a few milliseconds whatever is in them, told by their structure alone.

A few bytes can be an image of many pixels, or many empty pieces, which Pillow walks over in Python, or text that is
unpacked to a thousand times its size; a narrow image becomes a wide band when its shorter side is resized. What is not
plainly small is not small.
"""

from __future__ import annotations

MOST_BYTES = 64 * 1024
MOST_PIXELS = 256 * 256  # of noise, in a JPEG: 1.3 ms to decode and to resize to 224x224 (2.5 GHz, by hand)
MOST_ASPECT = 4
MOST_PIECES = 32  # a camera's JPEG has about 10 segments before its pixels; a PNG of 64 KiB some 8 chunks
MOST_SCANS = 4  # one for each colour, where they are apart
_PNG = b"\x89PNG\r\n\x1a\n"
_PACKED = (b"zTXt", b"iTXt", b"iCCP")
_JPEG, _SCAN, _SCAN_MARKER = b"\xff\xd8", b"\xff\xda", 0xDA
_FRAMES = (0xC0, 0xC1)  # whose pixels are walked over once
_OTHER_FRAMES = frozenset(range(0xC2, 0xD0)) - {0xC4, 0xC8, 0xCC}  # progressive, arithmetic...; these three are tables


def is_small_image(body: bytes) -> bool:
    """Whether this is a PNG or a JPEG of few bytes, few pixels, few pieces and a usual shape."""
    if len(body) > MOST_BYTES:
        return False
    if body.startswith(_PNG):
        size = _size_of_png(body)
    else:
        size = _size_of_jpeg(body) if body.startswith(_JPEG) else None
    if size is None:
        return False
    least, most = sorted(size)
    return least > 0 and most <= MOST_ASPECT * least and least * most <= MOST_PIXELS


def _size_of_png(body: bytes) -> tuple[int, int] | None:
    """Width and height, from the only header among few chunks, none of them packed text (ISO 15948)."""
    size, at = None, len(_PNG)
    for _ in range(MOST_PIECES):
        kind = body[at + 4 : at + 8]
        if kind == b"IHDR" and size is None:
            size = _number(body, at + 8, 4), _number(body, at + 12, 4)
        elif kind == b"IHDR" or kind in _PACKED:
            return None
        at += 12 + _number(body, at, 4)
        if kind == b"IEND" or at >= len(body):
            return size
    return None


def _size_of_jpeg(body: bytes) -> tuple[int, int] | None:
    """Width and height, from the only frame among few segments before the pixels (ITU T.81, annex B)."""
    if body.count(_SCAN) > MOST_SCANS:
        return None
    size, at = None, len(_JPEG)
    for _ in range(MOST_PIECES):
        if len(body) < at + 9 or body[at] != 0xFF:
            return None
        marker = body[at + 1]
        if marker == _SCAN_MARKER:
            return size
        if marker in _OTHER_FRAMES or (marker in _FRAMES and size is not None):
            return None
        if marker in _FRAMES:
            size = _number(body, at + 7, 2), _number(body, at + 5, 2)
        at += 2 + _number(body, at + 2, 2)
    return None


def _number(body: bytes, at: int, length: int) -> int:
    return int.from_bytes(body[at : at + length], "big")
