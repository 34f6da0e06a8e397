"""`limbeck data preview`: rows of the training split as they are and as training sees them, on one page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from compress.data.textmarks import Span, mark_changes
from compress.recipe import TEACHER, NamedTeacher, Recipe, Student, Teacher
from compress.recipe_file import as_change
from compress.report.render import render_preview
from compress.stages.fitting import learns_from
from compress.teachers import all_teachers, seed_of
from serve.errors import UserError, did_you_mean, said
from serve.images import ImagePreparer
from train.augment.augmenter import asks_the_teacher, text_augmenter
from train.classifier import SPEC, Classifier, ModelConfig, load_classifier, new_classifier
from train.data import UNLABELLED_ITEMS, Data, load_data
from train.distill.config import LessonItems
from train.draft import Wanted
from train.inputs import LazyImages, TextInputs, prepare_inputs
from train.sources import Items
from train.sources.base import UNLABELLED
from train.views import View

EPOCHS = 4  # views of each row
_STATISTICS_ITEMS = 256  # a preview shows no normalised pixels, and so needs no exact mean of them
_NOT_TRAINED = (
    "The teacher is not trained yet. Where a view depends on it, an untrained one was asked; after `limbeck run` the "
    "preview asks the trained one."
)
_UNLABELLED = (
    "Rows marked unlabelled are of [data.unlabelled]: what is learned from them is the teacher's answers alone."
)

Look = str | tuple[Span, ...]  # an image as a data: URI, or a text in pieces


@dataclass(frozen=True)
class Row:
    """An item of the training split, or an unlabelled one, as it is, and its views."""

    label: str | None  # None: of [data.unlabelled]
    before: str
    views: tuple[Look, ...]


@dataclass(frozen=True)
class Section:
    """The rows as some models see them that are augmented alike; no model: as they are."""

    models: tuple[str, ...]
    settings: tuple[str, ...]
    notes: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Page:
    """All that the template shows."""

    name: str
    source: str
    task: str
    seed: int
    total: int  # items of the training split
    unlabelled: int  # items without labels besides
    epochs: int
    nothing: str  # why there is no view, if there is none
    sections: tuple[Section, ...]


def write_preview(recipe: Recipe, run: Path, out: Path, model: str | None = None, rows: int = 12) -> Page:
    """Write the page of `preview` into one HTML file that asks for nothing from the network.

    Raises UserError where it cannot be written.
    """
    page = preview(recipe, run, model, rows)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(render_preview(page), encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write the page {out}: {said(error)}", "name another file with --out") from None
    return page


def preview(recipe: Recipe, run: Path, model: str | None = None, rows: int = 12) -> Page:
    """Rows spread evenly over the training split, with the views of the first epochs of each model's training.

    Students that learn from [data.unlabelled] are shown with a third as many of these besides. `run` is where a trained
    teacher may lie. Raises UserError for a model that the recipe does not have.
    """
    known: dict[str, Teacher | Student] = {**all_teachers(recipe), **{one.name: one for one in recipe.students}}
    if model is not None and model not in known:
        raise UserError(f"the recipe has no model '{model}'", did_you_mean(model, known))
    asked = {name: one for name, one in known.items() if model in (None, name)}
    data = load_data(recipe.data, recipe.seed, recipe.task)
    seen = _Seen(recipe, data, run, rows)
    nothing = ""
    sections = tuple(seen.section(asked[names[0]], names) for names in _alike(asked, data))
    if not sections:
        whose = f"{model} has no" if model else "no model has"
        nothing = f"Nothing is augmented: {whose} fit.augment. Training sees the rows as they are."
        learns = {learns_from(one, data) for one in asked.values()}
        shown = seen.lesson(learns.pop() if len(learns) == 1 else "all")
        sections = (Section((), (), shown.notes, seen.rows(shown, [()] * len(shown.picked))),)
    unlabelled = 0 if data.unlabelled is None else len(data.unlabelled.items)
    return Page(
        recipe.name,
        data.source,
        data.task,
        recipe.seed,
        len(data.splits["train"]),
        unlabelled,
        EPOCHS,
        nothing,
        sections,
    )


def _alike(models: dict[str, Teacher | Student], data: Data) -> list[tuple[str, ...]]:
    """The names of those that augment, together where they see the same: a student and its control.

    Not so where the student learns from unlabelled items besides, which a control never sees.
    """
    groups: dict[str, list[str]] = {}
    for name, model in models.items():
        if model.fit.augment.is_active:
            kind = (isinstance(model, Teacher), getattr(model, "seed_offset", 0), model.model, model.options)
            key = f"{kind} {learns_from(model, data)} {model.fit.augment.model_dump_json()}"
            groups.setdefault(key, []).append(name)
    return [tuple(names) for names in groups.values()]


@dataclass(frozen=True)
class _Lesson:
    """What a model trains on, and the rows of it that are shown, int64 [R]: a view depends on an item's place in it."""

    items: Items
    picked: np.ndarray
    notes: tuple[str, ...] = ()


class _Seen:
    """The picked rows, as they are and as models see them: with the models untrained, but for what a run has left."""

    def __init__(self, recipe: Recipe, data: Data, run: Path, rows: int) -> None:
        self._recipe, self._data, self._run, self._rows = recipe, data, run, rows
        self._teacher: Classifier | None = None
        self._is_trained = False

    def lesson(self, learns: LessonItems) -> _Lesson:
        """The items of training, and some of them."""
        labelled = len(self._data.splits["train"])
        if learns == "labelled" or self._data.unlabelled is None:
            return _Lesson(self._data.part("train"), _spread(self._rows, labelled))
        without = len(self._data.unlabelled.items)
        if learns == "unlabelled":
            return _Lesson(self._data.part(UNLABELLED_ITEMS), _spread(self._rows, without), (_UNLABELLED,))
        some = labelled + _spread(max(1, self._rows // 3), without)
        picked = np.concatenate([_spread(self._rows, labelled), some])
        return _Lesson(self._data.part(f"train+{UNLABELLED_ITEMS}"), picked, (_UNLABELLED,))

    def section(self, model: Teacher | Student, names: tuple[str, ...]) -> Section:
        """What models see that are all configured as `model` is."""
        config, lesson = model.fit.augment, self.lesson(learns_from(model, self._data))
        asked = config.model_dump(mode="json", exclude_defaults=True)  # a table as far as it was asked for
        settings = tuple(as_change(f"{key} ", asked[key]).replace("=", "= ", 1) for key in config.active())
        notes = list(lesson.notes)
        if self._data.task == "image":
            return Section(names, settings, tuple(notes), self.rows(lesson, self._images(model, lesson)))
        views = self._texts(model, lesson, notes)
        if isinstance(model, Student) and asks_the_teacher(config) and not self._is_trained:
            notes.append(_NOT_TRAINED)
        return Section(names, settings, tuple(notes), self.rows(lesson, views))

    def rows(self, lesson: _Lesson, views: Sequence[tuple[Look, ...]]) -> tuple[Row, ...]:
        """The picked rows with these views."""
        classes = self._data.classes
        labels = [None if at == UNLABELLED else classes[at] for at in lesson.items.labels[lesson.picked]]
        return tuple(Row(*row) for row in zip(labels, self._as_they_are(lesson), views, strict=True))

    def _as_they_are(self, lesson: _Lesson) -> list[str]:
        if self._data.task == "image":
            return [_as_uri(image) for image in self._pixels(lesson)]
        return [lesson.items.content[int(at)].decode() for at in lesson.picked]

    def _texts(self, model: Teacher | Student, lesson: _Lesson, notes: list[str]) -> list[tuple[Look, ...]]:
        is_main = isinstance(model, Teacher) and not isinstance(model, NamedTeacher)
        own = self.teacher() if is_main else self._new(model, self.teacher())
        teacher = self.teacher() if isinstance(model, Student) else None
        inputs = prepare_inputs(lesson.items, own.preparer())
        augmenter = text_augmenter(model.fit.augment, inputs, teacher, own, seed_of(self._recipe, model), notes.append)
        assert augmenter is not None
        assert isinstance(inputs, TextInputs)
        texts = zip(lesson.picked.tolist(), inputs.texts(lesson.picked), strict=True)
        return [
            tuple(mark_changes(text, augmenter.view(text, epoch, at)) for epoch in range(EPOCHS)) for at, text in texts
        ]

    def _images(self, model: Teacher | Student, lesson: _Lesson) -> list[tuple[Look, ...]]:
        images, seed = LazyImages(lesson.items, self.teacher().preparer()), seed_of(self._recipe, model)
        view = View(images, model.fit.augment, seed, classes=len(self._data.classes))
        views: list[np.ndarray] = []
        for epoch in range(EPOCHS):
            view.epoch = epoch
            views.append(view.__getitems__(lesson.picked.tolist())["inputs"].numpy())
        return [tuple(_as_uri(image) for image in images) for images in zip(*views, strict=True)]

    def _pixels(self, lesson: _Lesson) -> np.ndarray:
        """The picked rows as the teacher prepares them: uint8 [R, H, W, C]."""
        items = lesson.items.take(lesson.picked)
        return prepare_inputs(items, self.teacher().preparer()).gather(np.arange(len(items)))

    def teacher(self) -> Classifier:
        """The trained teacher of the run, where it is this recipe's; else a new one."""
        if self._teacher is None:
            folder = self._run / TEACHER
            trained = load_classifier(folder) if (folder / SPEC).exists() else None
            if trained is not None and self._is_ours(trained):
                self._teacher, self._is_trained = trained, True
            else:
                self._teacher = self._new(self._recipe.teacher, None).eval()
        return self._teacher

    def _is_ours(self, trained: Classifier) -> bool:
        return trained.spec.model == self._recipe.teacher.model and trained.spec.labels == self._data.classes

    def _new(self, model: Teacher | Student, teacher: Classifier | None) -> Classifier:
        train = self._data.splits["train"]
        some = train.take(np.unique(np.linspace(0, len(train) - 1, _STATISTICS_ITEMS).astype(np.int64)))
        wanted = Wanted(
            task=self._data.task,
            labels=self._data.classes,
            seed=self._recipe.seed,
            train=train,
            images=lambda spec: prepare_inputs(some, ImagePreparer(spec)),
            teacher=teacher,
        )
        return new_classifier(ModelConfig(model=model.model, options=model.options), wanted)


def _spread(count: int, total: int) -> np.ndarray:
    """`count` of so many rows, evenly spread: int64, fewer where there are no more."""
    return np.unique(np.linspace(0, total - 1, min(count, total)).astype(np.int64))


def _as_uri(image: np.ndarray) -> str:
    """Pixels uint8 [H, W, C] as a PNG in a data: URI."""
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
