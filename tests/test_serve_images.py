from __future__ import annotations

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from helpers import encoded
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from serve.errors import InputError
from serve.images import prepare_image, prepare_images
from serve.manifest import ImagePreprocessing

RGB = ImagePreprocessing(color="RGB", size=(20, 30))
GREY = ImagePreprocessing(color="L", size=(20, 30))


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    """A noisy 30x20 picture: any flip, shift or mix-up of channels shows."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _png(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = _chunk(b"IHDR", header), _chunk(b"IDAT", zlib.compress(bytes(100))), _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _refusal(item: bytes, spec: ImagePreprocessing = RGB) -> str:
    with pytest.raises(InputError) as caught:
        prepare_image(item, spec)
    assert caught.value.message
    return caught.value.code


def test_rgb_passes_unchanged(picture: Image.Image) -> None:
    assert np.array_equal(prepare_image(encoded(picture), RGB), np.asarray(picture))


def test_color_to_grey_and_grey_to_color(picture: Image.Image) -> None:
    grey = picture.convert("L")
    assert np.array_equal(prepare_image(encoded(picture), GREY)[:, :, 0], np.asarray(grey))
    assert np.array_equal(prepare_image(encoded(grey), RGB), np.repeat(np.asarray(grey)[:, :, None], 3, axis=2))


def test_a_batch_keeps_order_and_shape(picture: Image.Image) -> None:
    items = [encoded(picture), encoded(ImageOps.mirror(picture))]
    batch = prepare_images(items, RGB)
    assert batch.shape == (2, 20, 30, 3)
    assert batch.dtype == np.uint8
    assert np.array_equal(batch[0], batch[1][:, ::-1])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(picture: Image.Image, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    item = encoded(picture, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(item)))
    spec = ImagePreprocessing(color="RGB", size=(upright.height, upright.width))
    assert np.array_equal(prepare_image(item, spec), np.asarray(upright))
    ignoring = RGB.model_copy(update={"exif_orientation": False})
    assert np.array_equal(prepare_image(item, ignoring), np.asarray(picture))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01" * 40])
def test_damaged_exif_data_means_nothing(picture: Image.Image, exif: bytes) -> None:
    item, plain = encoded(picture, "JPEG", exif=exif), encoded(picture, "JPEG")
    assert np.array_equal(prepare_image(item, RGB), prepare_image(plain, RGB))


@pytest.mark.parametrize(("alpha", "ground"), [("black", 0), ("white", 255)])
def test_alpha_lies_on_the_ground_of_the_spec(alpha: str, ground: int) -> None:
    image = Image.new("RGBA", (30, 20), (200, 100, 50, 0))
    image.paste((200, 100, 50, 255), (0, 0, 15, 20))
    for mode in ("RGBA", "LA"):
        spec = RGB.model_copy(update={"alpha": alpha})
        pixels = prepare_image(encoded(image.convert(mode)), spec)
        solid = np.asarray(image.convert("RGB") if mode == "RGBA" else image.convert("L").convert("RGB"))
        assert np.array_equal(pixels[:, :15], solid[:, :15])
        assert (pixels[:, 15:] == ground).all()


def test_half_transparency_mixes_with_the_ground() -> None:
    pixels = prepare_image(encoded(Image.new("RGBA", (30, 20), (200, 100, 50, 128))), RGB)
    assert np.abs(pixels.astype(int) - np.array([100, 50, 25])).max() <= 1


@pytest.mark.parametrize(("color", "spec"), [("RGB", RGB), ("P", RGB), ("L", GREY)])
def test_a_transparent_color_is_transparent(color: str, spec: ImagePreprocessing) -> None:
    image = Image.new("RGB", (30, 20), (90, 90, 90))
    image.paste((7, 7, 7), (0, 0, 15, 20))
    image = image.convert(color) if color != "P" else image.quantize(4)
    keyed = image.getpixel((0, 0))
    white = spec.model_copy(update={"alpha": "white"})
    pixels = prepare_image(encoded(image, transparency=keyed), white)
    assert (pixels[:, :15] == 255).all()
    assert np.abs(pixels[:, 15:].astype(int) - 90).max() <= 1


def test_cmyk_is_converted_as_pillow_does(picture: Image.Image) -> None:
    item = encoded(picture.convert("CMYK"), "JPEG", quality=95)
    opened = Image.open(io.BytesIO(item))
    assert opened.mode == "CMYK"
    assert np.array_equal(prepare_image(item, RGB), np.asarray(opened.convert("RGB")))


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    levels = np.linspace(0, 65535, 600).astype(np.uint16).reshape(20, 30)
    pixels = prepare_image(encoded(Image.fromarray(levels)), GREY)[:, :, 0]
    assert np.array_equal(pixels, levels // 256)
    assert len(np.unique(pixels)) > 200


def _sixteen_bit_png(color_type: int, levels: np.ndarray, transparent: int | None = None) -> bytes:
    """A PNG of uint16 [H, W, C], written by hand, since Pillow writes 16 bits for grey alone."""

    height, width, _ = levels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)
    header = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    clear = b"" if transparent is None else _chunk(b"tRNS", struct.pack(">H", transparent))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [_chunk(b"IHDR", header), clear, _chunk(b"IDAT", zlib.compress(rows)), _chunk(b"IEND", b"")]
    )


@pytest.mark.parametrize(("color_type", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_sixteen_bits_of_any_kind_give_their_high_bytes(color_type: int, channels: int) -> None:
    levels = np.random.default_rng(5).integers(0, 65536, (20, 30, channels), dtype=np.uint16)
    if channels in (2, 4):
        levels[..., -1] = 65535  # solid
    pixels = prepare_image(_sixteen_bit_png(color_type, levels), RGB)
    colors = levels[..., :1] if channels < 3 else levels[..., :3]
    assert np.array_equal(pixels, np.broadcast_to(colors >> 8, pixels.shape))


def test_a_transparent_level_of_sixteen_bit_grey_is_transparent() -> None:
    levels = np.full((20, 30, 1), 0x8080, dtype=np.uint16)
    levels[:, :10] = 0x8081  # the same high byte
    pixels = prepare_image(_sixteen_bit_png(0, levels, transparent=0x8081), GREY)[..., 0]
    assert (pixels[:, :10] == 0).all()
    assert (pixels[:, 10:] == 0x80).all()


def test_one_bit_is_black_and_white(picture: Image.Image) -> None:
    image = picture.convert("1")
    expected = np.asarray(image).astype(np.uint8) * 255
    assert np.array_equal(prepare_image(encoded(image), GREY)[..., 0], expected)


def test_a_telephones_jpeg_with_a_second_picture_inside_is_its_first(picture: Image.Image) -> None:
    file = io.BytesIO()
    picture.save(file, "MPO", save_all=True, append_images=[ImageOps.mirror(picture)], quality=95)
    assert np.array_equal(prepare_image(file.getvalue(), RGB), prepare_image(encoded(picture, "JPEG", quality=95), RGB))


def test_a_decompression_bomb_is_known_by_its_header() -> None:
    assert _refusal(_png(8000, 8000)) == "too_many_pixels"
    assert _refusal(_png(60000, 60000)) == "too_many_pixels"


def test_a_line_of_pixels_may_not_grow_into_a_band() -> None:
    spec = ImagePreprocessing(color="RGB", size=(224, 224), resize="shorter-side", resize_to=256, crop="center")
    assert _refusal(encoded(Image.new("L", (60000, 1))), spec) == "too_many_pixels"
    assert _refusal(encoded(Image.new("L", (1, 60000))), spec) == "too_many_pixels"


def test_an_image_in_a_million_pieces_is_refused_early(picture: Image.Image) -> None:
    png, jpeg, gif = (encoded(picture, format) for format in ("PNG", "JPEG", "GIF"))
    screen = 13 + 3 * 2 ** ((gif[10] & 7) + 1)  # its header and its palette
    many = 300_000
    for item in (
        png[:33] + _chunk(b"teSt", b"") * many + png[33:],
        png[:33] + _chunk(b"IDAT", b"") * many + png[33:],
        jpeg[:2] + b"\xff\xfe\0\2" * many + jpeg[2:],
        jpeg[:2] + b"\xff\xe1\0\x08Exif\0\0" * many + jpeg[2:],
        jpeg[:2] + b"\xff" * many + jpeg[2:],
        gif[:screen] + b"\x21\xfe" + b"\1a" * many + b"\0" + gif[screen:],
        gif[:screen] + b"x" * many + gif[screen:],
    ):
        tracemalloc.start()
        try:
            assert _refusal(item) == "too_many_pieces"
            assert tracemalloc.get_traced_memory()[1] < 10_000_000
        finally:
            tracemalloc.stop()


def test_a_jpeg_of_many_scans_is_refused_and_one_of_the_usual_number_is_not(picture: Image.Image) -> None:
    jpeg = encoded(picture, "JPEG", progressive=True)
    scan = jpeg[jpeg.rfind(b"\xff\xda") : -2]
    assert prepare_image(jpeg[:-2] + scan * 80 + jpeg[-2:], RGB).shape == RGB.shape
    assert _refusal(jpeg[:-2] + scan * 200 + jpeg[-2:]) == "too_many_pieces"


def test_a_large_photograph_in_the_pieces_that_encoders_make_is_read() -> None:
    noise = Image.fromarray(np.random.default_rng(3).integers(0, 256, (1000, 1000, 3), dtype=np.uint8))
    for format, options in (("PNG", {}), ("JPEG", {"progressive": True, "quality": 95}), ("BMP", {}), ("WEBP", {})):
        assert prepare_image(encoded(noise, format, **options), RGB).shape == RGB.shape


def test_a_frame_larger_than_its_screen_counts_as_it_is() -> None:
    screen = b"GIF89a" + struct.pack("<HH", 1, 1) + b"\x80\0\0" + bytes(6)
    frame = b"," + struct.pack("<HHHH", 0, 0, 65535, 2700) + b"\0\x02\x02\x4c\x01\0;"
    assert _refusal(screen + frame) == "too_many_pixels"


def test_what_cannot_be_read_is_refused_with_a_stable_code(picture: Image.Image) -> None:
    png, jpeg = encoded(picture), encoded(picture, "JPEG")
    assert _refusal(b"") == "empty_input"
    assert _refusal(b"hello") == "not_an_image"
    assert _refusal(encoded(picture, "TIFF")) == "not_an_image"  # Pillow could, we do not
    assert _refusal(png[: len(png) // 2]) == "broken_image"
    assert _refusal(jpeg[:-100]) == "broken_image"
    assert _refusal(png[:20]) == "not_an_image"


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("size", [(300, 201), (201, 300), (97, 97), (30, 500), (61, 40)])
def test_resize_and_crop_equal_torchvisions(interpolation: str, size: tuple[int, int]) -> None:
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    for resize_to, crop in ((64, 56), (50, 33), (33, 50)):  # the last is wider than the picture: black at the sides
        spec = ImagePreprocessing(
            color="RGB",
            size=(crop, crop),
            resize="shorter-side",
            resize_to=resize_to,
            crop="center",
            interpolation=interpolation,
        )
        theirs = Compose([Resize(resize_to, InterpolationMode(interpolation)), CenterCrop(crop)])(image)
        difference = prepare_image(encoded(image), spec).astype(int) - np.asarray(theirs).astype(int)
        assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("size", [(41, 30), (64, 77), (20, 90)])
@pytest.mark.parametrize("shape", [(32, 32), (31, 28)])
def test_crop_down_equals_transformers(size: tuple[int, int], shape: tuple[int, int]) -> None:
    """transformers rounds half a pixel down where torchvision rounds to even."""
    from transformers import ViTImageProcessor

    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    processor = ViTImageProcessor(
        size={"height": 33, "width": 33},
        do_center_crop=True,
        crop_size={"height": shape[0], "width": shape[1]},
        do_rescale=False,
        do_normalize=False,
    )
    theirs = processor(image, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
    spec = ImagePreprocessing(color="RGB", size=shape, resize_to=33, crop="center-down")
    assert np.abs(prepare_image(encoded(image), spec).astype(int) - theirs.astype(int)).max() <= 1


def test_exact_resize_equals_torchvisions() -> None:
    from torchvision.transforms import Resize

    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 70, 3), dtype=np.uint8))
    difference = prepare_image(encoded(image), RGB).astype(int) - np.asarray(Resize((20, 30))(image)).astype(int)
    assert np.abs(difference).max() <= 1


SEEDS = [
    encoded(image.convert(mode), format)
    for image in [Image.fromarray(np.random.default_rng(2).integers(0, 256, (9, 12, 3), dtype=np.uint8))]
    for format, modes in {
        "PNG": ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"],
        "JPEG": ["L", "RGB", "CMYK"],
        "WEBP": ["RGB", "RGBA"],
        "BMP": ["L", "RGB"],
        "GIF": ["P"],
    }.items()
    for mode in modes
]
CHANGES = st.lists(st.tuples(st.integers(0, 120), st.integers(0, 255), st.booleans()), min_size=1, max_size=6)


@settings(max_examples=300, deadline=None)
@given(seed=st.sampled_from(SEEDS), changes=CHANGES, spec=st.sampled_from([RGB, GREY]))
def test_a_mutated_image_is_read_or_refused(
    seed: bytes, changes: list[tuple[int, int, bool]], spec: ImagePreprocessing
) -> None:
    item = bytearray(seed)
    for position, value, insert in changes:
        where = position % len(item)
        item[where : where if insert else where + 1] = bytes([value])
    outcome = "read"
    try:
        assert prepare_image(bytes(item), spec).shape == spec.shape
    except InputError as error:
        outcome = error.code
    assert outcome in {"read", "not_an_image", "broken_image", "too_many_pixels", "too_many_pieces"}
