"""What `limbeck doctor` asks of the machine around the installation: disk, memory shared by processes, encoding, port.

Each check gives a complaint that says how to mend it, or None. What stops a run or loses its work is a problem; what
only makes something slower, or matters to some, is a note.
"""

from __future__ import annotations

import locale
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

_GB = 1e9
_LEAST_DISK, _GOOD_DISK = 1 * _GB, 5 * _GB  # a run of MiniLM writes 2 GB while it trains: two checkpoints of a model
_GOOD_SHARED = 0.25 * _GB  # of /dev/shm; Docker gives 64 MB
_PORT = 3000  # of `limbeck serve`
_SHM = Path("/dev/shm")
DATA = "LIMBECK_DATA"

Check = Callable[[], str | None]


def disk() -> str | None:
    """A problem: no space for a run, or none that may be written to."""
    here = _existing(Path("runs"))
    if not os.access(here, os.W_OK):
        return f"{here.resolve()} may not be written to, and runs are made in it: go elsewhere, or use --out"
    for place in (here, Path(tempfile.gettempdir())):
        free = shutil.disk_usage(place).free
        if free < _LEAST_DISK:
            return f"{place.resolve()} has {_size(free)} free, and a run takes about 2 GB: {_SPACE}"
    return None


def little_disk() -> str | None:
    """A note: a run fits, several large ones do not."""
    free = shutil.disk_usage(_existing(Path("runs"))).free
    if _LEAST_DISK <= free < _GOOD_DISK:
        return f"{_size(free)} are free on this disk, enough for a run or two: {_SPACE}"
    return None


def encoding() -> str | None:
    """A problem: names and texts that are no ASCII could be neither read nor shown."""
    names = {"files": locale.getpreferredencoding(False), "the terminal": getattr(sys.stdout, "encoding", None)}
    odd = {what: name for what, name in names.items() if name and name.lower().replace("-", "") != "utf8"}
    if not odd:
        return None
    said = ", ".join(f"{name} for {what}" for what, name in odd.items())
    return f"this locale's encoding is {said}, not UTF-8: set PYTHONUTF8=1, or LANG=C.UTF-8"


def shared_memory() -> str | None:
    """A note: images that do not fit into memory are decoded by one process instead of several."""
    try:
        free = shutil.disk_usage(_SHM).free
    except OSError:
        return None if sys.platform != "linux" else f"there is no {_SHM}: {_ONE_PROCESS}"
    if free < _GOOD_SHARED:
        return f"{_SHM} has {_size(free)} free: {_ONE_PROCESS}; in Docker --shm-size=1g gives more"
    return None


def port() -> str | None:
    """A note: `limbeck serve` would have to listen elsewhere."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as a server does: a port just left is free
        try:
            probe.bind(("127.0.0.1", _PORT))
        except OSError:
            return f"port {_PORT} is in use: end what listens there, or `limbeck serve --port {_PORT + 1}`"
    return None


def data() -> str | None:
    """A note: some of limbeck's own recipes have no data; digits and a user's own files need none of it."""
    folder = Path(os.environ.get(DATA, "data"))
    if folder.is_dir():
        return None
    return (
        f"no data folder at {folder}: the recipes mnist, cifar10, sst2 and trec look there, or where {DATA} says; "
        "digits and your own files need none"
    )


def _existing(folder: Path) -> Path:
    """`folder`, or the nearest above it that is there."""
    folder = folder.absolute()
    return next(place for place in (folder, *folder.parents) if place.exists())


def _size(free: float) -> str:
    return f"{free / _GB:.1f} GB" if free >= _GB else f"{free / 1e6:.0f} MB"


_SPACE = "`limbeck clean --dry-run` shows what can be deleted"
_ONE_PROCESS = "photographs that do not fit into memory are decoded by one process while training, which is slower"
PROBLEMS: Sequence[Check] = (disk, encoding)
NOTES: Sequence[Check] = (little_disk, shared_memory, port, data)
