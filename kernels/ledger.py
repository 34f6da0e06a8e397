"""What became of each site of a network and of its losses: plain data, to be kept as JSON beside what was trained."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Entry:
    """One site. Times are medians of one call, forwards and, where it is trained, backwards; None: not taken."""

    site: str  # the module's name in the network
    kernel: str  # the module in kernels/
    kept: bool
    why: str
    error: float | None = (
        None  # the largest difference to the plain one over its largest value, in fp32; of gradients too
    )
    eager_ms: float | None = None
    compiled_ms: float | None = None  # by torch.compile
    fused_ms: float | None = None
    speed_up: float | None = None  # over the faster of eager and torch.compile


@dataclass(frozen=True)
class Ledger:
    """All sites of one network, on one device."""

    device: str  # the GPU's name, or "cpu"
    torch: str
    triton: str | None
    precision: str  # of the products: float32, bfloat16, float16
    entries: tuple[Entry, ...]
    why: str = ""  # what holds for the whole: why nothing was tried, or why all was taken back
    error: float | None = None  # of the whole network with what was kept, as an entry's
    failed: bool = False  # kernels failed in a step of this training: none runs in it any more, those of losses neither
    losses: tuple[Entry, ...] = ()  # what became of each loss that has a kernel, where a student is taught

    @property
    def kept(self) -> tuple[str, ...]:
        """The names of the sites that were kept, in the network."""
        return tuple(entry.site for entry in self.entries if entry.kept)

    @property
    def any_kept(self) -> bool:
        """Whether any kernel was kept, also of a loss."""
        return any(entry.kept for entry in (*self.entries, *self.losses))

    def line(self) -> str:
        """All of it in one line for a user; a loss is a site there."""
        sites = (*self.entries, *self.losses)
        kept = [entry for entry in sites if entry.kept]
        if not sites:
            return f"fused kernels: {self.why or 'no part of this network has one'}"
        if not kept:
            reasons = Counter(entry.why for entry in sites)
            why = self.why or "; ".join(f"{count} of them: {reason}" for reason, count in reasons.most_common(3))
            return f"fused kernels: none of {len(sites)} sites: {why}"
        by_kernel = Counter(entry.kernel for entry in kept)
        named = ", ".join(f"{kernel} {count}" for kernel, count in sorted(by_kernel.items()))
        gains = [entry.speed_up for entry in kept if entry.speed_up is not None]
        gain = f", {min(gains):.2f} to {max(gains):.2f} times as fast there" if gains else ", not measured"
        return f"fused kernels: {len(kept)} of {len(sites)} sites ({named}){gain}"

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, content: str) -> Ledger:
        """Read back what `to_json` wrote. Raises ValueError or TypeError for anything else."""
        fields: dict[str, Any] = json.loads(content)
        read = {name: tuple(Entry(**entry) for entry in fields.get(name, ())) for name in ("entries", "losses")}
        return cls(**{**fields, **read})
