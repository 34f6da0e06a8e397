"""`teacher-channels:SHARE`: the teacher's convolutional network with a share of its channels, the important ones.

Each layer keeps the same share of its channels, so widths are known beforehand; channels that a shortcut adds up are
cut together. `options.blocks` takes whole residual blocks out besides. With `options.steps` the share falls evenly from
step to step, and the network is trained in between (train/recovery.py). A draft is of the last step, made at once: as
wide and deep as the trained student will be.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from torch import nn

from serve.errors import UserError
from serve.manifest import ImagePreprocessing
from train.draft import Draft, NetworkSpec, Wanted
from train.models.channel_options import PREFIX, ChannelOptions, read_options
from train.models.channel_options import check as check
from train.models.channel_pruning import Pruning
from train.models.channels import layer_widths
from train.models.importance import drawn_inputs
from train.models.residual_blocks import least_missed, removable_blocks, residual_blocks

if TYPE_CHECKING:
    from train.classifier import Classifier


def check_teacher(name: str, options: dict[str, Any], teacher: Classifier) -> None:
    """Raise UserError unless the teacher, trained or not, can be pruned so. It is tried, by magnitude."""
    share, chosen = read_options(name, options)
    gone = _to_remove(chosen, teacher, name)
    blocks = tuple(removable_blocks(teacher.network)[:gone])
    if share == 1:
        Pruning(teacher, f"{PREFIX}:{name}").without_blocks(blocks)
        return
    widths = layer_widths(teacher.network)
    pruning = Pruning(teacher, f"{PREFIX}:{name}")
    network, _ = pruning.with_widths(blocks, widths, share, chosen.round_to, "magnitude", None)
    assert network.pruned is not None
    if network.pruned.shapes == ({} if teacher.spec.network.pruned is None else teacher.spec.network.pruned.shapes):
        raise UserError(
            f"'{PREFIX}:{name}': with widths that are multiples of {chosen.round_to} no layer of the teacher "
            f"'{teacher.spec.model}' gets narrower; its widest has {max(widths.values())} channels",
            "give a smaller share, or a smaller options.round_to",
        )


def quick(options: dict[str, Any]) -> dict[str, Any]:
    """`options` for a network of the student's kind, made of an untrained teacher in little time."""
    return {**options, "importance_items": 1} if "blocks" in options or "importance" not in options else options


def draft(name: str, options: dict[str, Any], wanted: Wanted) -> Draft:
    """The teacher's network as small as asked, with its preprocessing and head."""
    teacher = wanted.teacher
    if teacher is None:
        raise UserError(f"'{PREFIX}:{name}' is a student, so it cannot be the teacher", "name another model")
    share, chosen = read_options(name, options)
    network, module = smaller(teacher, name, options, wanted, step=chosen.steps)
    lost = f"{share:g} of the teacher's channels" if share < 1 else "all of the teacher's channels"
    if chosen.blocks is not None:
        lost += f" and {chosen.blocks} of its {len(residual_blocks(teacher.network))} residual blocks"
    spec = teacher.spec
    return Draft(network, module, spec.preprocessing, spec.normalisation, teacher.files, f"it has {lost}")


def origin(name: str, options: dict[str, Any]) -> str:
    """The library that says which channels belong together, besides the teacher."""
    return f"torch-pruning {version('torch-pruning')}"


def steps_of(name: str, options: dict[str, Any]) -> tuple[int, int]:
    """How many steps there are, and how many epochs of training between two."""
    _, chosen = read_options(name, options)
    return chosen.steps, chosen.recovery_epochs


def smaller(
    start: Classifier, name: str, options: dict[str, Any], wanted: Wanted, step: int
) -> tuple[NetworkSpec, nn.Module]:
    """The network of `start`, the teacher or what the step before left of it, as `step`, counted from 1, leaves it.

    Widths are shares of the teacher's, whatever the steps before left: the last step's do not depend on their number.
    """
    share, chosen = read_options(name, options)
    teacher = wanted.teacher
    assert teacher is not None
    looks = (chosen.importance == "taylor" and share < 1) or chosen.blocks is not None
    inputs = drawn_inputs(wanted, chosen.importance_items, start) if looks else None
    part = step / chosen.steps
    blocks: tuple[str, ...] = ()
    if gone := _to_remove(chosen, teacher, name):
        before = len(residual_blocks(teacher.network)) - len(residual_blocks(start.network))
        assert inputs is not None
        blocks = least_missed(start, round(gone * part) - before, inputs)
    pruning = Pruning(start, f"{PREFIX}:{name}")
    if share == 1:
        return pruning.without_blocks(blocks)
    left = 1 - (1 - share) * part if step < chosen.steps else share
    return pruning.with_widths(blocks, layer_widths(teacher.network), left, chosen.round_to, chosen.importance, inputs)


def _to_remove(options: ChannelOptions, teacher: Classifier, name: str) -> int:
    """How many residual blocks go. Raises UserError for another kind of network, and for more than can."""
    model = f"{PREFIX}:{name}"
    kinds = {type(module).__name__ for module in teacher.network.modules()}
    if any("Attention" in kind for kind in kinds) or not isinstance(teacher.spec.preprocessing, ImagePreprocessing):
        theirs = "take teacher-layers:N, with options heads and ffn_width for narrower layers"
        raise UserError(
            f"'{model}' prunes convolutional networks, and the teacher '{teacher.spec.model}' has attention",
            theirs if teacher.spec.network.source == "transformers" else "name a smaller model as the student",
        )
    if options.blocks is None:
        return 0
    total, able = len(residual_blocks(teacher.network)), len(removable_blocks(teacher.network))
    if not able:
        raise UserError(
            f"'{model}': the teacher '{teacher.spec.model}' has no residual blocks that could be left out",
            "leave out options.blocks",
        )
    if not total - able <= options.blocks < total:
        raise UserError(
            f"'{model}': blocks = {options.blocks}, but of the {total} residual blocks of '{teacher.spec.model}' "
            f"{total - able} change the size of the maps and stay",
            f"give blocks = {total - able} to {total - 1}",
        )
    return total - options.blocks
