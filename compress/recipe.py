"""The recipe: one TOML file that says what to distill from what, and what must hold. Unknown keys are refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from compress.evidence.abstain import AbstainConfig
from compress.evidence.calibrate import CalibrateConfig
from compress.graph.config import GraphConfig
from compress.optimize.config import OptimizeConfig, StudentSpace
from compress.quantize.config import Quantize
from compress.teachers import TEACHER as TEACHER
from compress.teachers import all_teachers, check_teachers, with_models_named
from serve.errors import SettingError, UserError
from serve.manifest import ServingConfig, Task
from train.augment.synonyms import EMBEDDINGS
from train.data import DataConfig
from train.distill import DistillConfig
from train.fit_config import FitConfig
from train.images import IMAGE_SIZE
from train.models import needs_teacher, pruning_steps, takes_channels, takes_layers
from train.progressive import FEATURES_WITH_STACK
from train.prune import PruneConfig
from train.tuning import TuneConfig

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Teacher(_Table):
    model: str
    options: dict[str, Any] = {}
    fit: FitConfig = FitConfig()


class NamedTeacher(Teacher):
    """[[teachers]]: one more, which students name in distill.teachers. The report's baseline is [teacher] alone."""

    name: str = Field(pattern=NAME, max_length=40)
    seed_offset: int = Field(default=0, ge=0, lt=2**32)  # added to the recipe's seed: another beginning


class Student(_Table):
    name: str = Field(pattern=NAME, max_length=40)
    model: str
    options: dict[str, Any] = {}
    role: Literal["student", "control"] = "student"
    fit: FitConfig = FitConfig()
    distill: DistillConfig | None = None
    prune: PruneConfig = PruneConfig()
    # The same student trained without the teacher, under the name NAME-alone: what did distillation earn?
    control: bool = True
    seed_offset: int = Field(default=0, ge=0, lt=2**32)  # added to the recipe's seed: another beginning

    @property
    def unheard(self) -> tuple[str, ...]:
        """The settings of the loss on labels, where all it learns is its teachers'; a control may learn by them."""
        return self.fit.of_labels if self.distill is not None and self.distill.alpha == 1.0 else ()

    def without_control(self) -> Student:
        """The same student, trained alike, with no control beside it and nothing set for that one alone."""
        usual = {name: FitConfig.model_fields[name].default for name in self.unheard}
        return self.model_copy(update={"control": False, "fit": self.fit.model_copy(update=usual)})

    def untaught(self, name: str) -> Student:
        """Its control under this name: the same student, trained alike but for texts that only a teacher can label."""
        fit = self.fit.model_copy(update={"augment": self.fit.augment.without_cuts()})
        update = {"name": name, "role": "control", "distill": None, "control": False, "fit": fit}
        return self.model_copy(update=update)


class Evaluate(_Table):
    batch_sizes: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(1, 8, 32), min_length=1)
    threads: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(1,), min_length=1)
    latency_samples: int = Field(default=1000, ge=20)

    @model_validator(mode="after")
    def _has_the_reference_point(self) -> Evaluate:
        for name in ("batch_sizes", "threads"):
            if 1 not in getattr(self, name):
                raise SettingError(f"{name} lacks 1, and limits are judged at batch 1 and 1 thread", f"add 1 to {name}")
        return self


class Accept(_Table):
    metric: str = "accuracy"  # or "macro_f1", "recall:LABEL"
    max_drop_points: float = Field(gt=0, le=100)
    # What the drop is counted from, in percent of the metric; absent: the teacher's own, item by item.
    target_percent: float | None = Field(default=None, gt=0, le=100)
    # Of accuracy, in each group of [data] group that is large enough to be judged.
    max_group_drop_points: float | None = Field(default=None, gt=0, le=100)
    max_p95_ms: float | None = Field(default=None, gt=0)
    max_size_mb: float | None = Field(default=None, gt=0)  # 1 MB is 1,000,000 bytes
    prefer: Literal["latency", "size"] = "latency"

    @model_validator(mode="after")
    def _metric_is_known(self) -> Accept:
        if self.metric not in ("accuracy", "macro_f1") and not self.metric.startswith("recall:"):
            raise SettingError(f"unknown metric '{self.metric}'", "expected accuracy, macro_f1 or recall:LABEL")
        return self

    @model_serializer(mode="wrap")
    def _without_later_limits_as_before(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A limit that is not set leaves no trace: a choice from before there was such a limit is still the same."""
        fields: dict[str, Any] = dump(self)
        for later in ("target_percent", "max_group_drop_points"):
            if getattr(self, later) is None:
                fields.pop(later, None)
        return fields


class ReportConfig(_Table):
    """[report]: what the report shows of the data themselves."""

    examples: int = Field(default=12, ge=0, le=100)  # test items shown that the choice flipped; 0: none leaves the data


class CardConfig(_Table):
    """[card]: what only people know of a model. Of what is missing, the model card says that it is not stated."""

    use: str | None = None  # what it is meant for, and by whom
    not_for: str | None = None  # what it must not be used for
    contact: str | None = None
    licence: str | None = None  # of the model that comes out
    data_licence: str | None = None


class Recipe(_Table):
    name: str = Field(pattern=NAME, max_length=60)
    seed: int = Field(default=0, ge=0, lt=2**32)
    task: Task = "image"
    data: DataConfig
    teacher: Teacher
    teachers: tuple[NamedTeacher, ...] = ()
    students: tuple[Student, ...] = ()
    graph: GraphConfig = GraphConfig()
    quantize: Quantize = Quantize()
    evaluate: Evaluate = Evaluate()
    accept: Accept
    calibrate: CalibrateConfig = CalibrateConfig()
    abstain: AbstainConfig | None = None
    serving: ServingConfig | None = None  # each package's serving.json; None: what stands there, or the defaults
    report: ReportConfig = ReportConfig()
    card: CardConfig = CardConfig()
    tune: TuneConfig | None = None  # `limbeck tune` alone reads it
    optimize: OptimizeConfig | None = None  # `limbeck optimize` alone reads it

    @model_validator(mode="before")
    @classmethod
    def _the_teachers_model_is_named(cls, content: Any) -> Any:
        return with_models_named(content)

    @model_validator(mode="after")
    def _teachers_are_there(self) -> Recipe:
        check_teachers(self)
        return self

    @model_validator(mode="after")
    def _limits_are_measured_as_served(self) -> Recipe:
        threads = 1 if self.serving is None else self.serving.threads
        if threads not in self.evaluate.threads:
            raise SettingError(
                f"serving.threads = {threads}, and latency is judged as it is served, but evaluate.threads lacks it",
                f"add {threads} to evaluate.threads",
            )
        return self

    @model_validator(mode="after")
    def _groups_are_named(self) -> Recipe:
        if self.accept.max_group_drop_points is not None and self.data.group is None:
            raise SettingError("accept.max_group_drop_points needs groups", "name their column as data.group")
        return self

    @model_validator(mode="after")
    def _students_make_sense(self) -> Recipe:
        for student in self.students:
            if student.distill is not None and student.distill.features and student.fit.compile:
                raise SettingError(
                    f"student '{student.name}': [[students.distill.features]] look into the network by hooks, which "
                    "fit.compile leaves out",
                    "leave out one of the two",
                )
            in_steps = pruning_steps(student.model, student.options)[0] > 1
            if (takes_channels(student.model) or in_steps) and student.fit.epochs == 0:
                raise SettingError(
                    f"student '{student.name}': '{student.model}' cuts a trained network, which must be trained again "
                    "then",
                    "set fit.epochs to 1 or more",
                )
            if in_steps and student.fit.stack is not None:
                raise SettingError(
                    f"student '{student.name}': fit.stack puts copies of the first layers in the place of the others, "
                    "so that what these learned between the steps of options.steps is lost",
                    "leave out one of the two",
                )
            if student.distill is not None and student.fit.epochs == 0:
                raise SettingError(
                    f"student '{student.name}' has [students.distill], but fit.epochs = 0 takes it as it is: it learns "
                    "nothing",
                    "set fit.epochs to 1 or more, or leave out [students.distill]",
                )
            if student.role == "control" and student.distill is not None:
                raise SettingError(
                    f"student '{student.name}' is a control, so it cannot have [students.distill]",
                    'leave out role = "control", or [students.distill]',
                )
            mixed = student.fit.augment.mixup or student.fit.augment.cutmix
            if student.distill is not None and student.distill.method == "dkd" and mixed:
                raise SettingError(
                    f"student '{student.name}': distill.method = 'dkd' takes the label apart from the other classes, "
                    "and items of fit.augment.mixup or cutmix have more than one label",
                    "leave out mixup and cutmix, or take method = 'soft-targets'",
                )
            if student.distill is not None and student.distill.compares_items and student.fit.accumulation > 1:
                raise SettingError(
                    f"student '{student.name}': distill.method = 'dist' compares all items of an update, but "
                    f"fit.accumulation = {student.fit.accumulation} shows it only a part at a time",
                    "set fit.accumulation = 1 with a larger batch_size, or distill.intra_weight = 0",
                )
            if student.distill is not None and student.distill.compares_items and student.fit.shrink_on_oom:
                raise SettingError(
                    f"student '{student.name}': fit.shrink_on_oom shows a part of an update at a time where memory "
                    "runs out, and distill.method = 'dist' compares all of its items",
                    "leave out shrink_on_oom, or set distill.intra_weight = 0",
                )
        return self

    @model_validator(mode="after")
    def _losses_on_labels_teach_somebody(self) -> Recipe:
        """With alpha = 1 they teach the control alone, whether it is asked for or written out already."""
        controls = {student.name for student in self.students if student.role == "control"}
        for student in self.students:
            if not student.unheard or student.control or f"{student.name}-alone" in controls:
                continue
            named = " and ".join(f"fit.{name}" for name in student.unheard)
            raise SettingError(
                f"student '{student.name}': {named} shape the loss on labels, but distill.alpha = 1.0 leaves it no "
                "share, and with control = false nobody else learns by it",
                f"leave out {named}, or lower distill.alpha",
            )
        return self

    @model_validator(mode="after")
    def _unlabelled_items_have_students(self) -> Recipe:
        searched = (self.optimize.students if self.optimize is not None else None) or ()
        taught: tuple[Student | StudentSpace, ...] = (*self.students, *searched)
        lessons = {student.name: student.distill for student in taught if student.distill is not None}
        if self.data.unlabelled is None:
            for name, lesson in lessons.items():
                if lesson.items == "unlabelled":
                    raise SettingError(
                        f"student '{name}': distill.items = 'unlabelled', but there is no [data.unlabelled]",
                        "name a source there, or leave out distill.items",
                    )
        elif all(lesson.items == "labelled" for lesson in lessons.values()):
            raise SettingError(
                "[data.unlabelled] is for students with [students.distill], and none learns from it",
                "leave it out, or give a student a [students.distill] whose items are not 'labelled'",
            )
        return self

    @model_validator(mode="after")
    def _images_have_one_size(self) -> Recipe:
        size = self.teacher.options.get(IMAGE_SIZE)
        models: list[NamedTeacher | Student] = [*self.teachers, *self.students]
        for model in models:
            if self.task == "image" and model.options.get(IMAGE_SIZE, size) != size:
                raise SettingError(
                    f"'{model.name}' has an {IMAGE_SIZE} of its own, but all see what the teacher sees",
                    "set it under [teacher.options] alone",
                )
        return self

    @model_validator(mode="after")
    def _layers_are_those_of_a_transformer(self) -> Recipe:
        if needs_teacher(self.teacher.model, self.teacher.options):
            raise SettingError(
                f"'{self.teacher.model}' is a student of some teacher, so it cannot be the teacher",
                "name another model as teacher.model",
            )
        without_layers = self.teacher.model.startswith(("builtin:", "torchvision:"))
        taking = next((student for student in self.students if takes_layers(student.model)), None)
        if taking is not None and without_layers:
            raise SettingError(
                f"student '{taking.name}' is made of its teacher's layers, but '{self.teacher.model}' is no "
                "transformer of the hf: or pkg: kind",
                "name a transformer as teacher.model, or a student of its own kind, such as builtin:cnn-8x16",
            )
        return self

    @model_validator(mode="after")
    def _validation_stays_held_out(self) -> Recipe:
        """Students that begin with a refitted teacher's weights have seen validation before they are trained."""
        for student in self.students:
            starts = needs_teacher(student.model, student.options)
            if self.teacher.fit.final_refit and starts and not student.fit.final_refit:
                raise SettingError(
                    f"student '{student.name}' starts from its teacher's weights, which teacher.fit.final_refit trains "
                    "on the validation items, so nothing is left to choose it by",
                    "set fit.final_refit = true for it too",
                )
        return self

    @model_validator(mode="after")
    def _augmentation_suits_the_task(self) -> Recipe:
        models: list[Teacher | Student] = [self.teacher, *self.teachers, *self.students]
        unfit = sorted({name for model in models for name in model.fit.augment.unfit_for(self.task)})
        if unfit:
            raise SettingError(f"fit.augment cannot do {', '.join(unfit)} with task = '{self.task}'", "leave it out")
        return self

    @model_validator(mode="after")
    def _a_teacher_labels_what_is_cut(self) -> Recipe:
        alone: list[Teacher | Student] = [self.teacher, *self.teachers]
        alone += [student for student in self.students if student.distill is None]
        if any(model.fit.augment.cuts for model in alone):
            raise SettingError(
                "fit.augment.span and splice cut texts so that only a teacher can say what class they are of",
                "set them on students with [students.distill]; a control goes without",
            )
        return self

    @model_validator(mode="after")
    def _what_grows_can_grow(self) -> Recipe:
        models: list[Teacher | Student] = [self.teacher, *self.teachers, *self.students]
        if self.task != "image" and any(model.fit.grow_images for model in models):
            raise SettingError(f"fit.grow_images is for images, the task is '{self.task}'", "leave it out")
        for student in self.students:
            if student.fit.stack is not None and student.distill is not None and student.distill.features:
                raise SettingError(f"student '{student.name}': {FEATURES_WITH_STACK}", "leave out one of the two")
        return self

    @model_validator(mode="after")
    def _the_teacher_is_augmented_without_a_teacher(self) -> Recipe:
        for name, teacher in all_teachers(self).items():
            augment = teacher.fit.augment
            if augment.mask_salient:
                raise SettingError(
                    f"{name}.fit.augment.mask_salient is guided by a teacher, which the teacher has not",
                    "set it on students",
                )
            if augment.synonym and augment.synonyms == EMBEDDINGS and teacher.model.startswith("builtin:"):
                raise SettingError(
                    f"{name}.fit.augment.synonyms = '{EMBEDDINGS}' needs trained word embeddings, and those of "
                    f"'{teacher.model}' are new",
                    "name a thesaurus file, or take 'wordnet'",
                )
        return self

    @model_validator(mode="after")
    def _texts_have_a_vocabulary(self) -> Recipe:
        pruned = next((student.name for student in self.students if student.prune.vocabulary), None)
        if pruned is not None and self.task != "text":
            raise SettingError(
                f"student '{pruned}': prune.vocabulary is for texts, the task is '{self.task}'", "leave it out"
            )
        return self

    def with_controls(self) -> Recipe:
        """The recipe with a control written out beside each distilled student that asks for one."""
        students: list[Student] = []
        names = {student.name for student in self.students}
        for student in self.students:
            students.append(student.model_copy(update={"control": False}))
            if student.distill is not None and student.control:
                alone = f"{student.name}-alone"
                if alone in names:
                    raise UserError(f"'{alone}' is the name of the control of '{student.name}'", "rename that student")
                students.append(student.untaught(alone))
        return self.model_copy(update={"students": tuple(students)})
