"""Where labelled items come from. A source is `NAME` or `NAME:WHERE` in a recipe's [data] table.

Items are always the bytes that a request would carry: digits and MNIST travel as PNG files.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from serve.errors import UserError, did_you_mean
from serve.manifest import Task


@dataclass(frozen=True)
class Items:
    """N labelled items: encoded bytes and int64 [N] indices into the source's class names."""

    content: Sequence[bytes]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.content)

    def take(self, rows: np.ndarray) -> Items:
        return Items([self.content[row] for row in rows], self.labels[rows])


@dataclass(frozen=True)
class Source:
    """What a source gives: its class names and its items, with a test split where it has one of its own."""

    task: Task
    classes: tuple[str, ...]
    items: Items
    test: Items | None = None


def load_source(source: str) -> Source:
    """Read the named source. Raises UserError for an unknown name or data that is not there."""
    name, _, where = source.partition(":")
    if name not in _SOURCES:
        raise UserError(f"unknown data source '{name}' in data.source = '{source}'", did_you_mean(name, _SOURCES))
    return _SOURCES[name](where)


def expand(where: str) -> Path:
    """A path from a recipe, with `${LIMBECK_DATA}` (default: data) and other variables filled in."""
    environment = {"LIMBECK_DATA": "data", **os.environ}
    missing = [name for name in re.findall(r"\$\{(\w+)\}", where) if name not in environment]
    if missing:
        raise UserError(f"'{where}' uses the variable {missing[0]}, which is not set", f"export {missing[0]}=...")
    return Path(re.sub(r"\$\{(\w+)\}", lambda match: environment[match[1]], where)).expanduser()


def _digits(where: str) -> Source:
    """scikit-learn's 1,797 digits, 8x8; their 17 grey levels are spread over 0..255."""
    if where:
        raise UserError(f"data.source = 'digits' takes no path, got '{where}'", 'write source = "digits"')
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    return Source("image", tuple("0123456789"), Items(_as_png(pixels), digits.target.astype(np.int64)))


def _mnist(where: str) -> Source:
    """The four IDX files of MNIST, in WHERE/MNIST/raw as torchvision lays them."""
    from torchvision.datasets import MNIST

    root = expand(where)
    try:
        parts = [MNIST(str(root), train=train, download=False) for train in (True, False)]
    except (RuntimeError, OSError):
        raise UserError(
            f"no MNIST in {root}: expected {root}/MNIST/raw/train-images-idx3-ubyte and its three companions",
            'give the folder in [data] source = "mnist:DIR", or set LIMBECK_DATA to the folder above it',
        ) from None
    train, test = (Items(_as_png(part.data.numpy()), part.targets.numpy().astype(np.int64)) for part in parts)
    return Source("image", tuple("0123456789"), train, test)


def _as_png(images: Sequence[np.ndarray] | np.ndarray) -> list[bytes]:
    """Grey images uint8 [N, H, W] as PNG files."""
    encoded = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, format="PNG", compress_level=1)
        encoded.append(buffer.getvalue())
    return encoded


_SOURCES: dict[str, Callable[[str], Source]] = {"digits": _digits, "mnist": _mnist}
