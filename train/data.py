"""A recipe's data: four disjoint splits of one source, each with a fingerprint; refused or repaired as it says."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from serve.errors import SettingError, UserError
from serve.manifest import Task
from train.checks import check_classes, find_duplicates, undecodable
from train.folds import POOL, read_fold, refold
from train.repairs import Watch, parts_of, without, without_classes, without_undecodable
from train.scan import scan
from train.sources import Items, Reading, Source, load_source
from train.sources.embedded import WITHOUT_FILES
from train.sources.groups import read_groups
from train.sources.joined import join
from train.sources.present import check_present
from train.sources.problems import Problem, Problems
from train.splits import draw_sample, draw_splits
from train.unlabelled import LEFT_OUT, Pool, UnlabelledConfig, read_unlabelled

UNLABELLED_ITEMS = "unlabelled"  # beside the splits, in `Data.part`
SPLITS = ("train", "calibration", "validation", "test")
_SHARES = {"calibration": 0.1, "validation": 0.1, "test": 0.2}  # of train, where nothing else is said
_CALIBRATION = 256  # more would not change the ranges that int8 is calibrated to

Refuse = Literal["refuse", "drop"]
Verdict = Literal["error", "warning", "note", "repaired"]


class Repair(BaseModel):
    """[data.repair]: what becomes of items that something is wrong with. Nothing is left out unless it says so."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    unreadable: Refuse = "refuse"  # rows, and images; "drop" decodes every image before the run begins
    empty: Refuse = "refuse"  # texts
    missing_label: Refuse = "refuse"
    # Equal items in two splits; "drop" keeps the one in the later split, so that test and validation stay whole.
    duplicates: Literal["refuse", "drop", "keep"] = "refuse"
    rare_classes: Refuse = "refuse"  # of which there are fewer items than splits to be drawn


class DataConfig(Reading):
    """[data]: the source, how it is read, and how many items (an int) or what share of them (a float) a split gets.

    calibration is always drawn from train. Where the source has a validation or test split of its own, that is taken,
    or a sample of it if a size is given; where it has none, they are drawn from train too.
    """

    source: str
    train: int | float | None = Field(default=None, gt=0)  # None: all that the others leave
    calibration: int | float | None = Field(default=None, gt=0)  # None: 256, or 0.1 where that is less
    validation: int | float | None = Field(default=None, gt=0)  # None: the source's own; 0.1 where it has none
    test: int | float | None = Field(default=None, gt=0)  # None: the source's own; 0.2 where it has none
    seed: int | None = Field(default=None, ge=0, lt=2**32)  # of what is drawn; None: the recipe's
    # "2/5": cross-validation. Of five parts of all that is not test, the second takes its place, and test is left out.
    fold: str | None = None
    group: str | None = None  # a column that a report looks for worst groups by; no model ever sees it
    repair: Repair = Repair()
    unlabelled: UnlabelledConfig | None = None  # for distilled students

    @model_validator(mode="after")
    def _every_setting_says_something(self) -> DataConfig:
        if self.fold is not None:
            read_fold(self.fold)
        classes = self.classes or ()
        twice = next((name for name in classes if classes.count(name) > 1), None)
        if twice is not None:
            raise SettingError(f"classes names '{twice}' twice", "name each class once")
        if self.source.partition(":")[0] in WITHOUT_FILES:
            for name, field in Reading.model_fields.items():
                if getattr(self, name) != field.default:
                    raise SettingError(
                        f"{name} says how files are read, and source = '{self.source}' is read as it is",
                        f"leave out {name}",
                    )
        return self


@dataclass(frozen=True)
class Data:
    """Labelled items in four disjoint splits; `notes` say what was left out of them, for the record."""

    source: str
    task: Task
    classes: tuple[str, ...]
    splits: dict[str, Items]
    fingerprints: dict[str, str]
    notes: tuple[str, ...] = ()
    unlabelled: Pool | None = None  # for distilled students alone; not in `fingerprint`
    test_groups: tuple[str, ...] = ()  # of each test item, where the recipe names a column of groups
    fold: str | None = None
    left_out: Items | None = None  # the test split of which a fold has taken the place

    @property
    def judged(self) -> np.ndarray:
        """Labels int64 [N] of all items that the verdict is over: those of test, or of all folds together."""
        return self.part("+".join((*POOL, "test")) if self.fold else "test").labels

    @property
    def fingerprint(self) -> str:
        """Names exactly these labelled items, labels, class names and splits."""
        parts = [*self.classes, *(self.fingerprints[name] for name in SPLITS)]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def part(self, name: str) -> Items:
        """A split, or "unlabelled", or both joined by a plus: "train+unlabelled"."""
        parts = [self._part(each) for each in name.split("+")]
        return parts[0] if len(parts) == 1 else join(parts)

    def _part(self, name: str) -> Items:
        if name != UNLABELLED_ITEMS:
            return self.splits[name]
        assert self.unlabelled is not None
        return self.unlabelled.items


@dataclass(frozen=True)
class Examined:
    """What a look at the data gave: all problems with their verdicts, and the data if it could be split at all."""

    task: Task
    classes: tuple[str, ...]
    problems: tuple[tuple[Verdict, Problem], ...]
    splits: Mapping[str, Items]  # the four, or the source's own where it could not be split
    data: Data | None
    obstacle: UserError | None = None  # why it could not be split

    @property
    def accepted(self) -> bool:
        return self.data is not None and all(verdict != "error" for verdict, _ in self.problems)


def check_files(config: DataConfig) -> None:
    """Raise UserError where files that the recipe names are not there. Nothing of them is read."""
    check_present(config.source, config)
    if config.unlabelled is not None:
        check_present(config.unlabelled.source, config.unlabelled)


def load_data(config: DataConfig, seed: int, task: Task | None = None) -> Data:
    """Read the source and split it, stratified by class. The same config and seed (`config.seed` first) give the same
    splits.

    Raises UserError for data that the recipe's `task` does not fit, or with a problem that the recipe does not repair.
    """
    examined = examine(config, seed, task)
    errors = [problem for verdict, problem in examined.problems if verdict == "error"]
    if errors:
        raise refusal(errors)
    if examined.obstacle is not None:
        raise examined.obstacle
    assert examined.data is not None
    _check_test_images(examined.data)
    if config.group is None:
        return examined.data
    groups = read_groups(config.source, config, config.group, examined.data.splits["test"])
    return replace(examined.data, test_groups=groups)


def _check_test_images(data: Data) -> None:
    """Refuse images that do not decode in the split that is read last: training must not run first, for nothing."""
    problems = Problems()
    if data.task == "image":
        undecodable(data.splits["test"], problems)
    if problems.found():
        raise refusal(list(problems.found()))


def examine(
    config: DataConfig, seed: int = 0, task: Task | None = None, decode: bool = False, watch: Watch = lambda *_: None
) -> Examined:
    """Read, check, repair and split. `decode` looks into every image, as a recipe that drops unreadable ones does.

    Raises UserError for data that cannot be read at all, or not for this `task`.
    """
    source = load_source(config.source, config, task)
    _check_task(source, config, task)
    problems = Problems(source.problems)
    if source.task == "image" and (decode or config.repair.unreadable == "drop"):
        source = without_undecodable(source, problems, watch)
    rare = check_classes(source, 1 + (source.validation is None) + (source.test is None), problems)
    if len(rare) and config.repair.rare_classes == "drop":
        source = without_classes(source, rare)
    data, obstacle = None, None
    drawn_by = seed if config.seed is None else config.seed
    if not any(verdict == "error" and problem.kind.repair is None for verdict, problem in _judged(problems, config)):
        try:
            data = _split_and_name(source, config, drawn_by, problems)
        except UserError as error:
            obstacle = error
    if data is not None and config.unlabelled is not None:
        repair = config.repair
        drop_unreadable = repair.unreadable == "drop"
        known = data.splits if data.left_out is None else {**data.splits, LEFT_OUT: data.left_out}
        pool = read_unlabelled(
            config.unlabelled, data.task, known, drawn_by, problems, drop_unreadable, repair.duplicates, watch
        )
        data = replace(data, unlabelled=pool)
    judged = _judged(problems, config)
    if data is not None:
        notes = tuple(f"left out: {describe(problem)}" for verdict, problem in judged if verdict == "repaired")
        if config.unlabelled is not None and data.unlabelled is not None:
            notes = (*notes, f"{len(data.unlabelled.items):,} unlabelled items: {config.unlabelled.source}")
        if config.fold is not None:
            notes = (*notes, f"judged on fold {config.fold} of train, calibration and validation; test is left out")
        data = replace(data, notes=notes)
    splits = data.splits if data is not None else parts_of(source)
    return Examined(source.task, source.classes, judged, splits, data, obstacle)


def refusal(errors: list[Problem], check: str = "limbeck data check RECIPE") -> UserError:
    """One error for all that is wrong: the first problem with its place, how many there are, what helps.

    `check` is the command that lists every problem.
    """
    first, total = errors[0], sum(problem.count for problem in errors)
    more = f" ({total} problems in all)" if total > 1 else ""
    return UserError(f"{first.examples[0]}{more}", f"{how_to_mend(first)}; `{check}` lists all that is wrong")


def how_to_mend(problem: Problem) -> str:
    """The hint of a problem, with the line of the recipe that repairs it where there is one."""
    kind = problem.kind
    return kind.hint if kind.repair is None else f'{kind.hint}, or write {kind.repair} = "drop" under [data.repair]'


def describe(problem: Problem) -> str:
    """A problem in a line: "empty texts: train.csv:17: the text is empty and 1 more"."""
    more = f" and {problem.count - 1:,} more" if problem.count > 1 else ""
    return f"{problem.kind.title}: {problem.examples[0]}{more}"


def _judged(problems: Problems, config: DataConfig) -> tuple[tuple[Verdict, Problem], ...]:
    return tuple((_verdict(problem, config.repair), problem) for problem in problems.found())


def _verdict(problem: Problem, repair: Repair) -> Verdict:
    chosen = getattr(repair, problem.kind.repair) if problem.kind.repair else "refuse"
    if problem.kind.severity != "error" or chosen == "refuse":
        return problem.kind.severity
    return "repaired" if chosen == "drop" else "note"


def _check_task(source: Source, config: DataConfig, task: Task | None) -> None:
    """Refuse a recipe for images over texts, and the other way round."""
    if task not in (None, source.task):
        raise UserError(
            f"'{config.source}' holds {source.task}s, but the recipe's task is '{task}'",
            f'write task = "{source.task}" at the top of the recipe',
        )


def _split_and_name(source: Source, config: DataConfig, seed: int, problems: Problems) -> Data:
    splits, left_out = _split(source, config, seed)
    scanned = {name: scan(items) for name, items in splits.items()}
    if config.repair.duplicates != "keep":
        hashes = {name: hashes for name, (_, hashes) in scanned.items()}
        leaking = find_duplicates(splits, hashes, source.classes, problems)
        if config.repair.duplicates == "drop":
            for name in (name for name, rows in leaking.items() if len(rows)):
                splits[name] = without(splits[name], leaking[name])
                scanned[name] = scan(splits[name])
                _check_rest(name, splits[name], source.classes)
    fingerprints = {name: mark for name, (mark, _) in scanned.items()}
    return Data(config.source, source.task, source.classes, splits, fingerprints, fold=config.fold, left_out=left_out)


def _check_rest(name: str, left: Items, classes: tuple[str, ...]) -> None:
    """Refuse a split that lost so much with its duplicates that it cannot do its part."""
    lost = np.flatnonzero(np.bincount(left.labels, minlength=len(classes)) == 0)
    if len(left) == 0 or (name == "train" and len(lost)):
        what = f"no item of class '{classes[lost[0]]}'" if len(left) else "nothing"
        raise UserError(
            f"without the items that are in other splits as well, {what} is left in {name}",
            "the splits are copies of each other: give the source other ones, or have them drawn from one file",
        )


def _split(source: Source, config: DataConfig, seed: int) -> tuple[dict[str, Items], Items | None]:
    """The source's own splits where it has them, the others drawn from its train, stratified by class.

    And the test split that a fold has taken the place of.
    """
    classes, total = len(source.classes), len(source.items)
    wanted = {"calibration": config.calibration, "validation": config.validation, "test": config.test}
    owned = {"calibration": None, "validation": source.validation, "test": source.test}
    counts: dict[str, int] = {}
    splits: dict[str, Items] = {}
    for name, asked in wanted.items():
        own = owned[name]
        if own is None:
            counts[name] = _default(name, total, classes) if asked is None else _number(asked, total)
        else:
            splits[name] = own if asked is None else draw_sample(own, _number(asked, len(own)), classes, seed, name)
    splits.update(draw_splits(source.items, counts, classes, seed))
    if config.train is not None:
        splits["train"] = draw_sample(splits["train"], _number(config.train, total), classes, seed, "train")
    left_out = None
    if config.fold is not None:
        left_out, splits = splits["test"], refold(splits, config.fold, classes, seed)
    return {name: splits[name] for name in SPLITS}, left_out


def _default(name: str, total: int, classes: int) -> int:
    share = max(round(_SHARES[name] * total), classes)
    return min(share, max(_CALIBRATION, classes)) if name == "calibration" else share


def _number(size: int | float, total: int) -> int:
    return size if isinstance(size, int) else round(size * total)
