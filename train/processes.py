"""Several processes that train one model together: `torchrun` or `accelerate launch` starts them, one for each device.

fit.batch_size is what they see together, so that a recipe means the same however many there are: each has its share of
every batch. What is measured and written is the business of the first alone.
"""

from __future__ import annotations

import datetime
import os
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_callback import TrainerControl, TrainerState

from serve.errors import UserError
from train.distill import DistillConfig
from train.fit_config import FitConfig

# Of a collective operation: how long one process may be behind the others, for example to read its data.
_PATIENCE = datetime.timedelta(hours=2)
_MET = "limbeck processes"
_SHARDED = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")  # as accelerate launch says it


@dataclass(frozen=True)
class World:
    """How many processes there are, and which of them this is."""

    size: int = 1
    rank: int = 0
    local_size: int = 1  # on this machine
    local_rank: int = 0

    @property
    def leads(self) -> bool:
        """Whether this is the one that writes, prints and measures."""
        return self.rank == 0


def world() -> World:
    """What the launcher said in the environment; one process without a launcher."""
    names = {"size": "WORLD_SIZE", "rank": "RANK", "local_size": "LOCAL_WORLD_SIZE", "local_rank": "LOCAL_RANK"}
    return World(**{field: int(os.environ[name]) for field, name in names.items() if name in os.environ})


def join() -> Store:
    """Meet the other processes. Returns the store through which they may talk: waiting there has no time limit."""
    here = world()
    store, rank, size = next(rendezvous("env://", timeout=_PATIENCE))
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(here.local_rank)
        backend = "cuda:nccl,cpu:gloo"
    own = PrefixStore("group", store)
    dist.init_process_group(backend, store=own, rank=rank, world_size=size, timeout=_PATIENCE)
    return PrefixStore(_MET, store)


def check_processes(name: str, config: FitConfig, distill: DistillConfig | None, size: int) -> None:
    """Raise UserError for what `size` processes cannot do as one would; `name` is the model's."""
    if size == 1 or config.epochs == 0:
        return
    sharded = next((name for name in _SHARDED if os.environ.get(name, "").lower() in ("1", "true")), None)
    if sharded is not None:
        raise UserError(
            f"{sharded} is set, but accelerate does not split the models here",
            "take a configuration of accelerate without FSDP and DeepSpeed; `limbeck run --shard` splits them",
        )
    if config.batch_size % size:
        even = [value for value in (config.batch_size // size * size, -(-config.batch_size // size) * size) if value]
        raise UserError(
            f"'{name}': fit.batch_size = {config.batch_size} is what all processes see together, and {size} cannot "
            "share it evenly",
            f"set it to {' or '.join(map(str, even))}, or start another number of processes",
        )
    if config.shrink_on_oom:
        raise UserError(
            f"'{name}': fit.shrink_on_oom is for one process, since memory runs out in one of {size} alone",
            "leave it out, and set a smaller fit.batch_size with more fit.accumulation",
        )
    if config.stack is not None:
        raise UserError(
            f"'{name}': fit.stack trains more and more layers, which {size} processes cannot do together",
            "leave it out, or train in one process",
        )
    if distill is not None and distill.compares_items:
        raise UserError(
            f"'{name}': distill.method = 'dist' compares all items of a batch, of which each of {size} processes sees "
            "its share alone",
            "set distill.intra_weight = 0, or train in one process",
        )
    if distill is not None and distill.features and config.unfreeze is not None:
        raise UserError(
            f"'{name}': fit.unfreeze with [[students.distill.features]] cannot be trained in {size} processes",
            "leave out one of them, or train in one process",
        )


def together(rows: np.ndarray) -> np.ndarray:
    """The sum of all processes' `rows`, of which each fills its own and leaves the others' zero."""
    if world().size == 1:
        return rows
    total = torch.from_numpy(rows)
    dist.all_reduce(total)
    return total.numpy()


def meet() -> None:
    """Wait for the other processes."""
    if world().size > 1:
        together(np.zeros(1, dtype=np.float32))


class OwnDropout(TrainerCallback):
    """Trainer seeds all processes alike, with which dropout would leave out the same of each one's share."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        if args.world_size > 1:
            torch.manual_seed(args.seed * args.world_size + args.process_index)


def same_statistics(network: nn.Module) -> None:
    """Give all processes the first one's buffers: each has the running statistics of its own share of the items."""
    if world().size > 1:
        for buffer in network.buffers():
            dist.broadcast(buffer, 0)


def note_on_norms(network: nn.Module) -> tuple[str, ...]:
    """What a reader of the figures should know of batch norm."""
    size = world().size
    if size == 1 or not any(isinstance(module, _BatchNorm) for module in network.modules()):
        return ()
    note = (
        f"trained in {size} processes: batch norm normalised each one's share of a batch by itself, and its running "
        "statistics are those of the first, so one process would have given other weights"
    )
    return (note,)
