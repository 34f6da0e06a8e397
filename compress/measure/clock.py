"""The clock that what else the machine does leaves alone."""

from __future__ import annotations

import time
from collections.abc import Callable

_FINE = 1e-5  # seconds: a coarser clock says nothing of calls that take fractions of a millisecond


def processor_clock() -> Callable[[], float] | None:
    """Seconds of processor time of this thread, in which all of a computation with one thread runs.

    None where a system has no such clock, or counts too coarsely.
    """
    fine = hasattr(time, "thread_time") and time.get_clock_info("thread_time").resolution < _FINE
    return time.thread_time if fine else None
