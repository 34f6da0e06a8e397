"""The processor time that a server and all it started have had: a busy machine disturbs it less than the clock."""

from __future__ import annotations

from pathlib import Path

import psutil


def tree_seconds(pid: int) -> float:
    """Processor time of a process and its descendants so far [s], from the scheduler's nanoseconds (Linux)."""
    root = psutil.Process(pid)
    return sum(_seconds(process.pid) for process in (root, *root.children(recursive=True)))


def _seconds(pid: int) -> float:
    total = 0.0
    for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        try:
            total += int(task.read_text().split()[0]) / 1e9
        except (OSError, IndexError):  # a thread that ended meanwhile
            continue
    return total
