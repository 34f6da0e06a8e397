"""The recipes that come with limbeck."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).resolve().parent


def names() -> list[str]:
    """By what they are called: digits, mnist and so on."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def named(path: Path) -> Path:
    """The recipe that `path` stands for: itself, or where nothing lies there, limbeck's own of that name."""
    return FOLDER / f"{path}.toml" if str(path) in names() and not path.exists() else path
