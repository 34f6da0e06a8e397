from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from helpers import image_inputs
from text_models import TEXTS, text_classifier, tiny_folder
from torch.utils.data import DataLoader

from train.augment import AugmentConfig
from train.augment.images import augment_images as augment
from train.inputs import TextInputs
from train.sources import Items
from train.views import ByLength, EpochSampler, View, as_batch, items_of_epoch

IMAGES = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 1), dtype=np.uint8)
LABELS = np.arange(50)


def view(shift: int = 1) -> View:
    return View(image_inputs(IMAGES, LABELS), AugmentConfig(shift=shift), seed=4)


def order(seed: int, epoch: int) -> list[int]:
    sampler = EpochSampler(view(), seed, 16)
    sampler.set_epoch(epoch)
    return list(sampler)


def test_each_epoch_is_a_shuffle_of_all_items_of_its_own() -> None:
    assert sorted(order(1, 0)) == sorted(order(1, 1)) == list(range(50))
    assert order(1, 0) == order(1, 0)
    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


def test_the_loader_gets_whole_batches_of_the_epochs_view() -> None:
    data = view()
    sampler = EpochSampler(data, seed=4, batch_size=16)
    for epoch in (0, 5):
        sampler.set_epoch(epoch)
        batches = list(DataLoader(data, batch_size=16, sampler=sampler, collate_fn=as_batch))
        assert [len(batch["labels"]) for batch in batches] == [16, 16, 16, 2]
        rows = torch.cat([batch["labels"] for batch in batches]).numpy()
        seen = torch.cat([batch["inputs"] for batch in batches]).numpy()
        assert (seen == augment(IMAGES[rows], AugmentConfig(shift=1), 4, epoch, rows)).all()
        assert rows.tolist() == order(4, epoch)


def test_one_item_too_many_for_whole_batches_is_left_out_in_turn() -> None:
    norm, plain = torch.nn.Sequential(torch.nn.BatchNorm2d(3)), torch.nn.Linear(2, 2)
    assert [items_of_epoch(total, 7, norm) for total in (48, 49, 50, 1)] == [48, 49, 49, 1]
    assert items_of_epoch(50, 7, plain) == items_of_epoch(50, 1, norm) == 50
    sampler = EpochSampler(view(), 4, 7, items=49)
    assert len(sampler) == 49
    left_out = set()
    for epoch in range(5):
        sampler.set_epoch(epoch)
        assert list(sampler) == order(4, epoch)[:49]  # the batches before it stay as they are
        left_out |= {*range(50)} - {*sampler}
    assert len(left_out) > 1


def test_evaluation_sees_the_items_as_they_are() -> None:
    batch = view(shift=0).__getitems__([3, 1])
    assert (batch["inputs"].numpy() == IMAGES[[3, 1]]).all()
    assert batch["labels"].tolist() == [3, 1]
    assert batch["inputs"].dtype == torch.uint8


def test_texts_that_are_scored_go_by_length_and_images_as_they_are() -> None:
    images = image_inputs(IMAGES, LABELS)
    assert list(ByLength(images)) == list(range(50))
    model = text_classifier("builtin:textcnn")
    words = np.random.default_rng(1).integers(1, 9, 30)
    texts = TextInputs(Items([b"good " * count for count in words], LABELS[:30]), model.preparer())
    rows = list(ByLength(texts))
    assert sorted(rows) == list(range(30))
    assert [int(texts.lengths[row]) for row in rows] == sorted(texts.lengths.tolist())


def test_a_teacher_with_a_tokenizer_of_its_own_reads_texts_that_do_not_change_in_its_tokens(tmp_path: Path) -> None:
    ours, theirs = (text_classifier(f"hf:{tiny_folder(tmp_path / kind, kind)}") for kind in ("gpt2", "bert"))
    own, other = (TextInputs(Items(TEXTS, np.zeros(len(TEXTS), np.int64)), one.preparer()) for one in (ours, theirs))
    rows = np.array([2, 0, 3])
    batch = View(own, AugmentConfig(), 5, teacher_inputs=[None, other]).__getitems__(rows.tolist())
    assert np.array_equal(batch["inputs"].numpy(), own.gather(rows))
    assert np.array_equal(batch["teacher_inputs1"].numpy(), other.gather(rows))
    assert "teacher_inputs" not in batch
