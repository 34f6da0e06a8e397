"""The training split as batches: whole index lists in, whole tensors out, no per-item Python on the hot path."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import Dataset, Sampler, get_worker_info

from serve.errors import UserError
from train.augment import AugmentConfig
from train.augment.draws import ItemDraws
from train.augment.images import augment_images, check_channels
from train.augment.mixing import mix, mixed_rows, mixes, partners, targets
from train.augment.texts import TextAugmenter
from train.image_growth import ImageGrowth
from train.inputs import Inputs, TextInputs
from train.sources.base import UNLABELLED

# inputs uint8 [N, H, W, C] or int64 [N, L], labels int64 [N]. Where items were mixed, targets float32 [N, K]: how much
# each has of a class. Where the teacher answered in advance, taught float32 [N, K]: its logits. Where it has a
# tokenizer of its own, teacher_inputs int64 [N, L']: the same texts for it; for a second teacher, teacher_inputs1.
Batch = dict[str, torch.Tensor]
_GROUP = 50  # batches that are sorted by length together


class View(Dataset[Batch]):
    """Prepared items and labels, seen through an augmentation (none for evaluation).

    torch's loader calls `__getitems__` with the indices of a batch, so items are gathered at once.
    """

    def __init__(
        self,
        inputs: Inputs,
        augmentation: AugmentConfig,
        seed: int,
        taught: np.ndarray | None = None,
        teacher_inputs: Sequence[Inputs | None] = (),
        augmenter: TextAugmenter | None = None,
        classes: int | None = None,
        growth: ImageGrowth | None = None,
    ) -> None:
        """`teacher_inputs` are the same items for each teacher that prepares them in another way, None for any other.

        `classes` is K, needed where items are mixed. Raises UserError for colours to change in grey images."""
        if augmentation.is_active and not isinstance(inputs, TextInputs):
            check_channels(augmentation, inputs.gather(np.array([0])).shape[-1])
        self.inputs, self.augmentation, self.seed, self.taught = inputs, augmentation, seed, taught
        self.teacher_inputs = teacher_inputs
        self.augmenter = augmenter  # of texts; images are augmented as `augmentation` says
        self.classes = classes
        self.growth = growth  # of images, the smaller the earlier
        # in memory that a loader's workers share, so that one which lives longer than an epoch sees the next
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    @property
    def epoch(self) -> int:
        return int(self._epoch)

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitems__(self, indices: list[int]) -> Batch:
        rows = np.asarray(indices)
        batch = {name: torch.from_numpy(values) for name, values in self._see(rows).items()}
        batch.setdefault("labels", torch.from_numpy(self.inputs.labels[rows]))
        if self.taught is not None:
            batch["taught"] = torch.from_numpy(self.taught[rows])
        return batch

    def _see(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """These rows as model and teacher see them in this epoch."""
        if self.augmenter is None or not isinstance(self.inputs, TextInputs):
            images = self._images(rows)
            seen = self._mixed(images, rows) if mixes(self.augmentation) else {"inputs": images}
            if self.growth is not None:
                seen["inputs"] = self.growth.see(seen["inputs"], self.epoch)
            asked = self.teacher_inputs if self.taught is None else ()
            return seen | {teacher_key(at): own.gather(rows) for at, own in enumerate(asked) if own is not None}
        views = [
            self.augmenter.see(text, self.epoch, int(row))
            for row, text in zip(rows, self.inputs.texts(rows), strict=True)
        ]
        texts, whole = [text for text, _ in views], np.array([labelled for _, labelled in views])
        seen = {"inputs": self.augmenter.tokenize(texts, self.inputs)}
        for at, theirs in enumerate(self.teacher_inputs):
            if isinstance(theirs, TextInputs):
                seen[teacher_key(at)] = self.augmenter.tokenize(texts, theirs)
        if not whole.all():
            seen["labels"] = np.where(whole, self.inputs.labels[rows], UNLABELLED)
        return seen

    def _images(self, rows: np.ndarray) -> np.ndarray:
        return augment_images(self._gather(rows), self.augmentation, self.seed, self.epoch, rows)

    def _mixed(self, images: np.ndarray, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Some of these images mixed with others of the split, and how much of each class is in each."""
        assert self.classes is not None, "to mix items takes the number of classes"
        draws, labels = ItemDraws(self.seed, self.epoch, rows), self.inputs.labels
        others, share = rows.copy(), np.ones(len(rows), dtype=np.float32)
        if len(some := mixed_rows(self.augmentation, draws)):
            own = draws.take(some)
            others[some] = partners(own, len(self))
            images[some], share[some] = mix(images[some], self._images(others[some]), self.augmentation, own)
        return {"inputs": images, "targets": targets(labels[rows], labels[others], share, self.classes)}

    def _gather(self, rows: np.ndarray) -> np.ndarray:
        try:
            return self.inputs.gather(rows)
        except UserError as error:
            if get_worker_info() is None:
                raise
            raise WorkerError(json.dumps([error.message, error.hint])) from None


def teacher_key(at: int) -> str:
    """What the view of a teacher, counted from 0, is called in a batch."""
    return f"teacher_inputs{at or ''}"


class WorkerError(Exception):
    """A UserError on its way out of a loader's worker, of which torch passes on the class and a printed traceback."""

    def told(self) -> UserError:
        """The error as it was."""
        message, hint = json.loads(str(self).strip().rpartition(f"{type(self).__name__}: ")[2])
        return UserError(message, hint)


class EpochSampler(Sampler[int]):
    """A shuffle that depends on (seed, epoch) alone, so that a resumed run sees the same order.

    Texts of like length share a batch of `batch_size`, since a batch is as long as its longest text. The loader tells
    a sampler its epoch before it draws from it; the view's augmentation follows. An epoch has its `items` of the view,
    another choice each time where they are not all of them.
    """

    def __init__(self, view: View, seed: int, batch_size: int, items: int | None = None) -> None:
        self.view, self.seed, self.batch_size = view, seed, batch_size
        self.items = len(view) if items is None else items

    def set_epoch(self, epoch: int) -> None:
        self.view.epoch = epoch

    def __len__(self) -> int:
        return self.items

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng((self.seed, self.view.epoch))
        order = generator.permutation(len(self.view))[: self.items]
        if self.view.inputs.lengths is not None:
            order = _by_length(order, self.view.inputs.lengths, self.batch_size, generator)
        return iter(order.tolist())


class ByLength(Sampler[int]):
    """Every item once, the shortest first, so that little is padded; in the split's order where all are alike."""

    def __init__(self, inputs: Inputs) -> None:
        rows = np.arange(len(inputs)) if inputs.lengths is None else np.argsort(inputs.lengths, kind="stable")
        self._rows: list[int] = rows.tolist()

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[int]:
        return iter(self._rows)


def items_of_epoch(total: int, batch_size: int, network: nn.Module, processes: int = 1) -> int:
    """All items; less where one would be a batch of its own and batch norm, which needs a deviation, is to see it.

    Of several processes each would need two of the last batch. What is left out is another choice in each epoch.
    Every other recipe sees each item in each epoch.
    """
    last = total % batch_size
    share = -(-last // processes)
    lone = 0 < last < 2 * processes or last % share == 1 if last else False
    if not (lone and total > batch_size > processes):
        return total
    return total - last * int(any(isinstance(module, _BatchNorm) for module in network.modules()))


def _by_length(order: np.ndarray, lengths: np.ndarray, batch_size: int, generator: np.random.Generator) -> np.ndarray:
    """Sort within groups of many batches, so that little is padded, then shuffle the batches.

    A last batch that is not full stays last: anywhere else it would shift the batches behind it.
    """
    groups = np.split(order, range(_GROUP * batch_size, len(order), _GROUP * batch_size))
    sorted_ = np.concatenate([group[np.argsort(lengths[group], kind="stable")] for group in groups])
    full = len(order) // batch_size
    batches = sorted_[: full * batch_size].reshape(full, batch_size)
    return np.concatenate([batches[generator.permutation(full)].ravel(), sorted_[full * batch_size :]])


def as_batch(gathered: Batch) -> Batch:
    """The loader's collate function: `__getitems__` has already made the batch."""
    return gathered
