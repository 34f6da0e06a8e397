"""`limbeck optimize`: the search from its recipe to the verdict on test."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna

from compress.console import Console
from compress.evidence.abstain import check_promise
from compress.evidence.drops import check_margin, metric_rows, spoken
from compress.lineage import with_lineage
from compress.onnx_model import OnnxClassifier
from compress.optimize.bench import Bench
from compress.optimize.config import OptimizeConfig
from compress.optimize.defaults import default_students
from compress.optimize.direct import direct_content
from compress.optimize.ledger import Ledger
from compress.optimize.onnx import OnnxBench, confirm, is_onnx, read_given
from compress.optimize.records import RESOLVED, SEARCH, Record, Trial, nearest_of
from compress.optimize.resolve import as_toml, freeze, resolved_recipe
from compress.optimize.search import Search
from compress.optimize.space import Proposals, check_space, samples_of
from compress.optimize.students import check_students, named_anew, own_students
from compress.optimize.trials import Trials
from compress.optimize.wording import space_lines, trial_line
from compress.pipeline import describe, run
from compress.quantize.providers import check_provider, runnable
from compress.recipe import TEACHER, Recipe
from compress.recipe_file import apply_change, parse_recipe, read_content
from compress.report.optimizing import write_page
from compress.report.schema import Choice, Report
from compress.rundir import RUN_JSON, RunDir, adopt_stages, open_run, write_text
from serve.errors import UserError
from serve.manifest import Precision
from train.classifier import load_classifier
from train.data import Data, load_data

# Beside what the recipe names: cheap to try, and which of them pays depends on the network.
_PRECISIONS: tuple[Precision, ...] = ("fp32", "int8-dynamic", "int8-static")
_SMALL: tuple[Precision, ...] = ("int8-weights", "int4-weights")  # no faster, so only where size counts
_HEAD = """\
Written by `limbeck optimize`: {reason}.
`limbeck run` makes this package from the data; `limbeck optimize` searches the same space again."""


@dataclass(frozen=True)
class Asked:
    """What a user asked for on the command line."""

    recipe: Path | None = None
    model: str | None = None
    data: str | None = None
    out: Path | None = None
    changes: Sequence[str] = ()
    accept: dict[str, Any] | None = None  # fields of [accept] to set
    budget: str | None = None
    command: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of a search."""

    folder: Path
    record: Record
    report: Report


def optimize(asked: Asked, console: Console, clock: Callable[[], float] = time.monotonic) -> Outcome:
    """Search, freeze the choice on validation, judge it on test once. The same command goes on where it was stopped.

    Raises UserError for what cannot be searched.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    recipe = _recipe(asked, console)
    config = recipe.optimize or OptimizeConfig()
    folder = asked.out or Path("runs") / f"{recipe.name}-optimize"
    _check_folder(folder)
    data = with_lineage(recipe, load_data(recipe.data, recipe.seed, recipe.task))
    for note in data.notes:
        console.say(note)
    check_margin(recipe.accept, int(metric_rows(recipe.accept.metric, data.splits["test"].labels, data.classes).sum()))
    check_promise(recipe.abstain, len(data.splits["validation"]))
    given = read_given(recipe, data) if is_onnx(recipe) else None
    ledger = Ledger(config.seconds, clock)
    about = describe(recipe, data, asked.command)
    with open_run(folder / SEARCH, about, ledger.on_stage, keep_unfinished=True) as rundir:
        choice, record, resolved = _search(recipe, config, data, rundir, console, ledger, folder, asked.command, given)
    console.say(f"the choice is frozen on validation: {choice.id}; now the one pass over test")
    began = clock()
    _adopt(folder, rundir, choice.id, resolved)
    if given is None:
        report = run(resolved, folder, console, asked.command, frozen=choice)
    else:
        report = confirm(resolved, data, given, folder, console, asked.command, choice)
    record.selected, record.verdict, record.confirm_seconds = report.selected, report.verdict, clock() - began
    record.write(folder)
    write_page(record, report, folder)
    return Outcome(folder, record, report)


def _recipe(asked: Asked, console: Console) -> Recipe:
    """The recipe that was named, or one for the model that was, with what the command line changes."""
    if (asked.recipe is None) == (asked.model is None):
        raise UserError(
            "give a recipe, or a trained model with --model", "limbeck optimize --model run:runs/digits --data digits"
        )
    if asked.recipe is not None:
        if asked.data is not None:
            raise UserError("--data is for --model; a recipe names its own data", "leave one of them out")
        content, origin = read_content(asked.recipe, list(asked.changes)), str(asked.recipe)
    else:
        content, said = direct_content(asked.model or "", asked.data)
        origin = f"--model {asked.model}"
        for line in said:
            console.detail(line)
        for change in asked.changes:
            apply_change(content, change)
    content.setdefault("accept", {}).update(asked.accept or {})
    if asked.budget is not None:
        content.setdefault("optimize", {})["budget"] = asked.budget
    recipe = parse_recipe(content, origin)
    refitted = [name for name, fit in _fits(recipe) if fit.final_refit]
    if refitted:
        raise UserError(
            f"{origin}: '{refitted[0]}' has final_refit, which trains on validation, and that judges the search",
            f"leave it out, and set it in {RESOLVED} for a run of its own",
        )
    return recipe


def _fits(recipe: Recipe) -> list[tuple[str, Any]]:
    named = [(TEACHER, recipe.teacher.fit), *((one.name, one.fit) for one in recipe.teachers)]
    return [*named, *((student.name, student.fit) for student in recipe.students)]


def _check_folder(folder: Path) -> None:
    if (folder / RUN_JSON).exists() and not (folder / SEARCH).is_dir():
        raise UserError(f"{folder} is a run directory", "give the search a folder of its own with --out")


def _search(
    recipe: Recipe,
    config: OptimizeConfig,
    data: Data,
    rundir: RunDir,
    console: Console,
    ledger: Ledger,
    folder: Path,
    command: str | None,
    given: OnnxClassifier | None,
) -> tuple[Choice, Record, Recipe]:
    own, left_out = own_students(recipe)
    precisions, why = _precisions(recipe, config)
    for line in [*left_out, *filter(None, [why])]:
        console.say(line)
    check_space(config.students or (), recipe.task)  # not after the teacher's training
    check_students(recipe, config)
    searched = recipe.model_copy(
        update={"quantize": recipe.quantize.model_copy(update={"precisions": precisions}), "students": ()}
    )
    bench: Bench = Bench(searched, config, data, rundir, console, ledger)
    if given is not None:
        bench = OnnxBench(searched, config, data, rundir, console, ledger, given)
    console.say(f"teacher: {recipe.teacher.model}")
    bench.teach(
        [*own, *(student for space in named_anew(config.students or (), recipe) for student in samples_of(space))]
    )
    config = _resolved(config, recipe, rundir.path, len(data.splits["train"]), precisions)
    bench.config = config
    check_space(config.students or (), recipe.task)
    proposals = Proposals(config.students or (), own, _seed(recipe, config), config.together)
    record = _record(recipe, config, data, command, proposals.total(), bench.teacher_accuracy())
    for line in space_lines(record, config, own):
        console.say(line)

    def save() -> None:
        record.spent_seconds = ledger.spent()
        if ledger.worked:  # not while a search that goes on finds again what was there
            record.write(folder)

    def told(trial: Trial) -> None:
        console.say(trial_line(trial, ledger.spent()))

    folder.mkdir(parents=True, exist_ok=True)
    trials = Trials(bench, record, save, told)
    record.ended = Search(bench, trials, proposals, console.say).run()
    record.spent_seconds = ledger.spent()
    choice = freeze(bench, trials)
    chosen = next(trial for trial in trials.all if trial.id == choice.id)
    record.choice, record.choice_reason = choice.id, choice.reason
    nearest = nearest_of(trials.all)
    record.nearest = None if nearest is None else nearest.id
    student = trials.students.get(chosen.model)
    resolved = resolved_recipe(recipe, config, chosen, student)
    write_text(folder / RESOLVED, as_toml(resolved, _HEAD.format(reason=choice.reason)))
    record.write(folder)
    return choice, record, resolved


def _precisions(recipe: Recipe, config: OptimizeConfig) -> tuple[tuple[Precision, ...], str]:
    """In which precisions models are tried, and what is to be said of the provider. Raises UserError."""
    accept = recipe.accept
    size_counts = accept.prefer == "size" or accept.max_size_mb is not None
    usual = (*recipe.quantize.precisions, *_PRECISIONS, *(_SMALL if size_counts else ()))
    asked = tuple(dict.fromkeys(config.precisions or usual))
    why = check_provider(recipe.quantize.model_copy(update={"precisions": asked}))
    return runnable(asked, recipe.quantize.provider)[0], why


def _resolved(
    config: OptimizeConfig,
    recipe: Recipe,
    path: Path,
    train: int,
    precisions: tuple[Precision, ...],
) -> OptimizeConfig:
    """[optimize] with everything written out that it leaves open."""
    serving = recipe.serving
    students = config.students
    if students is None and is_onnx(recipe):
        students = ()
    if students is None:
        students = default_students(recipe, load_classifier(path / TEACHER), train)
    return config.model_copy(
        update={
            "students": named_anew(students, recipe),
            "precisions": precisions,
            "threads": config.threads or ((1,) if serving is None else (serving.threads,)),
            "graph_levels": config.graph_levels
            or (("all", "extended", "basic") if serving is None else (serving.graph_level,)),
            "seed": _seed(recipe, config),
        }
    )


def _seed(recipe: Recipe, config: OptimizeConfig) -> int:
    return recipe.seed if config.seed is None else config.seed


def _record(
    recipe: Recipe, config: OptimizeConfig, data: Data, command: str | None, designs: int, accuracy: float
) -> Record:
    return Record(
        name=recipe.name,
        task=data.task,
        source=data.source,
        command=command,
        accept=recipe.accept,
        metric=spoken(recipe.accept.metric),
        validation_items=len(data.splits["validation"]),
        test_items=len(data.splits["test"]),
        teacher=recipe.teacher.model,
        teacher_accuracy=accuracy,
        optimize=config.model_dump(mode="json", exclude_none=True),
        designs=designs,
        budget_seconds=config.seconds,
        spent_seconds=0.0,
        ended="the search goes on",
        trials=[],
    )


def _adopt(folder: Path, search: RunDir, chosen: str, resolved: Recipe) -> None:
    """Take what the choice needs from the search's directory: nothing is trained or packaged again."""
    models = [TEACHER, *(f"teachers/{one.name}" for one in resolved.teachers)]
    models += [f"students/{student.name}" for student in resolved.students]
    names = [TEACHER, *(student.name for student in resolved.students)]
    packaged = [f"{name}-{precision}" for name in names for precision in resolved.quantize.precisions]
    stages = [*models, *(f"packages/{name}" for name in packaged)]
    stages += [f"validation/{name}" for name in ("teacher-torch", *packaged)]
    adopt_stages(search.path, folder, stages)
