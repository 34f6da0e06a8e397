"""`limbeck tune`: search for the values of any of a recipe's fields, on validation or on folds, never on test."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna

from compress.fingerprint import fingerprint
from compress.lineage import seen_before, with_lineage
from compress.recipe import TEACHER, Recipe
from compress.recipe_file import read_content
from compress.report.tuning import write_page
from compress.teachers import all_teachers
from compress.tune.check import check_teacher, check_tune, with_value
from compress.tune.objective import PARTIAL, RecipeObjective, model_of
from compress.tune.results import Asked, check_folder, judged, short_names, shown_value, write_results
from serve.errors import UserError
from train.augment.augmenter import origin as origin_of_views
from train.data import Data, load_data
from train.models import needs_teacher
from train.tuning.config import LEAVE_ONE_OUT, TuneConfig
from train.tuning.records import TrialRecord, best_of
from train.tuning.space import space_of
from train.tuning.storage import open_storage, shown
from train.tuning.study import Place, Search

Say = Callable[[str], None]


def tune(
    path: Path,
    out: Path | None = None,
    storage: str | None = None,
    changes: tuple[str, ...] = (),
    teacher_from: Path | None = None,
    say: Say = print,
) -> tuple[Path, str]:
    """Search as the recipe's [tune] says; the folder with the results, and the best with how far to believe it.

    The same command goes on where it was stopped, and works together with others at the same storage.
    Raises UserError for a search that cannot be, and when all trials failed.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    content = read_content(path, list(changes))
    recipe, config = check_tune(content, str(path), teacher_from is not None)
    folder = out or Path("runs") / f"{recipe.name}-tune"
    data = with_lineage(recipe, load_data(recipe.data, recipe.seed, recipe.task))
    teacher = None if teacher_from is None else check_teacher(teacher_from, recipe, data.classes)
    for note in () if teacher is None else seen_before(teacher, data):
        say(note)
    mark = _mark(content, recipe, config, data, teacher_from)
    own = fingerprint({"search": mark, "storage": storage})
    check_folder(folder, own)
    objective = RecipeObjective(content, str(path), config, data, folder, teacher, config.trials, say)
    place = Place(open_storage(storage, folder), f"{recipe.name}-{config.model}", folder, shown(storage, folder))
    search = Search(place, config, recipe.seed, mark)
    kept = tuple(change for change in changes if not change.startswith("tune"))
    asked = Asked(
        name=recipe.name,
        text=path.read_text(encoding="utf-8"),
        changes=kept,
        content=content,
        config=config,
        total=search.total,
        seed=recipe.seed,
        judged_on=_judged_on(config, data),
        note=_note(recipe, config),
        mark=own,
    )
    say(_plan(asked, search))

    def on_trial(record: TrialRecord, records: list[TrialRecord]) -> None:
        write_results(asked, records, folder)
        say(trial_line(asked, record, records))

    search.run(objective, on_trial)
    best = best_of(_finish(asked, search, folder, say))
    found = "no trial is complete" if best is None else f"best: trial {best.number}, {judged(asked)} {best.value:.4f}"
    return folder, f"{found} on {asked.judged_on}. {asked.note}"


def trial_line(asked: Asked, record: TrialRecord, records: list[TrialRecord]) -> str:
    """What is said when a trial has ended."""
    ended = {"pruned": "pruned", "failed": f"failed: {record.error}"}.get(record.state, "")
    result = ended or f"{judged(asked)} {record.value:.4f}"
    best = best_of(records)
    names = short_names(asked.config.search)
    values = ", ".join(f"{names[field]}={shown_value(value)}" for field, value in record.values.items())
    told = "" if best is None else f"  best {best.value:.4f} (trial {best.number})"
    return f"trial {record.number}/{asked.total}  {result}{told}  {values}  {record.seconds or 0:.1f} s"


def _finish(asked: Asked, search: Search, folder: Path, say: Say) -> list[TrialRecord]:
    """The page and the last words, when this process has nothing left to begin."""
    with search.alone() as records:
        write_results(asked, records, folder)
        write_page(asked, records, search, folder)
        running = sum(record.state == "running" for record in records)
        if not running:
            shutil.rmtree(folder / PARTIAL, ignore_errors=True)
    if running:
        say(f"{running} of {asked.total} trials still run in other processes, which write the results again")
    failed = next((record for record in records if record.state == "failed"), None)
    if failed is not None and all(record.state == "failed" for record in records):
        raise UserError(
            f"all {len(records)} trials failed; the first: {failed.error}",
            "mend the recipe or the search, and begin in another folder with --out",
        )
    return records


def _mark(content: dict[str, Any], recipe: Recipe, config: TuneConfig, data: Data, teacher_from: Path | None) -> str:
    """Names what all trials of a study must have in common: how many there are and who draws them may change.

    But for a grid, whose trials are its own.
    """
    own = config.model_dump(mode="json", exclude={"trials", "sampler", "prune"})
    rest = {key: value for key, value in content.items() if key not in ("tune", "accept", "evaluate", "quantize")}
    own["grid"] = config.sampler == "grid"
    pool = {} if data.unlabelled is None else {"unlabelled": data.unlabelled.fingerprint}
    about = {"tune": own, "recipe": rest, "data": data.fingerprint, "teacher": str(teacher_from)}
    return fingerprint({**about, **pool, **_views(content, recipe, config)})


def _views(content: dict[str, Any], recipe: Recipe, config: TuneConfig) -> dict[str, Any]:
    """The content of all thesauri that the recipe names, or a value of the search; empty where there are none."""
    fields = [(field, value) for field, entry in space_of(config.search).items() for value in entry.probes]
    tried = [with_value(content, recipe.name, field, value) for field, value in fields]
    own, *others = [_thesauri(one) for one in (recipe, *tried)]
    searched = [files for files in others if files != own]
    return {**({"views": own} if any(own) else {}), **({"searched_views": searched} if searched else {})}


def _thesauri(recipe: Recipe) -> list[dict[str, str]]:
    fits = [model.fit for model in all_teachers(recipe).values()] + [model.fit for model in recipe.students]
    return [origin_of_views(fit.augment) for fit in fits]


def _judged_on(config: TuneConfig, data: Data) -> str:
    pool = len(data.splits["train"]) + len(data.splits["validation"])
    if config.folds == LEAVE_ONE_OUT:
        return f"each of {pool:,} items left out in turn"
    if config.folds:
        return f"{config.folds} stratified folds of {pool:,} items"
    return f"the {len(data.splits['validation']):,} validation items"


def _note(recipe: Recipe, config: TuneConfig) -> str:
    """How far to believe the best value."""
    model = model_of(recipe, config.model)
    options = recipe.students and config.model != TEACHER and needs_teacher(model.model, model.options)
    taught = config.model != TEACHER and (options or getattr(model, "distill", None) is not None)
    known = " The teacher was trained on items of the held-out folds." if config.folds and taught else ""
    where = "folds" if config.folds else "one validation split"
    return (
        f"The best of many trials on {where} is optimistic: part of it is luck.{known} "
        "`limbeck run best.toml` judges it on test, which no trial has seen."
    )


def _plan(asked: Asked, search: Search) -> str:
    config, done = asked.config, len(search.records())
    grid = " (a grid: every combination; tune.trials is not used)" if search.combinations is not None else ""
    begun = f", {done} of them begun already" if done else ""
    return (
        f"tuning {config.model} of {asked.name}: {asked.total} trials{grid}{begun}, {config.sampler}, "
        f"judged by {judged(asked)} on {asked.judged_on}"
    )
