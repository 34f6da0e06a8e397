from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import encoded, image_classifier
from PIL import Image
from torch.utils.data import DataLoader

from serve.errors import UserError
from serve.manifest import ImagePreprocessing
from serve.preparer import new_preparer
from train import inputs as inputs_module
from train import training
from train.augment import AugmentConfig
from train.augment.images import augment_images as augment
from train.classifier import Classifier
from train.epochs import EpochRecord, epoch_callbacks
from train.fit import fit
from train.fit_config import FitConfig
from train.fit_result import FitResult
from train.images import of_one_size, pixel_statistics
from train.inputs import ImageInputs, Inputs, LazyImages, prepare_inputs
from train.sources import Items
from train.views import EpochSampler, View, as_batch

LABELS = tuple("abcd")
SPEC = ImagePreprocessing(color="RGB", size=(16, 16), resize="shorter-side", resize_to=18, crop="center")


def photographs(count: int, sizes: int = 5) -> Items:
    """JPEG files of several sizes, upright and turned."""
    rng = np.random.default_rng(3)
    files = []
    for at in range(count):
        image = Image.fromarray(rng.integers(0, 256, (6, 5, 3), dtype=np.uint8))
        exif = Image.Exif()
        exif[0x0112] = 1 + at % 8
        size = (150 + 7 * (at % sizes), 120 + 5 * (at % sizes))
        files.append(encoded(image.resize(size, Image.Resampling.BICUBIC), "JPEG", exif=exif, quality=90))
    return Items(files, np.arange(count) % len(LABELS))


PHOTOGRAPHS = photographs(70)


def prepared(budget_bytes: int, items: Items = PHOTOGRAPHS) -> Inputs:
    return prepare_inputs(items, new_preparer(SPEC, {}), budget_bytes)


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Any:
    def set_workers(count: int) -> None:
        monkeypatch.setattr(LazyImages, "workers", lambda self, batch_size: count)

    return set_workers


def test_images_are_kept_in_memory_up_to_the_budget() -> None:
    exactly = 70 * 16 * 16 * 3
    assert isinstance(prepared(exactly), ImageInputs)
    assert isinstance(prepared(exactly - 1), LazyImages)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_both_ways_and_any_number_of_threads_give_the_same_pixels(
    monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    monkeypatch.setattr(inputs_module, "_LARGE_FILE_BYTES", 0)
    monkeypatch.setattr(inputs_module, "count_threads", lambda: threads)
    expected = np.concatenate([new_preparer(SPEC, {}).prepare([item]) for item in PHOTOGRAPHS.content])
    rows = np.array([69, 3, 3, 0, 41])
    for inputs in (prepared(2**30), prepared(0)):
        assert np.array_equal(inputs.gather(np.arange(70)), expected)
        assert np.array_equal(inputs.gather(rows), expected[rows])
        assert inputs.gather(rows[:0]).shape == (0, 16, 16, 3)
    assert pixel_statistics(prepared(0)) == pixel_statistics(prepared(2**30))


def test_nothing_is_decoded_before_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    lazy = prepared(0)
    decoded: Counter[bytes] = Counter()
    preparer = lazy._preparer  # type: ignore[attr-defined]
    prepare = preparer.prepare
    monkeypatch.setattr(preparer, "prepare", lambda items: decoded.update(items) or prepare(items))
    lazy.gather(np.array([5, 9]))
    assert {PHOTOGRAPHS.content.index(item) for item in decoded if item in PHOTOGRAPHS.content} == {5, 9}


@pytest.mark.parametrize("persistent", [False, True])
def test_each_epochs_view_reaches_the_workers(persistent: bool) -> None:
    data = View(prepared(0), AugmentConfig(shift=2), seed=4)
    sampler = EpochSampler(data, seed=4, batch_size=16)
    collate: Any = as_batch
    loader = DataLoader(
        data, batch_size=16, sampler=sampler, collate_fn=collate, num_workers=2, persistent_workers=persistent
    )
    images = prepared(2**30).gather(np.arange(70))
    for epoch in (0, 1, 7):
        sampler.set_epoch(epoch)
        rows = np.array(list(sampler))
        seen = torch.cat([batch["inputs"] for batch in loader]).numpy()
        assert np.array_equal(seen, augment(images[rows], AugmentConfig(shift=2), 4, epoch, rows))


def trained(folder: Path, train: Inputs, epochs: int = 3) -> tuple[Classifier, FitResult]:
    """Dropout draws random numbers of its own, a second way in which workers could change the result."""
    student = image_classifier(
        np.zeros((1, 16, 16, 3), np.uint8), LABELS, model="builtin:mlp-16", dropout=0.3, image_size=16
    )
    config = FitConfig(epochs=epochs, batch_size=16, augment=AugmentConfig(shift=2))
    return student, fit(student, config, train, prepared(2**30), 5, folder)


def test_training_gives_the_same_weights_in_memory_and_with_any_number_of_workers(tmp_path: Path, workers: Any) -> None:
    expected, result = trained(tmp_path / "memory", prepared(2**30))
    for count in (0, 1, 2):
        workers(count)
        student, lazily = trained(tmp_path / str(count), prepared(0))
        for name, value in expected.state_dict().items():
            assert torch.equal(value, student.state_dict()[name]), (count, name)
        assert [epoch.loss for epoch in lazily.epochs] == [epoch.loss for epoch in result.epochs]


class _StopError(Exception):
    pass


def test_a_resumed_training_with_workers_ends_with_the_same_weights(
    tmp_path: Path, workers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers(2)
    expected, _ = trained(tmp_path / "whole", prepared(0))

    def stop(record: EpochRecord, epochs: int) -> None:
        if record.epoch > 2:
            raise _StopError

    with monkeypatch.context() as interrupted:
        interrupted.setattr(training, "epoch_callbacks", lambda config, _: epoch_callbacks(config, stop))
        with pytest.raises(_StopError):
            trained(tmp_path / "cut", prepared(0))
    assert list((tmp_path / "cut").glob("checkpoints/checkpoint-*"))
    resumed, result = trained(tmp_path / "cut", prepared(0))
    assert len(result.epochs) == 3
    for name, value in expected.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


@pytest.mark.parametrize("count", [0, 2])
def test_an_image_that_cannot_be_read_is_named(tmp_path: Path, workers: Any, count: int) -> None:
    workers(count)
    content = list(PHOTOGRAPHS.content)
    content[33] = content[33][:-200]
    broken = Items(content, PHOTOGRAPHS.labels)
    with pytest.raises(UserError) as at_once:
        prepared(2**30, broken)
    with pytest.raises(UserError) as in_training:
        trained(tmp_path, prepared(0, broken))
    for refused in (at_once, in_training):
        assert refused.value.message == f"{broken.origins[33]}: the image breaks off or is damaged"
        assert 'unreadable = "drop"' in refused.value.hint


def test_images_of_one_size_are_prepared_as_they_are() -> None:
    grey = [encoded(Image.new("L", (30, 20))) for _ in range(3)]
    assert of_one_size(Items(grey, np.zeros(3, np.int64))) == ImagePreprocessing(color="L", size=(20, 30))
    mixed = [*grey, encoded(Image.new("RGB", (30, 20)))]
    assert of_one_size(Items(mixed, np.zeros(4, np.int64))) == ImagePreprocessing(color="RGB", size=(20, 30))


def test_a_photograph_that_lies_on_its_side_counts_as_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(Image.new("RGB", (30, 20)), "JPEG", exif=exif)
    upright = encoded(Image.new("RGB", (20, 30)), "JPEG")
    assert of_one_size(Items([turned, upright], np.zeros(2, np.int64))).size == (30, 20)


def test_images_of_several_sizes_need_an_image_size() -> None:
    files = [*[encoded(Image.new("L", (8, 8)))] * 9, encoded(Image.new("L", (8, 9)))]
    with pytest.raises(UserError, match=r"2 sizes, such as 8x8 \(9\), 8x9 \(1\)") as refused:
        of_one_size(Items(files, np.zeros(10, np.int64)))
    assert "options.image_size" in refused.value.hint
