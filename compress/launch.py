"""`limbeck run --processes N`: N processes of one run on this machine, whose exit code is the run's own.

torchrun and accelerate launch end with 1 and a traceback wherever a process ends with another code than 0, so that a
run which met no constraint looks like a crash. Here torchrun's own library starts and watches the same processes.
"""

from __future__ import annotations

import logging
import os
import shlex
import signal
import sys
import uuid
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from serve.errors import UserError
from train.inputs import count_threads

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

COMMAND = "LIMBECK_COMMAND"  # says to the processes how they were asked for, and that their exit codes arrive
_LAUNCHED = "TORCHELASTIC_RUN_ID"  # as torchrun and accelerate launch say it
_THREADS = "OMP_NUM_THREADS"
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)  # of which the launcher takes care meanwhile


def command_of_this_run() -> str:
    """What the user wrote, for the record."""
    return os.environ.get(COMMAND) or shlex.join(["limbeck", *sys.argv[1:]])


def loses_exit_codes() -> bool:
    """Whether what started this process calls every exit code but 0 a crash."""
    return _LAUNCHED in os.environ and COMMAND not in os.environ


def check_count(count: int) -> None:
    """Raise UserError where so many processes cannot be started here."""
    import torch

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(
            "--processes starts processes, but torchrun or accelerate has started some already", "leave it out"
        )
    gpus = torch.cuda.device_count()
    if count > gpus > 0:
        raise UserError(
            f"--processes {count}: each needs a GPU of its own, and this machine has {gpus}",
            f"ask for {gpus}, or hide the GPUs with CUDA_VISIBLE_DEVICES=",
        )


def launch(count: int, command: Sequence[str]) -> int:
    """Start `command` so often, wait for all, and return the exit code of the run: 0, or what ended it.

    Raises UserError where a process was ended from outside, KeyboardInterrupt after Ctrl-C.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    here = "127.0.0.1"
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint=f"{here}:0",
        local_addr=here,
        max_restarts=0,
    )
    with _surroundings(count):
        try:
            elastic_launch(config, command[0])(*command[1:])
        except ChildFailedError as error:
            return _what_ended_it(count, error.failures)
        except SignalException as error:
            if error.sigval == signal.SIGINT:
                raise KeyboardInterrupt from None
            raise UserError(f"stopped by {error.sigval.name}", "the same command goes on from here") from None
    return 0


def _what_ended_it(count: int, failures: Mapping[int, ProcessFailure]) -> int:
    """The exit code of the first process where it is among those that failed, else of another that did by itself."""
    codes = {rank: failure.exitcode for rank, failure in sorted(failures.items())}
    killed = [rank for rank, code in codes.items() if code < 0 and -code != signal.SIGTERM]  # the launcher's, to others
    by_itself = [code for code in codes.values() if code > 0]
    if by_itself and not killed:
        return by_itself[0]
    rank = (killed or list(codes))[0]
    raise UserError(
        f"process {rank} (of {count}, from 0) was ended from outside, by {failures[rank].signal_name()}",
        "if nobody did that, the machine ran out of memory (fewer processes, or a smaller fit.batch_size with more "
        "fit.accumulation, need less). The same command goes on from the last whole epoch",
    )


@contextmanager
def _surroundings(count: int) -> Iterator[None]:
    """The environment that the processes inherit. What the launcher changes here is changed back, its log is silent."""
    given = {COMMAND: command_of_this_run(), _THREADS: str(max(1, count_threads() // count))}
    given = {name: value for name, value in given.items() if name not in os.environ}
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    os.environ.update(given)
    try:
        yield
    finally:
        logging.disable(disabled)
        for name in given:
            del os.environ[name]
        for number, handler in handlers.items():
            signal.signal(number, handler)
