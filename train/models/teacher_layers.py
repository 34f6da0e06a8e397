"""`teacher-layers:N`: a student with N of the teacher's layers and all the rest of it, as DistilBERT began.

`options.take` says which: "every", each second, third, ..., as TinyBERT pairs layers (Jiao et al. 2020, arXiv
1909.10351); "spread", the first, the last and evenly between, as Sanh et al. 2019 (arXiv 1910.01108) took 0, 2, 4, 7,
9, 11 of BERT's twelve; "first", since the upper layers are the ones that matter least after fine-tuning (Sajjad et al.
2023, arXiv 2004.03844); "last"; or a list of their numbers, from 0. `options.heads` and `options.ffn_width` make the
layers narrower, see teacher_widths.py; `options.dropout` replaces the teacher's. With `options.steps` layers, heads and
neurons go a few at a time, and the network is trained in between (train/recovery.py). A draft is of the last step, made
at once: of the shape that the trained student will have.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from pydantic import Field, NonNegativeInt
from torch import nn

from serve.errors import UserError
from serve.manifest import Task
from train.draft import Draft, NetworkSpec, TakenLayers, Wanted
from train.models import huggingface
from train.models.layer_stack import NUMBERED, layer_stack
from train.models.layer_steps import Step, check_plan, plan
from train.models.narrow import layer_parts
from train.models.options import parse_options
from train.models.step_options import StepOptions, at_once, check_steps
from train.models.teacher_widths import WidthOptions, check_widths, cut, describe
from train.models.teacher_widths import check_teacher as check_teachers_widths

if TYPE_CHECKING:
    from train.classifier import Classifier

_COUNTS = ("num_hidden_layers", "n_layers", "n_layer")  # BERT and ViT, DistilBERT, GPT-2
State = dict[str, torch.Tensor]
Take = Literal["spread", "every", "first", "last"] | tuple[NonNegativeInt, ...]


class LayerOptions(WidthOptions, StepOptions):
    """`options` of a student made of its teacher's layers."""

    take: Take = "every"
    dropout: float | None = Field(default=None, ge=0, lt=1)  # of hidden states, attention and head; None: the teacher's


def check(name: str, options: dict[str, Any], task: Task) -> None:
    """Raise UserError unless `name` is a number of layers; whether the teacher has so many shows when it is made."""
    chosen = parse_options(LayerOptions, f"teacher-layers:{name}", options)
    if isinstance(chosen.take, tuple) and len(chosen.take) != _wanted_count(name):
        raise UserError(f"'teacher-layers:{name}': take lists {len(chosen.take)} layers", f"list {name} of them")
    check_widths(chosen, f"teacher-layers:{name}")
    check_steps(chosen, f"teacher-layers:{name}")


def check_teacher(name: str, options: dict[str, Any], teacher: Classifier) -> None:
    """Raise UserError unless the teacher, trained or not, has what the student is to take from it."""
    chosen = parse_options(LayerOptions, f"teacher-layers:{name}", options)
    _, total = _layers(teacher.spec.network, teacher.spec.model)
    count = _wanted_count(name)
    if count > total:
        raise UserError(
            f"'teacher-layers:{name}': the teacher '{teacher.spec.model}' has {total} layers",
            f"give 1 to {total} layers",
        )
    _taken(chosen.take, count, total, name)
    check_teachers_widths(chosen, teacher, f"teacher-layers:{name}")
    check_plan(lambda steps: _plan(chosen, name, teacher, steps), chosen.steps, f"teacher-layers:{name}")


def without_widths(options: dict[str, Any]) -> dict[str, Any]:
    """`options` without those that make layers narrower, and so without steps, which may be of widths alone."""
    return {name: value for name, value in at_once(options).items() if name not in WidthOptions.model_fields}


def draft(name: str, options: dict[str, Any], wanted: Wanted) -> Draft:
    """Layers of the teacher, each second, third, ... unless `options.take` says otherwise, with its embeddings, pooler

    and head.
    """
    count, teacher = _wanted_count(name), wanted.teacher
    chosen = parse_options(LayerOptions, f"teacher-layers:{name}", options)
    if teacher is None:
        raise UserError(f"'teacher-layers:{name}' is a student, so it cannot be the teacher", "name another model")
    check_teacher(name, options, teacher)
    spec = teacher.spec
    _, total = _layers(spec.network, spec.model)
    network, module = smaller(teacher, name, options, wanted, step=chosen.steps)
    lost = [] if count == total else [f"{count} of the teacher's {total} layers"]
    lost += [describe(chosen, teacher)] if chosen.is_active else []
    untrained = f"it has {', '.join(lost)}" if lost else None
    layers = taken_layers(name, options, teacher, chosen.steps)
    return Draft(network, module, spec.preprocessing, spec.normalisation, teacher.files, untrained, layers)


def taken_layers(name: str, options: dict[str, Any], teacher: Classifier, step: int) -> TakenLayers | None:
    """As which layers of the teacher those began that pruning step `step`, counted from 1, leaves.

    None where it is a layer's place that says which one it is compared with: spread layers began as those anyway, and
    the first or the last would leave all others' work to one layer.
    """
    chosen = parse_options(LayerOptions, f"teacher-layers:{name}", options)
    if chosen.take in ("spread", "first", "last"):
        return None
    _, total = _layers(teacher.spec.network, teacher.spec.model)
    return TakenLayers(_plan(chosen, name, teacher, chosen.steps)[step].layers, total)


def origin(name: str, options: dict[str, Any]) -> None:
    """Nothing besides the teacher."""


def steps_of(name: str, options: dict[str, Any]) -> tuple[int, int]:
    """How many steps there are, and how many epochs of training between two."""
    chosen = parse_options(LayerOptions, f"teacher-layers:{name}", options)
    return chosen.steps, chosen.recovery_epochs


def cuts_layers_in_steps(name: str, options: dict[str, Any], teacher: Classifier) -> bool:
    """Whether the student has more layers at first than in the end, so that a number means another one there."""
    chosen = parse_options(LayerOptions, f"teacher-layers:{name}", options)
    _, total = _layers(teacher.spec.network, teacher.spec.model)
    return chosen.steps > 1 and _wanted_count(name) < total


def smaller(
    start: Classifier, name: str, options: dict[str, Any], wanted: Wanted, step: int
) -> tuple[NetworkSpec, nn.Module]:
    """The network of `start`, the teacher or what the step before left of it, as `step`, counted from 1, leaves it.

    Its heads and neurons are those that matter most in `start`.
    """
    chosen, teacher, spec = parse_options(LayerOptions, f"teacher-layers:{name}", options), wanted.teacher, start.spec
    assert teacher is not None
    found = _plan(chosen, name, teacher, chosen.steps)
    key, count = _layers(spec.network, spec.model)
    before = next(one.layers for one in found if len(one.layers) == count)
    now = found[step]
    taken = [before.index(layer) for layer in now.layers]
    network = spec.network.model_copy(update={"config": {**spec.network.config, key: len(taken)}})
    network = huggingface.with_dropout(network, spec.preprocessing, chosen.dropout, f"teacher-layers:{name}")
    module = huggingface.build(network, spec.preprocessing, len(spec.labels))
    module.load_state_dict(_thin(start.network.state_dict(), taken))
    widths = chosen.model_copy(update={"heads": now.heads, "ffn_width": now.ffn_width})
    return cut(module, network, taken, widths, start, wanted), module


def _plan(options: LayerOptions, name: str, teacher: Classifier, steps: int) -> list[Step]:
    """What each of so many steps leaves. The layers that stay longer are taken from the others as `take` takes them."""
    spec = teacher.spec
    _, total = _layers(spec.network, spec.model)
    whole = layer_parts(teacher.network, spec.network, spec.model)[0] if options.is_active else None
    rule: Take = options.take if isinstance(options.take, str) else "spread"
    return plan(
        steps,
        _taken(options.take, _wanted_count(name), total, name),
        total,
        lambda few, many: _taken(rule, few, many, name),
        options,
        whole,
    )


def _taken(take: Take, count: int, total: int, name: str) -> list[int]:
    """The numbers of the teacher's layers that the student gets, in its order."""
    if isinstance(take, tuple):
        if max(take) >= total or sorted(set(take)) != list(take):
            raise UserError(
                f"'teacher-layers:{name}': take = {list(take)} are no layers of the teacher's {total}",
                f"list numbers from 0 to {total - 1}, each once, in rising order",
            )
        return list(take)
    rules = {"spread": spread, "every": every, "first": _first, "last": _last}
    return rules[take](count, total)


def every(count: int, total: int) -> list[int]:
    """The last of each of `count` runs of layers as equal as can be: 3 of 6 gives 1, 3, 5.

    Source: the uniform mapping of TinyBERT (Jiao et al. 2020, arXiv 1909.10351).
    """
    return [(at + 1) * total // count - 1 for at in range(count)]


def _first(count: int, total: int) -> list[int]:
    return list(range(count))


def _last(count: int, total: int) -> list[int]:
    return list(range(total - count, total))


def spread(count: int, total: int) -> list[int]:
    """`count` of `total` layers, the first and the last among them: 3 of 6 gives 0, 2, 5."""
    return [round(float(at)) for at in np.linspace(0, total - 1, count)]


def _thin(state: State, kept: list[int]) -> State:
    """The teacher's weights, its layer `kept[i]` under the name of layer i."""
    stack = layer_stack(state)
    place = {layer: at for at, layer in enumerate(kept)}
    thin: State = {}
    for name, tensor in state.items():
        found = NUMBERED.fullmatch(name)
        if found is None or found[1] != stack:
            thin[name] = tensor
        elif int(found[2]) in place:
            thin[f"{stack}.{place[int(found[2])]}{name[found.end(2) :]}"] = tensor
    return thin


def _layers(network: NetworkSpec, model: str) -> tuple[str, int]:
    """The configuration's key for the number of layers, and that number."""
    if network.source == "transformers":
        for key in _COUNTS:
            if isinstance(network.config.get(key), int):
                return key, int(network.config[key])
    raise UserError(
        f"the teacher '{model}' has no transformer layers to take",
        "teacher-layers:N needs a BERT, DistilBERT, RoBERTa, GPT-2 or ViT teacher; name a student of its own",
    )


def _wanted_count(name: str) -> int:
    if not re.fullmatch(r"[1-9]\d*", name):
        raise UserError(f"'teacher-layers:{name}' is no number of layers", "for example teacher-layers:3")
    return int(name)
