"""Whether a kernel stays, by what it took beside eager PyTorch and torch.compile."""

from __future__ import annotations

import dataclasses

from kernels.ledger import Entry
from kernels.site_timing import Times

WINS = 1.02  # times as fast at least: less is noise


def chosen(entry: Entry, times: Times | None, force: bool) -> Entry:
    """`entry`, of a kernel that is right, with its times and what follows from them. `force` keeps it all the same."""
    if times is None:
        why = "asked for, without a measurement" if force else "it is right, but nothing is measured on this device"
        return dataclasses.replace(entry, kept=force, why=why)
    eager = times.eager_ms / times.fused_ms
    compiled = None if times.compiled_ms is None else times.compiled_ms / times.fused_ms
    speed_up = min(eager, eager if compiled is None else compiled)
    entry = dataclasses.replace(entry, **dataclasses.asdict(times), speed_up=speed_up)
    against = f"{eager:.2f} times as fast as eager"
    against += ", torch.compile does not work here" if compiled is None else f", {compiled:.2f} times as torch.compile"
    kept = force or speed_up >= WINS
    return dataclasses.replace(entry, kept=kept, why=against if kept else f"not faster: {against}")


def failed(problem: Exception) -> str:
    """Why a kernel does not stay that raised `problem`: a kernel may fail in many ways."""
    return f"it failed: {described(problem)}"


def described(problem: Exception) -> str:
    """In one line."""
    said = str(problem).splitlines()[0] if str(problem) else "without a word"
    return f"{type(problem).__name__}: {said[:200]}"
