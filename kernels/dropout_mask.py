"""Which elements dropout keeps, the same in a kernel and in plain PyTorch; nothing is stored for the backward pass.

Philox4x32 with 7 rounds, the fewest that pass all of BigCrush (Salmon et al. 2011, "Parallel random numbers: as easy as
1, 2, 3", table 2). The counter is (column // 4, row), the key the seed; the four words of a call are for four adjacent
columns, for a call an element would cost a GPU more than the memory traffic does.
"""

from __future__ import annotations

import torch

from kernels.runtime import jit, tl

ROUNDS = 7 if tl is None else tl.constexpr(7)
_KEYS = 0x9E3779B9, 0xBB67AE85
_FACTORS = 0xD2511F53, 0xCD9E8D57
_WORD = 0xFFFFFFFF


def threshold(p: float) -> int:
    """Of 2^31 equally likely values, how many are dropped."""
    return min(round(p * 2**31), 2**31 - 1)


def check_dropout(op: str, p: float, seed: torch.Tensor | None, device: torch.device) -> None:
    """ValueError for a probability outside of [0, 1), and for one above 0 without a seed, int64 [1] on `device`."""
    if not 0 <= p < 1:
        raise ValueError(f"{op}: p is {p}: expected a probability of 0 or more and below 1")
    if p == 0:
        return
    if seed is None:
        raise ValueError(f"{op}: p is {p} and seed None: expected an int64 tensor of one element")
    if seed.dtype != torch.int64 or seed.numel() != 1 or seed.device != device:
        what = f"{seed.dtype} {tuple(seed.shape)} on {seed.device}".removeprefix("torch.")
        raise ValueError(f"{op}: seed is {what}: expected int64 (1,) on {device}")


def draw_seed(device: torch.device) -> torch.Tensor:
    """A seed int64 [1] from torch's generator of `device`, so that torch.manual_seed governs dropout too."""
    return torch.randint(2**63 - 1, (1,), device=device)


def keep_mask(seed: torch.Tensor, rows: int, columns: int, p: float) -> torch.Tensor:
    """What is kept, bool [rows, columns], in plain PyTorch."""
    device = seed.device
    row = torch.arange(rows, device=device).view(-1, 1)
    quad = torch.arange((columns + 3) // 4, device=device).view(1, -1)
    zero = torch.zeros(rows, quad.shape[1], dtype=torch.int64, device=device)
    words = _philox(seed.view(()), [zero + quad, zero + (row & _WORD), zero + (row >> 32), zero])
    bits = torch.stack(words, dim=-1).view(rows, -1)[:, :columns]
    return (bits >> 1) >= threshold(p)


@jit
def kept(seed_ptr, row, first, dropped, BLOCK: tl.constexpr):
    """What is kept of the columns `first` (a multiple of 4) and on, bool [R, BLOCK]; row int64 [R]."""
    quad = first // 4 + tl.arange(0, BLOCK // 4)
    low = (row & 0xFFFFFFFF).to(tl.uint32)[:, None]
    zero = (low * 0) + (quad * 0).to(tl.uint32)[None, :]
    high = (row >> 32).to(tl.uint32)[:, None]
    a, b, c, d = tl.philox(
        tl.load(seed_ptr), zero + quad.to(tl.uint32)[None, :], zero + low, zero + high, zero, ROUNDS
    )  # uint32 [R, BLOCK // 4] each
    keep_a, keep_b = _keeps(a, dropped), _keeps(b, dropped)
    keep_c, keep_d = _keeps(c, dropped), _keeps(d, dropped)
    in_order = tl.join(tl.join(keep_a, keep_c), tl.join(keep_b, keep_d))  # [R, BLOCK // 4, 2, 2]: a b, c d
    return tl.reshape(in_order, [row.shape[0], BLOCK]) != 0


@jit
def _keeps(word, dropped):
    return ((word >> 1).to(tl.int32) >= dropped).to(tl.int8)


def _philox(seed: torch.Tensor, counter: list[torch.Tensor]) -> list[torch.Tensor]:
    """Philox4x32 of a counter of four words; a word is an int64 in [0, 2^32)."""
    c0, c1, c2, c3 = counter
    key = [seed & _WORD, (seed >> 32) & _WORD]
    for _ in range(int(getattr(ROUNDS, "value", ROUNDS))):
        (high0, low0), (high2, low2) = _product(c0, _FACTORS[0]), _product(c2, _FACTORS[1])
        c0, c1, c2, c3 = high2 ^ c1 ^ key[0], low2, high0 ^ c3 ^ key[1], low0
        key = [(word + step) & _WORD for word, step in zip(key, _KEYS, strict=True)]
    return [c0, c1, c2, c3]


def _product(word: torch.Tensor, factor: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The upper and the lower word of a product, in halves, for it may pass 2^63."""
    low = word * (factor & 0xFFFF)
    high = word * (factor >> 16) + (low >> 16)
    return high >> 16, ((high & 0xFFFF) << 16) | (low & 0xFFFF)
