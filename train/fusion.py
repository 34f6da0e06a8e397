"""Kernels in the network that is trained and in its losses (`fit.kernels`): chosen before a training, for it alone.

What is kept depends on clocks, so a training that goes on from a checkpoint keeps what it began with, and of several
processes the first chooses for all. What failed is not tried again (`failed_kernels`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from kernels.fuse import FuseOptions, fuse, fuse_as, left_plain, unfuse
from kernels.ledger import Entry, Ledger
from kernels.runtime import why_not
from serve.errors import UserError
from train.arguments import training_device
from train.classifier import Classifier
from train.failed_kernels import Failure, blamed, described, name_of, remembered
from train.fit_config import FitConfig
from train.fused import losses_by_kernel, rehearsing
from train.fused_front import ALL_KINDS
from train.inputs import Inputs
from train.precision import Arithmetic
from train.processes import world

LEDGER = "kernels.json"  # beside the checkpoints
_DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
_HINT = 'the same command goes on without fused kernels; fit.kernels = "off" takes none from the start'


@dataclass(frozen=True)
class Fusion:
    """What a training knows that chooses its kernels."""

    inputs: Inputs  # its items, of which the first batch is what sites are judged on
    arithmetic: Arithmetic
    checkpoints: Path
    goes_on: bool  # from a checkpoint
    sharded: bool
    say: Callable[[str], None]
    rehearse: Callable[[int], None]  # compute the losses of so many items once, and learn nothing from them

    @contextmanager
    def of(self, config: FitConfig, classifier: Classifier) -> Iterator[Ledger | None]:
        """For a while `classifier` and its losses have the kernels that pay. Gives the ledger, None for `off`."""
        if config.kernels == "off":
            unfuse(classifier)
            yield None
            return
        ledger = self._choose(config, classifier)
        if ledger.any_kept or why_not(training_device()) is None:
            self.say(ledger.line())
        else:
            _say_once(ledger.why, self.say)
        try:
            with losses_by_kernel(entry.site for entry in ledger.losses if entry.kept):
                yield ledger
        except Exception as problem:
            said = None if ledger.failed or why_not(training_device()) is not None else blamed(problem)
            if said is None:
                raise
            why = f"a kernel failed in training: {said}"
            Failure(why, ledger.device, self._items(config), training=True).remember(self.checkpoints)
            raise UserError(why, _HINT) from problem
        finally:
            unfuse(classifier)

    def _choose(self, config: FitConfig, classifier: Classifier) -> Ledger:
        """Fuse `classifier`, and say what was kept of it."""
        ledger = _firsts(self._first_choice(config, classifier) if world().leads else None)
        fuse_as(classifier, ledger, ALL_KINDS)
        return ledger

    def _first_choice(self, config: FitConfig, classifier: Classifier) -> Ledger:
        """What the first process chooses for all: it never raises, since the others wait to hear of it."""
        device = next(classifier.parameters()).device
        reason = why_not(device)
        before = remembered(self.checkpoints, device, self._items(config)) if reason is None else None
        if before is not None:
            plain = left_plain(classifier, before.not_again(self.checkpoints), FuseOptions(kinds=ALL_KINDS))
            return replace(plain, failed=before.training)
        if reason is None and self.sharded:
            reason = "with --shard a parameter is whole only while its layer computes"
        if reason is None:
            try:
                return self._known() or self._found(config, classifier)
            except Exception as problem:  # out of memory, a full disk, what a network does not bear
                reason = f"it could not be tried: {described(problem)}"
                if not isinstance(problem, OSError):
                    Failure(reason, name_of(device), self._items(config), training=False).remember(self.checkpoints)
        return left_plain(classifier, reason, FuseOptions(kinds=ALL_KINDS))

    def _found(self, config: FitConfig, classifier: Classifier) -> Ledger:
        """What proves to be right and faster now; the layers first, since losses get what these hand on."""
        options = self._options(config)
        if reason := self._unfit(config):
            found = left_plain(classifier, reason, options)
        else:
            batch = self._batch(config).to(next(classifier.parameters()).device)
            found = fuse(classifier, (batch,), options)
        found = replace(found, losses=self._losses(config, options))
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        (self.checkpoints / LEDGER).write_text(found.to_json())
        return found

    def _losses(self, config: FitConfig, options: FuseOptions) -> tuple[Entry, ...]:
        with rehearsing(options) as rehearsal:
            self.rehearse(self._items(config))
        return rehearsal.entries

    def _unfit(self, config: FitConfig) -> str | None:
        """Why no network is fused under these settings."""
        return None if config.stack is None else "fit.stack replaces layers while they are trained"

    def _known(self) -> Ledger | None:
        """What a training that goes on has chosen; None where it began without, or what it wrote cannot be read."""
        try:
            return Ledger.from_json((self.checkpoints / LEDGER).read_text()) if self.goes_on else None
        except (OSError, ValueError, TypeError):
            return None

    def _batch(self, config: FitConfig) -> torch.Tensor:
        return torch.from_numpy(self.inputs.gather(np.arange(self._items(config))))

    def _items(self, config: FitConfig) -> int:
        """Of a batch of one process."""
        return min(len(self.inputs), max(1, config.batch_size // world().size))

    def _options(self, config: FitConfig) -> FuseOptions:
        return FuseOptions(_DTYPES[self.arithmetic.precision], compiled=config.compile, kinds=ALL_KINDS)


def note_on_kernels(ledger: Ledger | None) -> tuple[str, ...]:
    """What a reader of the figures should know of a training with kernels; nothing where there were none."""
    if ledger is None or not ledger.any_kept:
        return ()
    chosen = "which were chosen by what was faster then, so another run may round otherwise"
    return (f"trained with {ledger.line()}, {chosen}",)


def _firsts(ledger: Ledger | None) -> Ledger:
    """The first process's."""
    if world().size == 1:
        assert ledger is not None
        return ledger
    told = [None if ledger is None else ledger.to_json()]
    dist.broadcast_object_list(told, src=0, device=torch.device("cpu"))
    assert told[0] is not None
    return Ledger.from_json(told[0])


@functools.cache
def _say_once(reason: str, say: Callable[[str], None]) -> None:
    say(f"fused kernels are off: {reason}")
