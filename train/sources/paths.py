"""Paths from recipes, and which files of a folder belong to which split."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from serve.errors import UserError, did_you_mean
from train.sources.base import Contents, Reading

# Every name that people give a split, lower case
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
# "train.csv", and the pieces of a large split: "train-00000-of-00003.parquet", "train_1.parquet"
_SPLIT_FILE = re.compile(rf"({'|'.join(SPLIT_NAMES)})([-_.].*)?", re.IGNORECASE)
_STRAY = re.compile(r"\..*|Thumbs\.db|desktop\.ini|__MACOSX", re.IGNORECASE)


def expand(where: str) -> Path:
    """A path from a recipe, with `${LIMBECK_DATA}` (default: data) and other variables filled in."""
    environment = {"LIMBECK_DATA": "data", **os.environ}
    missing = [name for name in re.findall(r"\$\{(\w+)\}", where) if name not in environment]
    if missing:
        raise UserError(f"'{where}' uses the variable {missing[0]}, which is not set", f"export {missing[0]}=...")
    return Path(re.sub(r"\$\{(\w+)\}", lambda match: environment[match[1]], where)).expanduser()


def existing(where: str, kind: str) -> Path:
    """The path that `kind`:`where` names. Raises UserError if nothing is there."""
    if not where:
        raise UserError(f"data.source = '{kind}:' names no path", f'write for example source = "{kind}:my-data"')
    path = expand(where)
    if path.exists():
        return path
    parent = path.parent
    beside = [other.name for other in parent.iterdir() if not is_stray(other.name)] if parent.is_dir() else []
    if not parent.is_dir():
        hint = f"there is no folder {parent} either; paths count from the working directory, {Path.cwd()}"
    else:
        hint = f"in {parent}: {did_you_mean(path.name, beside)}" if beside else f"{parent} is empty"
    raise UserError(f"no file or folder at {path} (data.source = '{kind}:{where}')", hint)


def is_stray(name: str) -> bool:
    """Is this what systems leave behind in people's folders: .DS_Store, Thumbs.db, __MACOSX, anything hidden?"""
    return _STRAY.fullmatch(name) is not None


def files_of(root: Path, kind: str, suffixes: Sequence[str], reading: Contents) -> dict[str, list[Path]]:
    """`split_files`; where no labels are read, every file that can be is "train", whatever it is called."""
    if isinstance(reading, Reading) or root.is_file():
        return split_files(root, kind, suffixes)
    _, found = _first_with_files(root, suffixes)
    if not found:
        raise UserError(f"{root} has no file ending in {' or '.join(suffixes)}", f"or name one file: {kind}:FILE")
    return {"train": found}


def split_files(root: Path, kind: str, suffixes: Sequence[str]) -> dict[str, list[Path]]:
    """Which files hold which split. A single file is "train", to be split. Raises UserError.

    A folder holds train.csv, perhaps validation.csv and test.csv, or the same in pieces, itself or in its folder
    `data` or its only folder, as data sets lie on the Hugging Face hub.
    """
    if root.is_file():
        return {"train": [root]}
    folder, found = _first_with_files(root, suffixes)
    splits: dict[str, list[Path]] = {}
    named: dict[str, str] = {}
    for path in found:
        match = _SPLIT_FILE.fullmatch(path.stem)
        if match is None:
            continue
        word = match[1].lower()
        split = SPLIT_NAMES[word]
        if named.setdefault(split, word) != word:
            raise UserError(
                f"{folder} has two {split} splits: {named[split]}* and {word}*", "keep one of them in the folder"
            )
        splits.setdefault(split, []).append(path)
    if "train" not in splits:
        raise _no_train(root, kind, found, suffixes)
    return splits


def _first_with_files(root: Path, suffixes: Sequence[str]) -> tuple[Path, list[Path]]:
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not is_stray(path.name))
    inner = [path for path in folders if path.name == "data"] or (folders if len(folders) == 1 else [])
    for folder in [root, *inner]:
        found = sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes and not is_stray(path.name))
        if found:
            return folder, found
    return root, []


def _no_train(root: Path, kind: str, found: Sequence[Path], suffixes: Sequence[str]) -> UserError:
    if len(found) == 1:
        hint = f'to have that file split, write source = "{kind}:{found[0]}"'
    else:
        hint = f"call the file to train on train{suffixes[0]}, or name one file: {kind}:{root / 'FILE'}"
    there = ", ".join(path.name for path in found[:5]) or f"no {' or '.join(suffixes)} file"
    return UserError(f"{root} has no train{suffixes[0]}; it holds {there}", hint)


def shown(path: Path, root: Path) -> str:
    """How a file is called in messages: from the source's folder on."""
    return path.name if path == root else path.relative_to(root).as_posix()
