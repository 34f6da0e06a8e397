"""`imagefolder:DIR`: DIR/train/CLASS/*.jpg beside validation and test, or DIR/CLASS/*.jpg, to be split.

Images stay on disk until they are asked for.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import overload

import numpy as np

from serve.errors import UserError
from serve.manifest import Task
from train.sources.base import UNLABELLED, Items, Origins, Reading, Source
from train.sources.paths import SPLIT_NAMES, existing, is_stray
from train.sources.problems import (
    EMPTY_CLASS,
    LINKED_FOLDER,
    NO_CLASS,
    NOT_AN_IMAGE,
    NOT_READ,
    STRAY_FILE,
    UNREADABLE_IMAGE,
    Problems,
)
from train.sources.rows import Labels

# By name, what the server decodes as well; and what is an image too, but nothing that limbeck reads
SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif")
_OTHER_IMAGES = (".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".svg", ".ico", ".psd", ".dng", ".cr2", ".nef")


class Files(Sequence[bytes]):
    """The contents of files, each read when it is asked for."""

    def __init__(self, root: Path, names: Sequence[str]) -> None:
        self._root, self._names = str(root), names

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, at: int) -> bytes: ...
    @overload
    def __getitem__(self, at: slice) -> list[bytes]: ...
    def __getitem__(self, at: int | slice) -> bytes | list[bytes]:
        if isinstance(at, slice):
            return [self[row] for row in range(*at.indices(len(self)))]
        path = Path(self._root, self._names[at])
        try:
            return path.read_bytes()
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}", "give it back, or run again without it") from None


def read_image_folder(where: str, reading: Reading, _: Task | None = None) -> Source:
    """The images of a folder, by class; of a folder with train, validation and test, by split and class."""
    root = image_root(where)
    problems = Problems()
    folders = split_folders(root, problems)
    found = {split: _class_files(root, folder, problems) for split, folder in folders.items()}
    if not any(found["train"].values()):
        raise _no_images(root, folders["train"], found["train"])
    labels = Labels(reading, problems)
    rows = {split: _numbered(classes, labels) for split, classes in found.items()}
    used = {number for _, numbers in rows.values() for number in numbers}
    names, places = labels.order(used)
    for folder in (
        f"{split}/{name}" for split, classes in found.items() for name, files in classes.items() if not files
    ):
        problems.add(EMPTY_CLASS, f"{folder if len(folders) > 1 else folder.partition('/')[2]}: no image in it")
    items = {
        split: _items(root, files, places[np.array(numbers, dtype=np.int64)])
        for split, (files, numbers) in rows.items()
    }
    return Source("image", names, items["train"], items.get("test"), items.get("validation"), problems.found())


def read_unlabelled_folder(where: str) -> Source:
    """Every image below a folder, however its folders are called."""
    root = image_root(where)
    problems = Problems()
    files = [name.removeprefix("./") for name in _images(root, root, problems)]
    if not files:
        raise UserError(f"no image in {root}", f"images are files ending in {', '.join(SUFFIXES)}")
    items = _items(root, files, np.full(len(files), UNLABELLED, dtype=np.int64))
    return Source("image", (), items, problems=problems.found())


def image_root(where: str) -> Path:
    """The folder that `imagefolder:`WHERE names. Raises UserError if there is none."""
    root = existing(where, "imagefolder")
    if not root.is_dir():
        raise UserError(f"{root} is a file, not a folder of images", 'expected "imagefolder:DIR" with a folder a class')
    return root


def split_folders(root: Path, problems: Problems) -> dict[str, Path]:
    """The folder of each split; `root` itself is "train" where there are no splits. Raises UserError."""
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not is_stray(path.name))
    splits: dict[str, Path] = {}
    for folder in folders:
        split = SPLIT_NAMES.get(folder.name.lower())
        if split in splits:
            raise UserError(
                f"{root} has two {split} splits: {splits[split].name} and {folder.name}", "keep one of them"
            )
        if split is not None:
            splits[split] = folder
    if not splits:
        return {"train": root}
    if "train" not in splits:
        name = next(iter(splits.values())).name
        raise UserError(f"{root} has a folder {name}, but none called train", "call the folder to train on 'train'")
    for path in sorted(root.iterdir()):
        if path not in splits.values():
            _note_other(path, path.name, problems)
    return splits


def _note_other(path: Path, name: str, problems: Problems) -> None:
    if is_stray(path.name):
        problems.add(STRAY_FILE, name)
    elif path.is_dir():
        problems.add(NOT_READ, name)
    elif path.suffix.lower() in SUFFIXES:
        problems.add(NO_CLASS, name)
    elif path.suffix.lower() in _OTHER_IMAGES:
        problems.add(UNREADABLE_IMAGE, f"{name}: not in a format that is read: {', '.join(SUFFIXES)}")
    else:
        problems.add(NOT_AN_IMAGE, name)


def _class_files(root: Path, folder: Path, problems: Problems) -> dict[str, list[str]]:
    """The image files of each class of one split, as paths from `root` on."""
    classes: dict[str, list[str]] = {}
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not is_stray(path.name):
            classes[path.name] = list(_images(root, path, problems))
        else:
            _note_other(path, path.relative_to(root).as_posix(), problems)
    return classes


def _images(root: Path, folder: Path, problems: Problems) -> list[str]:
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_stray(name))
        within = Path(parent).relative_to(root).as_posix()
        for name in folders:
            if Path(parent, name).is_symlink():  # it may lead back here, or to the images of another class
                problems.add(LINKED_FOLDER, f"{within}/{name}")
        for name in sorted(files):
            if name.lower().endswith(SUFFIXES) and not is_stray(name):
                found.append(f"{within}/{name}")
            else:
                _note_other(Path(parent, name), f"{within}/{name}", problems)
    return found


def _numbered(classes: dict[str, list[str]], labels: Labels) -> tuple[list[str], list[int]]:
    files: list[str] = []
    numbers: list[int] = []
    for name, found in classes.items():
        number = labels.number(name, found[0]) if found else None
        if number is not None:
            files += found
            numbers += [number] * len(found)
    return files, numbers


def _items(root: Path, files: Sequence[str], labels: np.ndarray) -> Items:
    return Items(Files(root, files), labels, Origins(files, np.arange(len(files), dtype=np.int32)))


def _no_images(root: Path, folder: Path, classes: dict[str, list[str]]) -> UserError:
    if not classes:
        return UserError(
            f"{folder} has no class folders", "expected a folder for each class: DIR/cat/1.jpg, DIR/dog/2.jpg"
        )
    inner = ", ".join(list(classes)[:5])
    hint = f"images are files ending in {', '.join(SUFFIXES)}"
    return UserError(f"no image in the class folders of {folder}: {inner}", hint)
