"""Tiles of whole rows: R rows of C columns in one program, so that a row's sums and maxima stay in registers."""

from __future__ import annotations

import torch

from kernels.runtime import multiprocessors
from kernels.tuning import Sizes

ELEMENTS = 4096  # of a tile: 32 of a thread, as four 128-bit loads of bf16 a tensor


def block_of(columns: int) -> int:
    """The columns of a tile that holds a whole row."""
    return max(1 << (columns - 1).bit_length(), 16)


def fewer_rows(rows: int, count: int, device: torch.device) -> int:
    """`rows` of a program, or less where `count` rows are few: rather a program on every SM than many rows in one."""
    while rows > 1 and -(-count // rows) < 2 * multiprocessors(device):
        rows //= 2
    return rows


def sizes(C: int) -> Sizes:
    """The heuristic: ELEMENTS a program; a row of more with twice the threads."""
    block = block_of(C)
    return {"ROWS": max(ELEMENTS // block, 1), "num_warps": 4 if block <= ELEMENTS else 8, "num_stages": 2}


def tried(C: int) -> list[Sizes]:
    """What a search tries."""
    block = block_of(C)
    return [
        {"ROWS": max(elements // block, 1), "num_warps": warps, "num_stages": 2}
        for elements in sorted({max(each, block) for each in (1024, 2048, 4096, 8192)})
        for warps in (2, 4, 8, 16)
        if 8 <= elements // (32 * warps) <= 64
    ]
