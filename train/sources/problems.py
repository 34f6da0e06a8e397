"""Problems found in data: each has a kind, a count and the first few places, so that a person can mend them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

Severity = Literal["error", "warning", "note"]
Repair = Literal["unreadable", "empty", "missing_label", "duplicates", "rare_classes"]

EXAMPLES = 5


@dataclass(frozen=True)
class Kind:
    """One kind of problem: its title in a list, how bad it is, how to mend it, which [data.repair] key mends it."""

    title: str
    severity: Severity
    hint: str = ""
    repair: Repair | None = None


@dataclass
class Problem:
    """A kind of problem, how often it was met and where: "train.csv:17: the text is empty"."""

    kind: Kind
    count: int = 0
    examples: list[str] = field(default_factory=list)


class Problems:
    """Collects problems by kind; keeps the first few examples of each, however many there are."""

    def __init__(self, known: Iterable[Problem] = ()) -> None:
        self._known = {problem.kind.title: replace(problem, examples=[*problem.examples]) for problem in known}

    def add(self, kind: Kind, example: str, count: int = 1) -> None:
        problem = self._known.setdefault(kind.title, Problem(kind))
        problem.count += count
        if len(problem.examples) < EXAMPLES:
            problem.examples.append(_printable(example))

    def found(self) -> tuple[Problem, ...]:
        """In the order in which the kinds were first met."""
        return tuple(self._known.values())


def _printable(text: str) -> str:
    """Labels and cells may hold anything; nothing in them shall reach a terminal as a command."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


EMPTY_TEXT = Kind("empty texts", "error", "fill these texts in", "empty")
MISSING_LABEL = Kind("missing labels", "error", "give these items a label", "missing_label")
WRONG_CELLS = Kind(
    "rows with too few or too many cells",
    "error",
    "quote texts that hold the delimiter, and close quotes",
    "unreadable",
)
NOT_A_ROW = Kind("rows that cannot be read", "error", "mend these rows", "unreadable")
WRONG_ENCODING = Kind(
    "rows in another encoding",
    "error",
    'mend these rows, or set encoding = "cp1252" under [data] if all of the file is written so',
    "unreadable",
)
UNKNOWN_LABEL = Kind(
    "labels that data.classes does not name", "error", "add them to data.classes, or mend the labels", None
)
SPACED_LABEL = Kind(
    "labels with spaces around them", "warning", "kept as written: 'a' and 'a ' are two classes; take the spaces out"
)
UNREADABLE_IMAGE = Kind("images that cannot be read", "error", "replace or remove these files", "unreadable")
STRAY_FILE = Kind("files of the operating system", "note", "ignored")
NOT_AN_IMAGE = Kind("files that are no images", "warning", "ignored; take them out of the folder")
NO_CLASS = Kind("images outside a class folder", "error", "move each into the folder of its class")
NOT_READ = Kind("folders that were not read", "warning", "splits are called train, validation and test")
LINKED_FOLDER = Kind(
    "links to folders inside a class", "warning", "not followed; put the images there, or a link to each of them"
)
EMPTY_CLASS = Kind("classes without a single item", "warning", "left out; remove them, or give them items")
