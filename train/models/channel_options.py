"""What `teacher-channels:SHARE` takes: its share and `options`, checked."""

from __future__ import annotations

import re
from typing import Any

from pydantic import Field

from serve.errors import UserError
from serve.manifest import Task
from train.models.channel_scores import Kind
from train.models.options import parse_options
from train.models.step_options import StepOptions, check_steps

PREFIX = "teacher-channels"


class ChannelOptions(StepOptions):
    """`options` of a student with fewer channels, or fewer residual blocks, than its teacher."""

    importance: Kind = "taylor"  # by what the channels that stay are chosen
    importance_items: int = Field(default=256, ge=1)  # training items, drawn by the seed, that are looked at
    round_to: int = Field(default=8, ge=1)  # widths are multiples of it; runtimes compute channels in blocks of 8 or 16
    blocks: int | None = Field(default=None, ge=0)  # residual blocks left in all; None: all of them


def read_options(name: str, options: dict[str, Any]) -> tuple[float, ChannelOptions]:
    """The share of channels that `name` asks for, and the options.

    Raises UserError for what cannot be, and for what says nothing.
    """
    model = f"{PREFIX}:{name}"
    share, chosen = _share(name), parse_options(ChannelOptions, f"{PREFIX}:{name}", options)
    given = chosen.model_fields_set
    cuts_channels = share < 1
    if not cuts_channels and chosen.blocks is None:
        raise UserError(
            f"'{model}' keeps all channels, so there is nothing to prune", "give a share below 1, or blocks"
        )
    unused = {"importance", "round_to"} & given if not cuts_channels else set()
    if unused:
        raise UserError(
            f"'{model}': options.{min(unused)} is about the channels that stay, but all do",
            "leave it out, or give a share",
        )
    if chosen.importance != "taylor" and chosen.blocks is None and "importance_items" in given:
        raise UserError(
            f"'{model}': importance = \"{chosen.importance}\" looks at no items", "leave out options.importance_items"
        )
    check_steps(chosen, model)
    return share, chosen


def check(name: str, options: dict[str, Any], task: Task) -> None:
    """Raise UserError unless this can be asked of some teacher."""
    read_options(name, options)
    if task != "image":
        raise UserError(
            f"'{PREFIX}:{name}' is for networks that classify images, the recipe's task is {task}",
            "of a transformer take teacher-layers:N, with options heads and ffn_width for narrower layers",
        )


def _share(name: str) -> float:
    share = float(name) if re.fullmatch(r"\d+(\.\d+)?|\.\d+", name) else 0.0
    if not 0 < share <= 1:
        raise UserError(
            f"'{PREFIX}:{name}' names no share of the channels", f"a number above 0, at most 1: {PREFIX}:0.5 keeps half"
        )
    return share
