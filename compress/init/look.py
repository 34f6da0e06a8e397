"""Look at data: what it is, how it is written, how much of it there is, and what is wrong with it."""

from __future__ import annotations

import io
import shlex
import statistics
import unicodedata
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from compress.init.columns import guess_columns
from compress.init.formats import Format, recognise
from serve.manifest import Task
from train.data import DataConfig, Examined, Repair, examine, refusal
from train.sources import Items, Reading, load_source

_LOOKED_AT = 2_000  # items


@dataclass(frozen=True)
class Reason:
    """A value for the recipe, and why."""

    value: Any
    why: str


@dataclass(frozen=True)
class TextFacts:
    words: float  # median; a letter of a script without spaces counts as a word
    longest: int  # words of the longest
    scripts: dict[str, float]  # share of the letters: "LATIN", "CJK", "CYRILLIC"

    @property
    def mostly(self) -> str:
        return max(self.scripts, key=lambda name: self.scripts[name], default="none")

    @property
    def script_name(self) -> str:
        """The same as a sentence has it: "Latin", "CJK"."""
        return self.mostly if self.mostly == "CJK" else self.mostly.capitalize()


@dataclass(frozen=True)
class ImageFacts:
    size: tuple[int, int]  # height and width, medians
    alike: bool  # every image that was looked at has this size
    gray: bool


@dataclass(frozen=True)
class Findings:
    """What there is at a path."""

    path: Path
    task: Task
    source: str
    keys: dict[str, Reason]  # of [data]: columns, encoding, and so on
    total: int  # items of which the splits are drawn that the source does not have
    own: dict[str, int]  # items of the validation and test splits that it has
    classes: dict[str, int]  # items of each class, of `total`
    repairs: dict[str, str]  # key of [data.repair] -> what is wrong
    text: TextFacts | None = None
    image: ImageFacts | None = None


def look(path: Path) -> Findings:
    """Everything that a recipe depends on. Raises UserError for what no recipe could use."""
    kind = recognise(path)
    keys = _keys(kind)
    reading = {name: reason.value for name, reason in keys.items()}
    source = load_source(kind.source, Reading(**reading))
    repair = Repair(**dict.fromkeys(Repair.model_fields, "drop"))
    examined = examine(DataConfig(source=kind.source, repair=repair, **reading), decode=True)
    errors = [problem for verdict, problem in examined.problems if verdict == "error"]
    if errors:
        raise refusal(errors, f"limbeck data check {shlex.quote(str(path))}")
    if examined.obstacle is not None:
        raise examined.obstacle
    own = {"validation": source.validation, "test": source.test}
    counts = np.bincount(source.items.labels, minlength=len(source.classes)).tolist()
    return Findings(
        path=path,
        task=source.task,
        source=kind.source,
        keys=keys,
        total=len(source.items),
        own={name: len(items) for name, items in own.items() if items is not None},
        classes=dict(zip(source.classes, counts, strict=True)),
        repairs={name: found for name in Repair.model_fields if (found := _found(examined, name))},
        text=_text_facts(source.items) if source.task == "text" else None,
        image=_image_facts(source.items) if source.task == "image" else None,
    )


def _found(examined: Examined, repair: str) -> str:
    """What a key of [data.repair] would leave out, for the recipe's comment."""
    mended = [
        problem for verdict, problem in examined.problems if verdict == "repaired" and problem.kind.repair == repair
    ]
    return "; ".join(
        f"{problem.kind.title}: {problem.examples[0]}" + (f", and {more:,} more" if (more := problem.count - 1) else "")
        for problem in mended
    )


def _keys(kind: Format) -> dict[str, Reason]:
    keys = {name: Reason(value, why) for name, (value, why) in kind.keys.items()}
    if kind.columns:
        text, label = guess_columns(kind.columns)
        keys |= {
            "text_column": Reason(text.column, text.why),
            "label_column": Reason(label.column, label.why),
        }
    return keys


def _sample(items: Items) -> list[bytes]:
    rows = np.linspace(0, len(items) - 1, min(_LOOKED_AT, len(items))).astype(int)
    return [items.content[row] for row in rows]


def _text_facts(items: Items) -> TextFacts:
    texts = [content.decode() for content in _sample(items)]
    words = [_words(text) for text in texts]
    letters = Counter(script(letter) for text in texts for letter in text[:1000] if letter.isalpha())
    total = sum(letters.values())
    shares = {name: round(count / total, 3) for name, count in letters.most_common(5)}
    return TextFacts(statistics.median(words), max(words), shares)


def _words(text: str) -> int:
    spaceless = sum(script(letter) == "CJK" for letter in text if ord(letter) > 0xE00 and letter.isalpha())
    return max(len(text.split()), spaceless)


def script(letter: str) -> str:
    """The writing system of a letter, by its Unicode name: "LATIN", "CYRILLIC"; "CJK" for what has no spaces."""
    name = unicodedata.name(letter, "UNKNOWN").split()[0].split("-")[0]
    return "CJK" if name in ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER") else name


def _image_facts(items: Items) -> ImageFacts:
    sizes, modes = [], Counter[str]()
    for content in _sample(items):
        try:
            with Image.open(io.BytesIO(content)) as image:
                sizes.append((image.height, image.width))
                modes[image.mode] += 1
        except OSError:
            continue  # among the problems already
    height, width = (int(statistics.median(side)) for side in zip(*sizes, strict=True))
    return ImageFacts((height, width), len(set(sizes)) == 1, set(modes) <= {"L", "1"})
