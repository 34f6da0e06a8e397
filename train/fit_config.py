"""[teacher.fit] and [students.fit] of a recipe."""

from __future__ import annotations

from itertools import accumulate
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from serve.errors import SettingError
from train.augment import AugmentConfig
from train.fused import Kernels
from train.precision import Wish

BALANCED = "balanced"
OF_LABELS = ("loss", "focal_gamma", "class_weights", "label_smoothing")  # the settings of the loss on labels
Weight = Annotated[float, Field(gt=0)]
# A setting that says nothing unless another has one of these values.
_ONLY_WITH: dict[str, tuple[str, tuple[str, ...]]] = {
    "step_every": ("schedule", ("step", "plateau")),
    "step_factor": ("schedule", ("step", "plateau")),
    "power": ("schedule", ("polynomial",)),
    "focal_gamma": ("loss", ("focal",)),
    "label_smoothing": ("loss", ("cross-entropy",)),
}


class StackConfig(BaseModel):
    """`fit.stack`: layers[i] layers for epochs[i] epochs, then all of them for the rest; see stacking.py."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    layers: tuple[Annotated[int, Field(ge=1)], ...] = Field(min_length=1)
    epochs: tuple[Annotated[int, Field(ge=1)], ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _grows(self) -> StackConfig:
        if len(self.layers) != len(self.epochs):
            raise SettingError(
                f"layers and epochs go together, but are {len(self.layers)} and {len(self.epochs)}",
                "give each number of layers its number of epochs: layers = [3, 6], epochs = [2, 2]",
            )
        if list(self.layers) != sorted(set(self.layers)):
            raise SettingError(f"layers must grow, got {list(self.layers)}", "expected for example layers = [3, 6]")
        return self

    def depth(self, epoch: int, total: int) -> int:
        """How many of `total` layers count in an epoch, counted from 0."""
        for layers, until in zip(self.layers, accumulate(self.epochs), strict=True):
            if epoch < until:
                return layers
        return total


class FitConfig(BaseModel):
    """[teacher.fit], [students.fit]: how long and how to train."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(default=20, ge=0)  # 0: take a model that is trained already as it is
    batch_size: int = Field(default=128, ge=1)
    accumulation: int = Field(default=1, ge=1)  # micro-batches of batch_size in one update
    # sgd: Nesterov momentum 0.9. adamw and adafactor shrink the weights themselves by weight_decay ("decoupled",
    # Loshchilov & Hutter 2019, arXiv 1711.05101); the others add its gradient to the loss's, as L2.
    optimizer: Literal["adamw", "adam", "sgd", "rmsprop", "adagrad", "adafactor"] = "adamw"
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)  # not on norms and biases
    l1: float = Field(default=0.0, ge=0)  # times the sum of |w|, added to the loss; not on norms and biases
    schedule: Literal["linear", "cosine", "constant", "step", "one-cycle", "plateau", "polynomial"] = "cosine"
    step_every: int = Field(default=10, ge=1)  # epochs; "plateau": without a better validation accuracy
    step_factor: float = Field(default=0.1, gt=0, lt=1)  # of the learning rate at each step
    power: float = Field(default=2.0, gt=0)  # of "polynomial"; 1 is "linear"
    warmup: float = Field(default=0.05, ge=0, lt=1)  # share of all updates; "one-cycle": in which the rate rises
    loss: Literal["cross-entropy", "focal", "mse"] = "cross-entropy"  # on labels; what a teacher adds is its own
    focal_gamma: float = Field(default=2.0, ge=0)
    class_weights: dict[str, Weight] | str | None = None  # "balanced", or { LABEL = weight }: others weigh 1
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    clip: float = Field(default=1.0, ge=0)  # largest norm of the gradient; 0: none
    # Of a network that was trained before. "head": what comes after its layers; or names of its parts, * for any.
    train_layers: tuple[str, ...] | str = "all"
    layer_decay: float = Field(default=1.0, gt=0, le=1)  # of the learning rate, for each layer further from the head
    unfreeze: int | None = Field(default=None, ge=1)  # epochs until the next layer from the top is trained too
    ema: float | None = Field(default=None, gt=0, lt=1)  # decay of the averaged weights, which are what is kept
    # The weights of the best epoch on validation, the earliest of equals; or of the last, to which the schedule led:
    # what the best gains is often luck, and it loses the end of the schedule.
    keep: Literal["best", "last"] = "best"
    patience: int | None = Field(default=None, ge=1)  # epochs without a better validation accuracy
    threshold: float = Field(default=0.0, ge=0, lt=1)  # the gain in accuracy, of 1, that is no better yet
    precision: Wish = "auto"  # bf16 where the machine multiplies it and the model is large enough; "fp16" on a GPU only
    shrink_on_oom: bool = False  # where memory runs out, half of batch_size and twice the accumulation, again and again
    gradient_checkpointing: bool = False  # less memory, about a third more time: layers are computed twice
    compile: bool = False  # torch.compile: some minutes at the start, faster updates on a GPU
    # Fused kernels on an NVIDIA GPU, where they give the same and are faster than what they replace; "off": none.
    kernels: Kernels = "auto"
    augment: AugmentConfig = AugmentConfig()
    # Sides of the images over the training, as shares of the full size, each for as many epochs: [0.5, 0.75, 1.0].
    grow_images: tuple[Annotated[float, Field(gt=0, le=1)], ...] = ()
    stack: StackConfig | None = None  # transformers: the first layers alone, then copied on top of themselves
    # The best epoch n chosen on validation, as ever; then from the same start with the same seed and settings on train,
    # validation and calibration, to the end of epoch n. Those weights ship; the choice is made with the ones before.
    final_refit: bool = False

    @property
    def of_labels(self) -> tuple[str, ...]:
        """The settings of the loss on labels that are not at their default."""
        return tuple(name for name in OF_LABELS if getattr(self, name) != type(self).model_fields[name].default)

    @property
    def growing_epochs(self) -> int:
        """The first epochs, in which a part of the network is trained; none of them can be the best."""
        return 0 if self.stack is None else sum(self.stack.epochs)

    @property
    def small_epochs(self) -> int:
        """The first epochs, in which the network or its images are smaller: patience and a plateau begin after them.

        One of small images can be the best all the same: validation sees whole ones always.
        """
        sizes = len(self.grow_images)
        return max(self.growing_epochs, -(-self.epochs * (sizes - 1) // sizes) if sizes else 0)

    @model_validator(mode="after")
    def _every_setting_says_something(self) -> FitConfig:
        for name, (other, values) in _ONLY_WITH.items():
            if getattr(self, name) != type(self).model_fields[name].default and getattr(self, other) not in values:
                wanted = " or ".join(f"'{value}'" for value in values)
                raise SettingError(
                    f"{name} is for {other} = {wanted}, but {other} is '{getattr(self, other)}'",
                    f"leave out {name}, or set {other}",
                )
        if isinstance(self.class_weights, str) and self.class_weights != BALANCED:
            raise SettingError(
                f"class_weights is '{self.class_weights}'",
                f"expected '{BALANCED}', or a table of labels and weights, such as {{ spam = 4.0 }}",
            )
        self._check_layers()
        self._check_length()
        self._check_refit()
        if self.threshold and self.patience is None and self.schedule != "plateau":
            raise SettingError(
                "threshold says which gain counts for patience or schedule = 'plateau', and there is neither",
                "set one of them, or leave out threshold",
            )
        if self.keep == "last" and self.patience is not None:
            raise SettingError(
                "patience ends training after epochs that were no better, and keep = 'last' would keep the last of "
                "them",
                "leave out one",
            )
        if self.compile and self.gradient_checkpointing:
            raise SettingError("compile decides itself what is computed again", "leave out gradient_checkpointing")
        if self.compile and self.unfreeze is not None:
            raise SettingError(
                "compile takes a network whose layers are trained or not, and unfreeze changes that", "leave out one"
            )
        return self

    def _check_layers(self) -> None:
        if isinstance(self.train_layers, str) and self.train_layers not in ("all", "head"):
            raise SettingError(
                f"train_layers is '{self.train_layers}'",
                "expected 'all', 'head' or a list of names, such as [\"classifier\"]",
            )
        if not self.train_layers:
            raise SettingError("train_layers names nothing to train", "epochs = 0 takes a model as it is")
        if self.unfreeze is not None and self.train_layers != "all":
            raise SettingError(
                "unfreeze trains all layers in the end, so train_layers must stay 'all'", "leave out one of the two"
            )
        if self.layer_decay != 1.0 and self.train_layers == "head":
            raise SettingError(
                "layer_decay says nothing where train_layers = 'head': all of it learns at one rate",
                "leave out layer_decay",
            )

    def _check_length(self) -> None:
        """What is to happen after some epochs must happen before the last has ended."""
        # the epoch that may be no better than the one before it
        first = 2 + self.small_epochs if self.schedule == "plateau" else 1
        late = {
            "step_every": (
                self.step_every,
                first,
                self.schedule in ("step", "plateau"),
                "the learning rate never becomes smaller",
            ),
            "unfreeze": (self.unfreeze or 0, 1, self.unfreeze is not None, "nothing but the head is ever trained"),
        }
        for name, (epochs, from_, counts, so) in late.items():
            if counts and from_ + epochs > self.epochs > 0:
                what = "train a part of the layers" if from_ - 2 == self.growing_epochs else "see smaller images"
                part = f", of which {from_ - 2} {what}" if from_ > 2 else ""
                raise SettingError(
                    f"{name} = {epochs} epochs, of epochs = {self.epochs}{part}: {so}",
                    f"lower {name}, or raise epochs",
                )

    def _check_refit(self) -> None:
        if self.final_refit and self.epochs == 0:
            raise SettingError(
                "final_refit trains again on more items, but epochs = 0 trains nothing", "leave out final_refit"
            )
        if self.final_refit and self.schedule == "plateau":
            raise SettingError(
                "schedule = 'plateau' lowers the learning rate as validation says, and final_refit trains on the "
                "validation items too",
                "take another schedule, such as 'step' or 'cosine'",
            )

    @model_validator(mode="after")
    def _growth_ends(self) -> FitConfig:
        scales = list(self.grow_images)
        if scales and (scales != sorted(set(scales)) or scales[-1] != 1.0 or len(scales) < 2):
            raise SettingError(f"grow_images must rise to 1.0, got {scales}", "expected for example [0.5, 0.75, 1.0]")
        if len(scales) > self.epochs:
            raise SettingError(
                f"grow_images names {len(scales)} sizes, but epochs = {self.epochs}",
                f"name at most {self.epochs} sizes, or raise epochs",
            )
        if self.stack is None:
            return self
        if self.growing_epochs >= self.epochs:
            raise SettingError(
                f"stack.epochs are {self.growing_epochs} in all, of epochs = {self.epochs}, so all layers together are "
                "never trained",
                "raise epochs, or lower stack.epochs",
            )
        others = {
            "ema": self.ema is not None,
            "unfreeze": self.unfreeze is not None,
            "train_layers": self.train_layers != "all",
            "compile": self.compile,
        }
        if any(others.values()):
            name = next(name for name, given in others.items() if given)
            raise SettingError(
                f"stack replaces layers by copies while they are trained, which does not go with {name}",
                f"leave out stack or {name}",
            )
        return self
