"""What models of earlier runs, `run:DIR`, have already seen of the items by which this run chooses and judges."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from compress.recipe import Recipe, Student, Teacher
from compress.rundir import RUN_JSON, read_about
from compress.variants import HELD_OUT
from serve.errors import UserError
from train.data import SPLITS, Data, load_data
from train.models.saved import folder_of
from train.scan import scan

_RUN = "run:"
_JUDGED = ("validation", "test")
_LEARNED, _LEARNED_AGAIN = ("train",), ("train", "calibration", "validation")  # the latter with fit.final_refit


def with_lineage(recipe: Recipe, data: Data) -> Data:
    """`data`, with a note for each model of an earlier run of which it cannot be known what it has seen.

    Raises UserError for a model that was trained on items of this run's validation or test split, itself or one that
    taught it: it would look better than it is.
    """
    notes = [note for model in _named(recipe) for note in _check(model, data, seen=set())]
    return replace(data, notes=(*data.notes, *notes))


def seen_before(model: Path, data: Data) -> list[str]:
    """Why it cannot be known which items the trained model in this folder has seen, if so.

    Raises UserError where it was trained on items of the validation or test split of `data`.
    """
    return list(_check(str(model), data, seen=set()))


def _named(recipe: Recipe) -> list[str]:
    models: list[Teacher | Student] = [recipe.teacher, *recipe.teachers, *recipe.students]
    return sorted({model.model.removeprefix(_RUN) for model in models if model.model.startswith(_RUN)})


def _check(name: str, data: Data, seen: set[Path]) -> Iterator[str]:
    folder = folder_of(name).resolve()
    if folder in seen:
        return
    seen.add(folder)
    run = next((place for place in folder.parents if (place / RUN_JSON).is_file()), None)
    if run is None:
        yield f"'run:{name}' has no {RUN_JSON} above it: on which items it was trained is not known"
        return
    about, place = read_about(run), folder.relative_to(run).as_posix()
    try:
        earlier = Recipe.model_validate(about["recipe"])
    except (KeyError, ValidationError):
        yield f"'run:{name}' is of another version of limbeck: on which items it was trained is not known"
        return
    fit = about.get("stages", {}).get(place, {}).get("result", {})
    if fit.get("epochs"):
        learned = _LEARNED_AGAIN if fit.get("refit") else _LEARNED
        yield from _check_splits(name, place, learned, about, earlier, data)
    for teacher in _named(earlier):  # it may have learned from these
        yield from _check(teacher, data, seen)


def _check_splits(
    name: str, place: str, learned: tuple[str, ...], about: dict[str, Any], earlier: Recipe, data: Data
) -> Iterator[str]:
    splits = about.get("data", {}).get("splits", {})
    if splits == data.fingerprints:
        for split in _JUDGED:
            if split in learned:
                raise _refusal(name, place, split, len(data.splits[split]), data, again=True)
        return
    try:
        then = load_data(earlier.data.model_copy(update={"unlabelled": None}), earlier.seed, earlier.task)
    except UserError as error:
        yield f"'run:{name}': on which items it was trained cannot be seen any more ({error})"
        return
    if then.fingerprints != splits:
        yield f"'run:{name}': its data have changed since, so on which items it was trained is not known"
        return
    known = np.concatenate([scan(then.splits[split])[1] for split in learned])
    for split in _JUDGED:
        common = int(np.isin(scan(data.splits[split])[1], known).sum())
        if common:
            again = split in learned and data.fingerprints[split] == splits[split]
            raise _refusal(name, place, split, common, data, again)


def _refusal(name: str, place: str, split: str, common: int, data: Data, again: bool) -> UserError:
    run = name.removesuffix(place).rstrip("/")
    before = f"run:{run}/{HELD_OUT}/{place}"
    sizes = ", ".join(f"{each} = {len(data.splits[each]):,}" for each in SPLITS)
    return UserError(
        f"'run:{name}' was trained on {common:,} of the {len(data.splits[split]):,} {split} items, "
        "so it would look better than it is",
        f"take {before}, which is the model from before final_refit"
        if again
        else "draw the splits as that run did: give [data] the same source, sizes, seed and fold as in its run.json "
        f"(here: {sizes}), or take data of which it has seen none",
    )
