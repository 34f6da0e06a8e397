"""What a search leaves, written anew after each trial: best.toml, trials.csv, trials.json; tune.html at the end."""

from __future__ import annotations

import copy
import csv
import io
import json
import tomllib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
import tomlkit

from compress.recipe_file import apply_change, as_change
from compress.rundir import RUN_JSON, write_text
from serve.errors import UserError
from train.tuning.config import TuneConfig
from train.tuning.records import TrialRecord, best_of

BEST, TRIALS_CSV, TRIALS_JSON, PAGE = "best.toml", "trials.csv", "trials.json", "tune.html"
_SCHEMA = 1


@dataclass(frozen=True)
class Asked:
    """What was to be tuned: the recipe as the user wrote it, and what the page says of it."""

    name: str
    text: str  # the recipe's file
    changes: tuple[str, ...]  # of --set, without those of [tune]
    content: dict[str, Any]  # both together
    config: TuneConfig
    total: int  # trials
    seed: int
    judged_on: str  # "the 216 validation items"
    note: str  # how far to believe the best value
    mark: str = ""  # names the search, so that another one does not write over its results


def judged(asked: Asked) -> str:
    """The metric in words."""
    return "macro F1" if asked.config.metric == "macro_f1" else "accuracy"


def short_names(fields: Iterable[str]) -> dict[str, str]:
    """Each field without the model's part, fit.learning_rate; whole where a student and its teacher have it both."""
    short = {field: _short(field) for field in fields}
    often = Counter(short.values())
    return {field: name if often[name] == 1 else field for field, name in short.items()}


def _short(field: str) -> str:
    parts = field.split(".")
    return ".".join(parts[2:] if parts[0] == "students" else parts[1:])


def shown_value(value: Any) -> str:
    """A value as a person reads it: four digits of a fraction, tables as in TOML."""
    if isinstance(value, str | float):
        return value if isinstance(value, str) else f"{value:.4g}"
    return as_change("", value).removeprefix("=")


def check_folder(folder: Path, mark: str) -> None:
    """Make the folder of a search. Raises UserError where it cannot be, and where it holds a run or another search."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        known = json.loads((folder / TRIALS_JSON).read_text(encoding="utf-8"))["search"]
    except FileNotFoundError:
        known = mark
    except OSError as error:
        raise UserError(f"cannot write the folder {folder}: {error.strerror}", "give another with --out") from None
    except (ValueError, KeyError, TypeError):
        known = None
    if known != mark:
        raise UserError(
            f"{folder} holds the results of another search: the recipe, data, [tune] or storage were others",
            "give another folder with --out, or delete it to begin anew; only the number of trials, pruning, and tpe "
            "for random or back may change",
        )
    if (folder / RUN_JSON).exists():
        raise UserError(f"{folder} is a run directory", "give the search a folder of its own with --out")


def write_results(asked: Asked, records: list[TrialRecord], folder: Path) -> None:
    """Write best.toml, trials.csv and trials.json into `folder`, each whole or not at all."""
    best = best_of(records)
    if best is not None:
        write_text(folder / BEST, best_recipe(asked, best, len(records)))
    write_text(folder / TRIALS_CSV, _csv(asked, records))
    write_text(folder / TRIALS_JSON, _json(asked, records, best))


def best_recipe(asked: Asked, best: TrialRecord, tried: int) -> str:
    """The user's recipe with the best values in it, comments kept and [tune] left out."""
    head = (
        f"# The best of {tried} trials of `limbeck tune` so far: trial {best.number}, "
        f"{judged(asked)} {best.value:.4f} on {asked.judged_on}.\n# {asked.note}\n\n"
    )
    changes = [as_change(field, value) for field, value in best.values.items()]
    expected = copy.deepcopy(asked.content)
    for change in changes:
        apply_change(expected, change)
    expected.pop("tune", None)
    return head + (_edited(asked, changes, expected) or tomli_w.dumps(expected))


def _edited(asked: Asked, changes: list[str], expected: dict[str, Any]) -> str | None:
    """The text with the changes made in place; None where that would not say what is expected."""
    try:
        document: Any = tomlkit.parse(asked.text)
        document.pop("tune", None)
        for change in (*asked.changes, *changes):
            apply_change(document, change)
        text = tomlkit.dumps(document).rstrip() + "\n"
        return text if tomllib.loads(text) == expected else None
    except Exception:  # tables in an order that tomlkit cannot edit: correct values matter more than comments
        return None


def _csv(asked: Asked, records: list[TrialRecord]) -> str:
    fields = list(asked.config.search)
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["trial", "state", asked.config.metric, "seconds", *fields, "error"])
    for record in records:
        values = [_plain(record.values.get(field)) for field in fields]
        writer.writerow([record.number, record.state, record.value, record.seconds, *values, record.error])
    return file.getvalue()


def _plain(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict | bool) else value


def _json(asked: Asked, records: list[TrialRecord], best: TrialRecord | None) -> str:
    about = {
        "schema": _SCHEMA,
        "search": asked.mark,
        "recipe": asked.name,
        "tune": asked.config.model_dump(mode="json"),
        "seed": asked.seed,
        "trials_in_all": asked.total,
        "judged_on": asked.judged_on,
        "note": asked.note,
        "best": None if best is None else best.number,
        "trials": [record.model_dump(mode="json") for record in records],
    }
    return json.dumps(about, indent=2, ensure_ascii=False) + "\n"
