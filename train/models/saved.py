"""`run:DIR`: the teacher of an earlier run, or `run:DIR/students/NAME`, as it was trained there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from serve.errors import UserError
from serve.manifest import Task
from train.draft import Draft, Wanted
from train.models.heads import head_of, take_rows
from train.models.hub import fingerprint
from train.sources import expand

if TYPE_CHECKING:
    from train.classifier import ClassifierSpec

_SPEC = "spec.json"


def check(name: str, options: dict[str, Any], task: Task) -> None:
    """Raise UserError unless a trained model for `task` lies there."""
    from train.classifier import check_saved_weights, read_spec

    if options:
        raise UserError(
            f"'run:{name}' takes no options, got {', '.join(options)}", "leave them out: it stays as trained"
        )
    spec = read_spec(folder_of(name))
    check_saved_weights(folder_of(name))
    if spec.preprocessing.kind != task:
        raise UserError(
            f"'run:{name}' classifies {spec.preprocessing.kind}s, the recipe's task is {task}",
            f'set task = "{spec.preprocessing.kind}", or name a run of {task}s',
        )


def draft(name: str, options: dict[str, Any], wanted: Wanted) -> Draft:
    """The saved network with its preprocessing and tokenizer; its labels must be the wanted ones, in any order."""
    from train.classifier import load_classifier

    found = load_classifier(folder_of(name))
    spec = found.spec
    _check_labels(spec, wanted, name)
    if wanted.task == "image" and wanted.teacher and wanted.teacher.spec.preprocessing != spec.preprocessing:
        raise UserError(
            f"'run:{name}' prepares images in another way than the teacher",
            "all image models of a run see the same: take a model from a run with the same teacher and data",
        )
    if spec.labels != wanted.labels:
        _reorder(found.network, [spec.labels.index(label) for label in wanted.labels], name)
    return Draft(spec.network, found.network, spec.preprocessing, spec.normalisation, found.files, None)


def origin(name: str, options: dict[str, Any]) -> str:
    """A hash of the trained model's files."""
    return fingerprint(folder_of(name))


def folder_of(name: str) -> Path:
    """The folder of the trained model that `run:NAME` names."""
    folder = expand(name)
    for place in (folder, folder / "teacher"):
        if (place / _SPEC).is_file():
            return place
    students = sorted(file.parent.name for file in folder.glob(f"students/*/{_SPEC}"))
    hint = f"there is run:{name}/students/{students[0]}" if students else "expected a run directory, as runs/digits"
    raise UserError(f"'run:{name}': there is no trained model in {folder}", hint)


def _check_labels(spec: ClassifierSpec, wanted: Wanted, name: str) -> None:
    lacking, strange = set(wanted.labels) - set(spec.labels), set(spec.labels) - set(wanted.labels)
    if lacking or strange:
        parts = [f"it does not know {', '.join(sorted(lacking))}"] if lacking else []
        parts += [f"it knows {', '.join(sorted(strange))} besides"] if strange else []
        raise UserError(
            f"'run:{name}' was trained for other labels than the data has: {'; '.join(parts)}",
            "take the data that it was trained for, or another model",
        )


def _reorder(network: nn.Module, rows: list[int], name: str) -> None:
    linear = any(isinstance(module, nn.Linear) for module in network.modules())  # SqueezeNet scores by a convolution
    if not linear or (head := head_of(network)).out_features != len(rows):
        raise UserError(f"'run:{name}' has its labels in another order than the data", "train it on these data")
    take_rows(head, rows)
