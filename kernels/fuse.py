"""`fuse` puts kernels into a network where they prove to be right and faster; `unfuse` takes them out again.

Each site (`sites`) is given what it gets in the network, compared with the plain operators on it (`parity`), also as it
is trained, with dropout (`dropout_parity`), and timed against them and against torch.compile (`site_timing`). What is
wrong or slower stays as it was; the ledger says why.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from kernels import dropout_parity
from kernels.ledger import Entry, Ledger
from kernels.parity import TOLERANCES, Call, as_trained, difference, in_full, outcome, site_error, still
from kernels.runtime import triton, why_not
from kernels.site_timing import Timer, Times, cuda_timer, measure
from kernels.sites import KINDS, Kind, Site, find_sites, unfuse
from kernels.verdict import chosen, described, failed

__all__ = ["FuseOptions", "fuse", "fuse_as", "left_plain", "unfuse"]

LOG = logging.getLogger("limbeck.kernels")
WHOLE_TOLERANCE = 10  # times a site's: errors of layers add up
WHOLE_ITEMS = 4  # of the batch, with which the whole network is compared
Batch = Sequence[Any] | Mapping[str, Any]
_measured: dict[tuple[Any, ...], Times] = {}  # of like sites in this process: a student has its control's shapes


@dataclass(frozen=True)
class FuseOptions:
    """How `fuse` chooses."""

    dtype: torch.dtype | None = None  # of products under autocast; None: there is none
    backward: bool = True  # the network is trained: gradients are compared and timed as well
    compiled: bool = False  # the network will run through torch.compile
    timer: Timer | None = None  # ms of a call; None: CUDA events on a GPU, and elsewhere nothing is measured
    force: bool = False  # keep what is right, without measuring it unless a timer is given
    kinds: Sequence[Kind] = field(default=KINDS)

    def timer_on(self, device: torch.device) -> Timer | None:
        """What times there; None where nothing is to be measured, or can be."""
        return self.timer or (cuda_timer if device.type == "cuda" and not self.force else None)


def fuse(network: nn.Module, batch: Batch, options: FuseOptions = FuseOptions()) -> Ledger:
    """Fuse the sites of `network` that are right on `batch` and faster than eager and torch.compile.

    `batch` are its arguments, on its device, as many items as it will get. Parameters, buffers, modes, gradients and
    torch's generators are as before. A network that is fused already is chosen for anew. The ledger has all sites.
    """
    reason = why_not(_device(network))
    if reason is not None:
        return left_plain(network, reason, options)
    sites, device = find_sites(unfuse(network), options.kinds), _device(network)
    if not sites:
        return _ledger(device, options, [])
    call = _call(batch, options.dtype)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), still(network):
        entries = _judge(network, sites, call, options)
        return _as_a_whole(network, sites, call, _ledger(device, options, entries), options.backward)


def left_plain(network: nn.Module, why: str, options: FuseOptions = FuseOptions()) -> Ledger:
    """The ledger of a network in which nothing is fused for a reason that holds for the whole; takes out what was."""
    sites = find_sites(unfuse(network), options.kinds)
    return _ledger(_device(network), options, [_entry(site, why) for site in sites], why)


def fuse_as(network: nn.Module, ledger: Ledger, kinds: Sequence[Kind] = KINDS) -> None:
    """Fuse the sites that `ledger` kept, without looking again: a training that goes on, or another process of it.

    Raises ValueError where the network has no such sites.
    """
    unfuse(network)
    sites = {site.name: site for site in find_sites(network, kinds)}
    missing = [name for name in ledger.kept if name not in sites]
    if missing:
        raise ValueError(f"the ledger keeps {missing[0]}, and the network has no such site: it is another network's")
    for name in ledger.kept:
        sites[name].fuse()


def _judge(network: nn.Module, sites: Sequence[Site], call: Call, options: FuseOptions) -> list[Entry]:
    """An entry for each site, judged while a batch passes through the network: its inputs are held by nothing else."""
    entries = {site.name: _entry(site, site.unfit or "the batch does not pass through it") for site in sites}
    with ExitStack() as hooks:
        for site in sites:
            if site.unfit is None:
                handle = site.module.register_forward_pre_hook(_judging(site, entries, call, options), with_kwargs=True)
                hooks.callback(handle.remove)
        outcome(network, call, backward=False)
    return [entries[site.name] for site in sites]


def _judging(site: Site, entries: dict[str, Entry], call: Call, options: FuseOptions) -> Any:
    """A hook that judges `site` with what it is called with, the first time."""
    done: list[bool] = []

    def judge(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        if not done:
            done.append(True)
            entries[site.name] = _judged(site, Call(args, named, call.dtype), options)

    return judge


def _judged(site: Site, call: Call, options: FuseOptions) -> Entry:
    try:
        error = _error(site, call, options.backward)
        said = error.said or (dropout_parity.complaint(site, call) if options.backward else "")
        if said:
            return _entry(site, said, error=error.value)
        times = _times(site, call, options)
    except Exception as problem:  # a kernel may fail in many ways: to compile, for memory, by what it refuses
        return _entry(site, failed(problem))
    return chosen(_entry(site, "", error=error.value), times, options.force)


@dataclass(frozen=True)
class _Error:
    value: float
    said: str  # "" where it is within the tolerance


def _error(site: Site, call: Call, backward: bool) -> _Error:
    """Of the site in full precision, and of what it will compute in."""
    parameters = [parameter.dtype for parameter in site.module.parameters() if parameter.is_floating_point()]
    own = parameters[0] if parameters else torch.float32
    full = in_full(call) if own in (torch.float32, torch.float64) else call.leaves()
    value = site_error(site.module, site.fused, full, backward)
    if value > TOLERANCES[own]:
        return _Error(value, f"it is off by {value:.1e} of the largest value, and may be by {TOLERANCES[own]:.0e}")
    if call.dtype is not None:
        narrow = site_error(site.module, site.fused, call, backward)
        if narrow > TOLERANCES[call.dtype]:
            allowed = TOLERANCES[call.dtype]
            return _Error(value, f"in {_short(call.dtype)} it is off by {narrow:.1e}, and may be by {allowed:.0e}")
    return _Error(value, "")


def _times(site: Site, call: Call, options: FuseOptions) -> Times | None:
    timer = options.timer_on(call.device)
    if timer is None:
        return None
    given = [value for value in (*call.args, *call.named.values()) if isinstance(value, torch.Tensor)]
    shapes = tuple((tuple(value.shape), value.stride(), value.dtype) for value in (*given, *site.module.parameters()))
    frozen = tuple(parameter.requires_grad for parameter in site.module.parameters())
    name = torch.cuda.get_device_name(call.device) if call.device.type == "cuda" else "cpu"
    key = (type(site.module), shapes, frozen, call.dtype, options.backward, options.compiled, name, timer)
    if key not in _measured:
        with as_trained(site.module, options.backward):
            _measured[key] = measure(site.module, site.fused, call, timer, options.backward, options.compiled)
    return _measured[key]


def _as_a_whole(network: nn.Module, sites: Sequence[Site], call: Call, ledger: Ledger, backward: bool) -> Ledger:
    """Fuse what was kept, unless together it makes another network of it than it was."""
    if not ledger.kept:
        return ledger
    few = _few(call)
    expected = outcome(network, few, backward)
    fuse_kept(sites, ledger.kept)
    parameters = next((value.dtype for value in network.parameters() if value.is_floating_point()), torch.float32)
    allowed = WHOLE_TOLERANCE * TOLERANCES[parameters]
    error: float | None = None
    try:
        error = difference(outcome(network, few, backward), expected)
        if error <= allowed:
            return dataclasses.replace(ledger, error=error)
        why = f"all together are off by {error:.1e} of the largest value, and may be by {allowed:.0e}"
    except Exception as problem:  # as of one alone
        why = f"all together failed: {described(problem)}"
    unfuse(network)
    entries = tuple(
        dataclasses.replace(entry, kept=False, why=why) if entry.kept else entry for entry in ledger.entries
    )
    return dataclasses.replace(ledger, entries=entries, why=why, error=error)


def fuse_kept(sites: Iterable[Site], names: Iterable[str]) -> None:
    """Fuse those of `sites` that are called so."""
    wanted = set(names)
    for site in sites:
        if site.name in wanted:
            site.fuse()


def _few(call: Call) -> Call:
    """A few items of the batch, in full precision."""

    def first(value: Any) -> Any:
        return value[:WHOLE_ITEMS] if isinstance(value, torch.Tensor) and value.ndim else value

    return Call(tuple(map(first, call.args)), {name: first(value) for name, value in call.named.items()})


def _call(batch: Batch, dtype: torch.dtype | None) -> Call:
    if isinstance(batch, Mapping):
        return Call((), dict(batch), dtype)
    return Call(tuple(batch), {}, dtype)


def _device(network: nn.Module) -> torch.device:
    first = next(network.parameters(), None)
    return torch.device("cpu") if first is None else first.device


def _entry(site: Site, why: str, error: float | None = None) -> Entry:
    return Entry(site=site.name, kernel=site.kind.kernel, kept=False, why=why, error=error)


def _ledger(device: torch.device, options: FuseOptions, entries: Sequence[Entry], why: str = "") -> Ledger:
    return Ledger(
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        torch=torch.__version__,
        triton=None if triton is None else triton.__version__,
        precision=_short(options.dtype or torch.get_default_dtype()),
        entries=tuple(entries),
        why=why,
    )


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
