"""The sizes with which a kernel is launched: measured ones from `tuned/<stem>.json`, else the kernel's own heuristic.

A module declares one `Tunable` for each kernel it launches and asks it for sizes; nothing is measured or compiled
at import or at a first call (no `@triton.autotune`):

    FORWARD = Tunable("bias_gelu forward", heuristic=_sizes, candidates=_tried)
    sizes = FORWARD.sizes(x, C=columns)               # {"ROWS": 4, "BLOCK": 512, "num_warps": 4, "num_stages": 2}
    _forward_kernel[grid](..., C=columns, **sizes)
    TUNABLES = (FORWARD,)                             # what `limbeck kernels tune` searches
    FORWARD.committed("bf16", C=columns)              # each of which `builds()` gives to the ahead-of-time lane

Sizes are the kernel's constants that may change without changing its result, and `num_warps` and `num_stages`.
An entry holds for one operator, GPU architecture, dtype and bucket of shapes, each rounded up to a power of two.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

LOG = logging.getLogger("limbeck.kernels")
FOLDER = Path(__file__).resolve().parent / "tuned"
SCHEMA = 1
TRITON_NAMES = {
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.float32: "fp32",
    torch.int8: "i8",
    torch.uint8: "u8",
}

Sizes = dict[str, int]
_forced: dict[str, Sizes] = {}  # not a context variable: autograd calls backward kernels from a thread of its own


@dataclass(frozen=True)
class Entry:
    """One measured configuration."""

    op: str  # "bias_gelu forward"
    arch: int  # 90 is sm_90
    dtype: str  # as Triton names it: "bf16"
    bucket: str  # "C<=2048"
    sizes: Sizes
    gpu: str  # on which it was measured: "NVIDIA H200"
    median_us: float
    heuristic_us: float  # what the heuristic's sizes took in the same search
    versions: dict[str, str] = field(default_factory=dict)  # torch, triton, driver


@dataclass(frozen=True)
class Tunable:
    """A kernel whose sizes can be chosen. `op` begins with the stem of its module."""

    op: str
    heuristic: Callable[..., Sizes]  # dimensions by name (C=1536) to sizes
    candidates: Callable[..., list[Sizes]]  # likewise, to what a search tries; all with the heuristic's names

    @property
    def stem(self) -> str:
        return self.op.split()[0]

    def sizes(self, x: torch.Tensor, **dimensions: int) -> Sizes:
        """For a launch over `x`: what a search forces, else what was measured for its GPU, else the heuristic's."""
        if self.op in _forced:
            return _forced[self.op]
        if x.device.type != "cuda":
            return self.heuristic(**dimensions)
        return _looked_up(self, x.device, TRITON_NAMES.get(x.dtype, "fp32"), tuple(dimensions.items()))

    def committed(self, dtype: str, **dimensions: int) -> list[Sizes]:
        """Every distinct configuration that could be launched: the heuristic's, then those of the tuned file."""
        found = [self.heuristic(**dimensions)]
        for entry in read(self.stem):
            if (entry.op, entry.dtype, entry.bucket) == (self.op, dtype, bucket(dimensions)) and self._fits(entry):
                found += [entry.sizes] if entry.sizes not in found else []
        return found

    @contextmanager
    def forced(self, sizes: Sizes) -> Iterator[None]:
        """Launch with `sizes`, whatever is committed: for a search, one at a time in a process."""
        _forced[self.op] = sizes
        try:
            yield
        finally:
            del _forced[self.op]

    def entry_for(self, arch: int, gpu: str, dtype: str, dimensions: Mapping[str, int]) -> Entry | None:
        """The entry for a GPU: one measured on a GPU of that name before one of the same architecture."""
        asked = (self.op, arch, dtype, bucket(dimensions))
        fit = [entry for entry in read(self.stem) if (entry.op, entry.arch, entry.dtype, entry.bucket) == asked]
        fit = [entry for entry in fit if self._fits(entry)]
        return min(fit, key=lambda entry: entry.gpu != gpu, default=None)

    def _fits(self, entry: Entry) -> bool:
        """Whether an entry has the names that the kernel takes today; one from before a change has not."""
        known = self.heuristic(**_dimensions(entry.bucket))
        if entry.sizes.keys() == known.keys():
            return True
        _say_stale(self.op, entry.bucket, ", ".join(sorted(entry.sizes)), ", ".join(sorted(known)))
        return False


def bucket(dimensions: Mapping[str, int]) -> str:
    """The bucket of a shape: {"C": 1536} is "C<=2048"."""
    return ",".join(f"{name}<={_power(value)}" for name, value in dimensions.items())


def read(stem: str, folder: Path | None = None) -> tuple[Entry, ...]:
    """The entries of `tuned/<stem>.json`; none where there is no such file.

    Raises ValueError for a file of another schema or with a wrong entry.
    """
    return _read((folder or FOLDER) / f"{stem}.json")


def write(stem: str, entries: list[Entry], folder: Path | None = None) -> Path:
    """Write `entries` into `tuned/<stem>.json`, each in place of the one for the same op, GPU, dtype and bucket."""
    path = (folder or FOLDER) / f"{stem}.json"
    kept = {_key(entry): entry for entry in (*_read(path), *entries)}
    content = {"schema": SCHEMA, "entries": [asdict(kept[key]) for key in sorted(kept)]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
    forget()
    return path


def forget() -> None:
    """Read the files again at the next launch."""
    _read.cache_clear()
    _looked_up.cache_clear()


@functools.cache
def _read(path: Path) -> tuple[Entry, ...]:
    if not path.exists():
        return ()
    content = json.loads(path.read_text())
    if content.get("schema") != SCHEMA:
        raise ValueError(f"{path}: schema {content.get('schema')}: expected {SCHEMA}; tune again")
    try:
        entries = tuple(Entry(**entry) for entry in content["entries"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: {error}: expected entries with the fields of kernels.tuning.Entry") from error
    for entry in entries:
        if not entry.sizes or not all(isinstance(size, int) and size > 0 for size in entry.sizes.values()):
            raise ValueError(f"{path}: sizes of {entry.op} are {entry.sizes}: expected positive whole numbers")
    return entries


@functools.cache
def _looked_up(tunable: Tunable, device: torch.device, dtype: str, dimensions: tuple[tuple[str, int], ...]) -> Sizes:
    major, minor = torch.cuda.get_device_capability(device)
    gpu = torch.cuda.get_device_name(device)
    entry = tunable.entry_for(10 * major + minor, gpu, dtype, dict(dimensions))
    return entry.sizes if entry else tunable.heuristic(**dict(dimensions))


@functools.cache
def _say_stale(op: str, where: str, has: str, wants: str) -> None:
    LOG.warning(
        "tuned sizes of %s for %s are from another version (%s; expected %s): tune again", op, where, has, wants
    )


def _key(entry: Entry) -> tuple[str, int, str, str, str]:
    return entry.op, entry.arch, entry.gpu, entry.dtype, entry.bucket


def _dimensions(of: str) -> dict[str, int]:
    pairs = (part.partition("<=") for part in of.split(","))
    return {name: int(value) for name, _, value in pairs}


def _power(value: int) -> int:
    return 1 << max(value - 1, 0).bit_length()
