"""[students.distill] of a recipe."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from serve.errors import SettingError, UserError

Method = Literal["soft-targets", "logits-mse", "dkd", "dist"]
# From which items a student learns: those of train, those of [data.unlabelled], or both
LessonItems = Literal["all", "labelled", "unlabelled"]
FeatureLoss = Literal["hidden-states", "attention", "relations", "embeddings", "hints", "attention-maps"]
Layer = Annotated[int, Field(ge=0)]

_OPTIONS: dict[str, tuple[str, ...]] = {  # of each method, beside alpha
    "soft-targets": ("temperature",),
    "logits-mse": (),
    "dkd": ("temperature", "target_weight", "rest_weight"),
    "dist": ("temperature", "inter_weight", "intra_weight"),
}
_PAIRS = (("dkd", "target_weight", "rest_weight"), ("dist", "inter_weight", "intra_weight"))  # not both 0


class FeatureConfig(BaseModel):
    """[[students.distill.features]]: a loss on what happens inside, added to the one on the answers.

    Layers of transformers, stages of convolutional networks: by default each of the student's is paired with the
    teacher's at the same depth or of the same resolution; or pairs [student's, teacher's], counted from 0.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    loss: FeatureLoss
    weight: float = Field(gt=0)
    layers: Literal["all", "last"] | Annotated[tuple[tuple[Layer, Layer], ...], Field(min_length=1)] = "all"

    @model_validator(mode="after")
    def _embeddings_are_one(self) -> FeatureConfig:
        if self.loss == "embeddings" and self.layers != "all":
            raise SettingError(
                "loss = 'embeddings' with layers, but a model has one layer of embeddings", "leave out layers"
            )
        return self


class DistillConfig(BaseModel):
    """[students.distill]: how the student learns from the teacher."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Method = "soft-targets"
    temperature: float = Field(default=4.0, gt=0)
    alpha: float = Field(default=0.9, gt=0, le=1)  # share of the teacher; 1 - alpha stays with the labels
    target_weight: float = Field(default=1.0, ge=0)  # dkd: of the label's probability; alpha in its paper
    rest_weight: float = Field(default=8.0, ge=0)  # dkd: of how the rest is spread; beta in its paper, 0.5 to 8 there
    inter_weight: float = Field(default=1.0, ge=0)  # dist: of the relations between the classes of an item
    intra_weight: float = Field(default=1.0, ge=0)  # dist: of the relations between the items of a batch
    features: tuple[FeatureConfig, ...] = ()
    # "teacher", other [[teachers]], or students that are trained before this one; features look into the first alone
    teachers: tuple[str, ...] = Field(default=("teacher",), min_length=1)
    teacher_weights: tuple[Annotated[float, Field(gt=0)], ...] | None = None  # of their answers; None: all alike
    items: LessonItems = "all"  # "all" is train alone where the data have no unlabelled ones

    @property
    def shares(self) -> tuple[float, ...]:
        """The part of each teacher in what they say together; they sum to 1."""
        weights = self.teacher_weights or (1.0,) * len(self.teachers)
        return tuple(weight / sum(weights) for weight in weights)

    @property
    def compares_items(self) -> bool:
        """Whether the loss of an item depends on the others of its batch."""
        return self.method == "dist" and self.intra_weight > 0

    def check_accumulation(self, accumulation: int) -> None:
        """Raise UserError where the loss of micro-batches is not that of the whole update."""
        if accumulation > 1 and self.compares_items:
            raise UserError(
                f"distill.method = 'dist' compares all items of an update, but fit.accumulation = {accumulation} shows "
                "it only a part at a time",
                "set fit.accumulation = 1 with a larger batch_size, or intra_weight = 0",
            )

    def check_classes(self, classes: int) -> None:
        """Raise UserError where nothing would be learned from the answers of a teacher that knows so many classes."""
        if classes == 2 and self.method == "dist" and self.intra_weight == 0:
            raise UserError(
                "distill.method = 'dist' with intra_weight = 0 asks which classes of an item rise and fall together, "
                "and two classes never do: nothing would be learned from the teacher",
                "raise intra_weight, or take method = 'soft-targets'",
            )
        if classes == 2 and self.method == "dkd" and self.target_weight == 0:
            raise UserError(
                "distill.method = 'dkd' with target_weight = 0 asks how the teacher spreads what it leaves to other "
                "classes than the label, and of two classes there is one other: nothing would be learned from it",
                "raise target_weight, or take method = 'soft-targets'",
            )

    @model_validator(mode="after")
    def _options_are_those_of_the_method(self) -> DistillConfig:
        for option in _foreign(self.method):
            if option in self.model_fields_set:
                owners = " and ".join(f"'{method}'" for method, names in _OPTIONS.items() if option in names)
                raise SettingError(
                    f"{option} is an option of {owners}, not of method = '{self.method}'", "leave it out"
                )
        if len(set(self.features)) < len(self.features):
            raise SettingError("features has the same entry twice", "leave one out, or give it a larger weight")
        if len(set(self.teachers)) < len(self.teachers):
            raise SettingError("teachers names one teacher twice", "give it a larger share in teacher_weights")
        if self.teacher_weights is not None and len(self.teacher_weights) != len(self.teachers):
            raise SettingError(
                f"{len(self.teachers)} teachers, but {len(self.teacher_weights)} teacher_weights",
                "give one weight for each teacher, in the same order",
            )
        if self.teacher_weights is not None and len(self.teachers) == 1:
            raise SettingError(
                f"teacher_weights share the answers out among several teachers, and '{self.teachers[0]}' is the only "
                "one",
                "leave out teacher_weights, or name more in teachers; alpha is the teacher's share beside the labels",
            )
        if self.items == "unlabelled" and self.alpha < 1:
            raise SettingError(
                f"items = 'unlabelled' have no labels for the {1 - self.alpha:g} that alpha = {self.alpha:g} leaves to "
                "them",
                "write alpha = 1.0, or items = 'all'",
            )
        for method, first, second in _PAIRS:
            if self.method == method and getattr(self, first) == getattr(self, second) == 0:
                raise SettingError(
                    f"with {first} = 0 and {second} = 0 nothing is learned from the teacher", "raise one of them"
                )
        return self

    @model_serializer(mode="wrap")
    def _without_the_options_of_others(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = dump(self)
        return {name: value for name, value in fields.items() if name not in _foreign(self.method)}


def _foreign(method: str) -> set[str]:
    """The options of the other methods."""
    return {option for options in _OPTIONS.values() for option in options} - set(_OPTIONS[method])
