"""Who follows a training: hears of its epochs, draws its curves, may pause it. None of it changes what is learned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from train.epochs import OnEpoch, Pause


@dataclass(frozen=True)
class Following:
    """Told of each epoch (`on_epoch`) and in words (`say`); `curves` is where TensorBoard's files go.

    Where `pause` says so after an epoch, Paused is raised once its checkpoint is written: the next call goes on there.
    """

    on_epoch: OnEpoch | None = None
    say: Callable[[str], None] = lambda _: None
    curves: Path | None = None
    pause: Pause | None = None


FOLLOWED_BY_NOBODY = Following()
