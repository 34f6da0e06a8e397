"""Large buffers go back to the system when they are freed."""

from __future__ import annotations

import contextlib
import ctypes

_MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of glibc's malloc.h
_LARGE_BYTES = 4 * 1024 * 1024


def give_back_large_buffers() -> None:
    """Fix the size from which glibc maps a buffer of its own, which it unmaps when it is freed.

    Left alone, glibc raises that size to 32 MB when the first large buffer is freed, and keeps later ones in each
    thread's heap: after 12 images of 32 megapixels a worker stayed at 896 MB, and with this at 144 (2 cores). Elsewhere
    than on glibc nothing is done.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)
