"""The README's file tree names every file that there is, and no other."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("serve", "kernels", "train", "compress", "loadtests", "benchmarks")


def named() -> set[str]:
    """The Python files of the tree, as paths; a folder's name ends in a slash, two spaces lead into it."""
    section = (ROOT / "README.md").read_text().partition("## Where things are")[2].partition("\n## ")[0]
    folders: list[str] = []
    found: set[str] = set()
    for line in re.findall(r"^    ( *\S.*)$", section, re.MULTILINE):
        entries = re.match(r" *((?:[\w.]+/?(?:, )?)+)", line)
        assert entries is not None, line
        depth = (len(line) - len(line.lstrip())) // 2
        if entries[1].endswith("/"):
            folders = [*folders[:depth], entries[1]]
        else:
            found |= {"".join([*folders[:depth], name]) for name in entries[1].split(", ") if name.endswith(".py")}
    return found


def test_the_tree_names_every_file_and_no_other() -> None:
    there = {path.relative_to(ROOT).as_posix() for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    there = {path for path in there if not path.rpartition("/")[2].startswith("__")}
    assert named() == there
