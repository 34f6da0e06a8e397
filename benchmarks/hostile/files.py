"""Image files that are built by hand to be large, deep, lying or in pieces, in every format that a server takes."""

from __future__ import annotations

import functools
import io
import random
import struct
import zlib
from collections.abc import Callable

from PIL import Image

_SIDE = 5790  # squared just below the server's 32 megapixels
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def picture(dice: random.Random, format: str) -> bytes:
    """A good file of random pixels, in one of the format's modes."""
    modes = {"PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"), "JPEG": ("L", "RGB", "CMYK"), "GIF": ("P", "L")}
    width, height = dice.randint(1, 48), dice.randint(1, 48)
    pixels = Image.frombytes("RGB", (width, height), dice.randbytes(3 * width * height))
    image = pixels.convert(dice.choice(modes.get(format, ("RGB",))))
    options: dict[str, object] = {"progressive": dice.random() < 0.5} if format == "JPEG" else {}
    if format in ("GIF", "WEBP", "PNG") and dice.random() < 0.2:
        options |= {"save_all": True, "append_images": [image.rotate(90 * turn) for turn in range(1, 9)]}
    if format in ("JPEG", "WEBP", "PNG") and dice.random() < 0.3:
        options |= dice.choice(({"exif": exif(dice)}, {"icc_profile": dice.randbytes(dice.choice((3, 200, 100_000)))}))
    return encoded(image, format, **options)


def exif(dice: random.Random) -> bytes:
    """EXIF data whose directory lies about almost everything."""
    order = dice.choice("<>")
    count = dice.choice((0, 1, 12, 500, 65535))
    entries = [
        struct.pack(
            f"{order}HHLL",
            dice.choice((0x0112, 0x8769, 0x8825, 0xA005, dice.randrange(65536))),
            dice.choice((0, 1, 2, 3, 4, 5, 7, 10, 12, 13, 99)),
            dice.choice((0, 1, 2, 8, 2**16, 2**31, 2**32 - 1)),
            dice.choice((0, 1, 8, 26, 60_000, 2**32 - 1)),
        )
        for _ in range(min(count, 300))
    ]
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}L", dice.choice((8, 8, 8, 0, 2**31)))
    body = head + struct.pack(f"{order}H", count) + b"".join(entries) + struct.pack(f"{order}L", dice.choice((0, 8)))
    return b"Exif\0\0" + body[:60_000]


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _png(width: int, height: int, rows: bytes, *before: bytes, depth: int = 8, color: int = 0) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(before) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@functools.cache
def _deflated(size: int) -> bytes:
    """`size` zeros, compressed a thousand times, without ever being in memory."""
    packer, step = zlib.compressobj(9), 1 << 20
    packed = [packer.compress(bytes(min(step, size - at))) for at in range(0, size, step)]
    return b"".join([*packed, packer.flush()])


def _jpeg() -> bytes:
    return encoded(Image.new("RGB", (16, 16), (9, 99, 199)), "JPEG", progressive=True)


def _gif(screen: tuple[int, int], frame: tuple[int, int], before: bytes = b"") -> bytes:
    head = b"GIF89a" + struct.pack("<HH", *screen) + b"\x80\0\0" + bytes(6) + before
    return head + b"," + struct.pack("<HHHH", 0, 0, *frame) + b"\0\x02\x02\x4c\x01\0;"


def _bmp(width: int, height: int, bits: int, compression: int) -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 100, 0, 0, 54) + info


def _webp(width: int, height: int) -> bytes:
    """An animation on a canvas of its own size, whatever its frames are."""
    frames = [Image.new("RGB", (8, 8), (shade, 0, 0)) for shade in (1, 2)]
    file = bytearray(encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:]))
    at = file.find(b"VP8X") + 12
    file[at : at + 6] = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    return bytes(file)


def _sized_jpeg(side: int) -> bytes:
    """Claims a size in the header of its frame, and holds the pixels of a small one."""
    file = bytearray(_jpeg())
    at = file.find(b"\xff\xc2") + 5
    file[at : at + 4] = struct.pack(">HH", side, side)
    return bytes(file)


def _scans(count: int, side: int) -> bytes:
    file = encoded(Image.new("RGB", (side, side)), "JPEG", progressive=True)
    scan = file[file.rfind(b"\xff\xda") : -2]
    return file[:-2] + scan * count + file[-2:]


def _pieces(file: bytes, at: int, piece: bytes, count: int = 100_000) -> bytes:
    return file[:at] + piece * count + file[at:]


def _icc(size: int) -> bytes:
    return encoded(Image.new("RGB", (8, 8)), "JPEG", icc_profile=random.Random(size).randbytes(size))


_SMALL = zlib.compress(bytes(81))
# Made when it is their turn: some take a second.
BUILT: dict[str, Callable[[], bytes]] = {
    "png of 3.6 gigapixels": lambda: _png(60000, 60000, _SMALL),
    "png of 2^31 pixels a side": lambda: _png(2**31 - 1, 2**31 - 1, _SMALL),
    "png without pixels": lambda: _png(0, 0, _SMALL),
    "png of 33 megapixels, all there": lambda: _png(_SIDE, _SIDE + 50, _deflated((_SIDE + 1) * (_SIDE + 50))),
    "png of 32 megapixels, all there": lambda: _png(_SIDE, _SIDE, _deflated((_SIDE + 1) * _SIDE)),
    "png of 32 megapixels of 64 bits": lambda: _png(
        _SIDE, _SIDE, _deflated((8 * _SIDE + 1) * _SIDE), depth=16, color=6
    ),
    "png of one row that inflates to 256 MB": lambda: _png(8, 1, _deflated(1 << 28)),
    "png with texts that inflate to 3 GB": lambda: _png(
        8, 8, _SMALL, *[chunk(b"zTXt", b"k\0\0" + _deflated(64 << 20))] * 50
    ),
    "png with a profile that inflates to 64 MB": lambda: _png(
        8, 8, _SMALL, chunk(b"iCCP", b"k\0\0" + _deflated(64 << 20))
    ),
    "png in 100,000 chunks": lambda: _pieces(_png(8, 8, _SMALL), 33, chunk(b"teSt", b"")),
    "png in 100,000 parts of data": lambda: _pieces(_png(8, 8, _SMALL), 33, chunk(b"IDAT", b"")),
    "png with overlapping exif data": lambda: _png(
        8, 8, _SMALL, chunk(b"eXIf", b"MM\0*\0\0\0\x08\xff\xff" + struct.pack(">HHLL", 1, 7, 90_000, 8) * 7000)
    ),
    "png that ends in a zip": lambda: _png(8, 8, _SMALL) + b"PK\x03\x04" + bytes(1000),
    "jpeg of 65,535 pixels a side": lambda: _sized_jpeg(65535),
    "jpeg of 5,790 pixels a side, not there": lambda: _sized_jpeg(_SIDE),
    "jpeg in 200 scans of 32 megapixels": lambda: _scans(200, _SIDE),
    "jpeg in 5,000 scans": lambda: _scans(5000, 64),
    "jpeg in 90 scans": lambda: _scans(90, 64),
    "jpeg in 100,000 comments": lambda: _pieces(_jpeg(), 2, b"\xff\xfe\0\2"),
    "jpeg in 100,000 exif segments": lambda: _pieces(_jpeg(), 2, b"\xff\xe1\0\x08Exif\0\0", 20_000),
    "jpeg with 200,000 bytes of filling": lambda: _pieces(_jpeg(), 2, b"\xff", 200_000),
    "jpeg with a profile of 150,000 bytes": lambda: _icc(150_000),
    "jpeg with a profile of 3 MB": lambda: _icc(3_000_000),
    "gif of 65,535 pixels a side": lambda: _gif((65535, 65535), (8, 8)),
    "gif with a frame larger than its screen": lambda: _gif((1, 1), (65535, 2700)),
    "gif with a frame of 4 gigapixels": lambda: _gif((8, 8), (65535, 65535)),
    "gif in 100,000 comments": lambda: _gif((8, 8), (8, 8), b"\x21\xfe" + b"\1a" * 100_000 + b"\0"),
    "gif behind 200,000 bytes of nothing": lambda: _gif((8, 8), (8, 8), b"x" * 200_000),
    "bmp of 2^31 pixels a side": lambda: _bmp(2**31 - 1, 2**31 - 1, 24, 0),
    "bmp of negative height": lambda: _bmp(8, -(2**31), 24, 0),
    "bmp of 32 megapixels, not there": lambda: _bmp(_SIDE, _SIDE, 24, 0),
    "bmp run-length coded": lambda: _bmp(_SIDE, _SIDE, 8, 1) + bytes(5000),
    "webp on a canvas of 16,384 pixels a side": lambda: _webp(16384, 16384),
    "webp on a canvas of 5,790 pixels a side": lambda: _webp(_SIDE, _SIDE),
    "webp of 32 megapixels": lambda: encoded(Image.new("RGB", (_SIDE, _SIDE)), "WEBP", lossless=True),
    "tiff": lambda: encoded(Image.new("RGB", (8, 8)), "TIFF"),
    "ppm": lambda: b"P6 8 8 255\n" + bytes(192),
    "svg": lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "postscript": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(/etc/passwd) (r) file\n",
    "pickle": lambda: b"cos\nsystem\n(S'touch /tmp/limbeck-was-here'\ntR.",
}


@functools.cache
def built(name: str) -> bytes:
    """The file of BUILT with this name, made once."""
    return BUILT[name]()
