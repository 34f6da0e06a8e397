from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from pydantic import BaseModel

from compress import fingerprint as fingerprints
from compress.fingerprint import fingerprint
from serve.manifest import ServingConfig
from train.augment import AugmentConfig
from train.distill import DistillConfig
from train.fit_config import FitConfig

# [teacher.fit] of a run from before there were other fields, as its run.json shows it.
EARLIER = {
    "epochs": 30,
    "batch_size": 128,
    "accumulation": 1,
    "optimizer": "sgd",
    "learning_rate": 0.1,
    "weight_decay": 0.0005,
    "schedule": "cosine",
    "warmup": 0.05,
    "label_smoothing": 0.0,
    "clip": 1.0,
    "patience": None,
    "precision": "auto",
    "augment": {"shift": 4, "flip": True},
}
EARLIER_LESSON = {"method": "soft-targets", "temperature": 4.0, "alpha": 0.9}


class Answer(BaseModel):
    value: int


def plainly(content: dict[str, Any]) -> str:
    """The hash by hand."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def test_fingerprints_do_not_depend_on_order_and_do_on_content() -> None:
    assert fingerprint({"a": 1, "b": Answer(value=2)}) == fingerprint({"b": {"value": 2}, "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": "1"})
    with pytest.raises(TypeError, match="cannot hash"):
        fingerprint({"a": object()})


def test_a_run_of_before_is_the_same_now_whatever_fields_came_since() -> None:
    fit, distill = FitConfig.model_validate(EARLIER), DistillConfig.model_validate(EARLIER_LESSON)
    assert fingerprint({"fit": fit, "distill": distill}) == plainly({"fit": EARLIER, "distill": EARLIER_LESSON})


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 31},
        {"clip": 0.5},
        {"augment": {"shift": 4}},
        {"augment": {"shift": 4, "delete": 0.1}},
        {"final_refit": True},
    ],
)
def test_a_change_of_an_earlier_or_a_later_field_is_another_run(change: dict[str, Any]) -> None:
    changed = FitConfig.model_validate({**EARLIER, **change})
    assert fingerprint({"fit": changed}) != fingerprint({"fit": FitConfig.model_validate(EARLIER)})


def test_every_field_of_training_that_came_later_counts_once_it_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    class Later(AugmentConfig):
        first: int = 1
        second: tuple[int, ...] = ()

    monkeypatch.setitem(fingerprints._ALWAYS, Later, frozenset(("shift", "flip")))
    bare = plainly({"augment": {"shift": 0, "flip": False}})
    assert fingerprint({"augment": Later()}) == fingerprint({"augment": Later(first=1, second=())}) == bare
    others = [fingerprint({"augment": other}) for other in (Later(first=2), Later(second=(1,)))]
    assert len({bare, *others}) == 3


def test_settings_of_serving_that_came_later_count_once_they_are_set() -> None:
    before = {"threads": 2, "workers": 1, "graph_level": "all"}
    assert fingerprint({"serving": ServingConfig(threads=2)}) == plainly({"serving": before})
    assert fingerprint({"serving": ServingConfig(threads=2, max_batch=8)}) != plainly({"serving": before})


def test_fields_that_always_count_are_there() -> None:
    for model, names in fingerprints._ALWAYS.items():
        assert names <= set(model.model_fields), model
