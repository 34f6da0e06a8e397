"""Data sets of pixels without files: digits from scikit-learn, MNIST from its IDX files. They travel as PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from serve.errors import UserError
from serve.manifest import Task
from train.sources.base import Items, Reading, Source, numbered
from train.sources.paths import expand

WITHOUT_FILES = ("digits", "mnist")  # that a recipe could say anything of
_MNIST_FILES = [f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]


def read_digits(where: str, _: Reading, __: Task | None = None) -> Source:
    """scikit-learn's 1,797 digits, 8x8; their 17 grey levels are spread over 0..255."""
    if where:
        raise UserError(f"data.source = 'digits' takes no path, got '{where}'", 'write source = "digits"')
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    items = Items(_as_png(pixels), digits.target.astype(np.int64), numbered("digits", len(pixels)))
    return Source("image", tuple("0123456789"), items)


def read_mnist(where: str, _: Reading, __: Task | None = None) -> Source:
    """The four IDX files of MNIST, in WHERE/MNIST/raw as torchvision lays them."""
    from torchvision.datasets import MNIST

    root = expand(where)
    try:
        parts = {name: MNIST(str(root), train=name == "train", download=False) for name in ("train", "t10k")}
    except (RuntimeError, OSError):
        raise _no_mnist(root) from None
    train, test = (
        Items(_as_png(part.data.numpy()), part.targets.numpy().astype(np.int64), numbered(name, len(part)))
        for name, part in parts.items()
    )
    return Source("image", tuple("0123456789"), train, test)


def check_mnist(where: str) -> None:
    """Raise UserError unless the four files are there."""
    root = expand(where)
    if not all((root / "MNIST" / "raw" / name).is_file() for name in _MNIST_FILES):
        raise _no_mnist(root)


def _no_mnist(root: Path) -> UserError:
    return UserError(
        f"no MNIST in {root}: expected {root}/MNIST/raw/train-images-idx3-ubyte and its three companions",
        'give the folder in [data] source = "mnist:DIR", or set LIMBECK_DATA to the folder above it',
    )


def _as_png(images: Sequence[np.ndarray] | np.ndarray) -> list[bytes]:
    """Grey images uint8 [N, H, W] as PNG files."""
    encoded = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, format="PNG", compress_level=1)
        encoded.append(buffer.getvalue())
    return encoded
