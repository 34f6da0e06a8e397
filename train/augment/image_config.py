"""What a recipe may say of images in `fit.augment`."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from serve.errors import SettingError
from train.augment.boxes import Range
from train.augment.erasing import EraseWith


def _in_order(ends: Range) -> Range:
    if ends[0] > ends[1]:
        raise SettingError(
            f"expected the least and the most, in this order, got {list(ends)}", f"write {[ends[1], ends[0]]}"
        )
    return ends


_Share = Annotated[float, Field(gt=0, le=1)]
_Factor = Annotated[float, Field(gt=0)]
ShareRange = Annotated[tuple[_Share, _Share], AfterValidator(_in_order)]
FactorRange = Annotated[tuple[_Factor, _Factor], AfterValidator(_in_order)]
_Probability = Annotated[float, Field(gt=0, le=1)]


class Probability(BaseModel):
    """`fit.augment.probability`: the share of the images to which a change is made that is asked for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    crop: _Probability = 1.0
    flip: _Probability = 0.5
    flip_vertical: _Probability = 0.5
    rotate: _Probability = 1.0
    scale: _Probability = 1.0
    elastic: _Probability = 1.0
    brightness: _Probability = 1.0
    contrast: _Probability = 1.0
    saturation: _Probability = 1.0
    hue: _Probability = 1.0
    blur: _Probability = 1.0
    noise: _Probability = 1.0
    randaugment: _Probability = 1.0
    mixup: _Probability = 1.0
    cutmix: _Probability = 1.0


class ImageAugment(BaseModel):
    """The part of `fit.augment` that is for images, in the order in which it is done.

    A change is made with a strength that is drawn evenly between its ends, to the share of the images that
    `probability` says. What a shift, a turn or a zoom uncovers is black.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    crop: ShareRange | None = None  # of the area, least and most, as large again as the image: [0.25, 1.0]
    crop_aspect: FactorRange = (3 / 4, 4 / 3)  # width / height of what is cut out
    shift: int = Field(default=0, ge=0, le=64)  # pixels, each way
    flip: bool = False  # left for right; never on by itself: a mirrored digit is none
    flip_vertical: bool = False
    rotate: float = Field(default=0.0, ge=0, le=180)  # degrees, each way
    scale: FactorRange | None = None  # zoom, least and most: [0.8, 1.2]; above 1 the margin is lost
    elastic: float = Field(default=0.0, ge=0, le=2000)  # Simard's alpha: 34 bends digits of 28 pixels by one or two
    elastic_sigma: float = Field(default=4.0, ge=0.5, le=100)  # pixels: how smoothly
    randaugment: int = Field(default=0, ge=0, le=14)  # how many changes
    randaugment_magnitude: int = Field(default=9, ge=0, le=30)
    brightness: float = Field(default=0.0, ge=0, le=1)  # 0.4: a factor of 0.6 to 1.4; the next two likewise
    contrast: float = Field(default=0.0, ge=0, le=1)
    saturation: float = Field(default=0.0, ge=0, le=1)
    hue: float = Field(default=0.0, ge=0, le=0.5)  # turns along the circle of hues, each way
    grayscale: float = Field(default=0.0, ge=0, le=1)  # the share of the images
    blur: float = Field(default=0.0, ge=0, le=32)  # pixels, the largest deviation; the least is 0.1
    noise: float = Field(default=0.0, ge=0, le=255)  # grey levels, the deviation
    erase: float = Field(default=0.0, ge=0, le=1)  # the share of the images
    erase_area: ShareRange = (0.02, 0.33)  # of the image; the ends of Zhong et al.'s code and torchvision
    erase_aspect: FactorRange = (0.3, 3.3)  # width / height
    erase_with: EraseWith = "noise"
    mixup: float = Field(default=0.0, ge=0)  # alpha of Beta(alpha, alpha); 0.2 for photographs in the paper
    cutmix: float = Field(default=0.0, ge=0)  # likewise; 1.0 in the paper
    probability: Probability = Probability()

    @model_validator(mode="after")
    def _no_setting_of_what_is_off(self) -> Self:
        fields = ImageAugment.model_fields
        for name in (
            "crop_aspect",
            "elastic_sigma",
            "randaugment_magnitude",
            "erase_area",
            "erase_aspect",
            "erase_with",
        ):
            whose = name.partition("_")[0]
            if getattr(self, name) != fields[name].default and not getattr(self, whose):
                raise SettingError(
                    f"{name} goes with {whose}, which is not asked for", f"set {whose}, or leave this out"
                )
        for name, field in Probability.model_fields.items():
            if getattr(self.probability, name) != field.default and not getattr(self, name):
                raise SettingError(
                    f"probability.{name} is set, but {name} is not asked for", f"set {name}, or leave this out"
                )
        return self
