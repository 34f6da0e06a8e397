"""Which of two graphs is faster here, for certain: both opened several times, timed in turn on the same real items.

The very same graph opened twice differs by up to 3 % for as long as its sessions live (where its weights and buffers
came to lie in memory), so a difference between two sessions proves nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort
from scipy.stats import mannwhitneyu

from compress.measure.clock import processor_clock
from serve.predictor import OUTPUT, open_session

_OPENED = 3  # sessions of each graph at a time
_GOES = 3  # at most, each with sessions of its own, where a graph seems faster and it is not certain yet
_CHANCE = 0.05  # of all of the first three being faster than all of the others, were the graphs alike: once in 20 times
_GAIN = 0.99  # a hundredth less time, or it is not worth another graph
_ROUNDS = (12, 40)  # at least, at most
_SECONDS = 1.0  # of timing, where the rounds allow it
_WARMUP = 3


@dataclass(frozen=True)
class Timed:
    """Medians of two graphs in milliseconds of a call, batch 1, 1 thread, and whether the second is surely faster."""

    before_ms: float
    after_ms: float
    rounds: int
    faster: bool


Timer = Callable[[bytes, bytes], Timed]


def time_in_turn(items: Sequence[np.ndarray], name: str, seed: int = 0) -> Timer:
    """A timer of graphs whose input is called `name`, on prepared `items` of batch 1."""

    def timed(before: bytes, after: bytes) -> Timed:
        goes: list[np.ndarray] = []
        while True:
            goes.append(_go(before, after, items, name, seed + len(goes)))
            judged = judge(goes)
            if judged.faster or len(goes) == _GOES or judged.after_ms >= _GAIN * judged.before_ms:
                return judged

    return timed


def judge(goes: Sequence[np.ndarray]) -> Timed:
    """Seconds [2, sessions, rounds] of each go. Faster is a graph whose sessions are, by more than chance.

    By the exact test of ranks of Mann and Whitney (1947) over the sessions' medians; of three sessions against three
    all must be faster. A graph that seems faster gets further goes, which makes chance a little more likely than 0.05.
    """
    medians = np.concatenate([np.median(times, axis=2) for times in goes], axis=1)  # [2, sessions of all goes]
    before, after = (float(np.median(medians[which])) for which in (0, 1))
    p = float(mannwhitneyu(medians[1], medians[0], alternative="less", method="exact").pvalue)
    rounds = sum(times.shape[2] for times in goes)
    return Timed(before * 1e3, after * 1e3, rounds, bool(p <= _CHANCE + 1e-9 and after < _GAIN * before))


def _go(before: bytes, after: bytes, items: Sequence[np.ndarray], name: str, seed: int) -> np.ndarray:
    """Seconds [2, sessions, rounds] of sessions that are gone afterwards: another graph may lie elsewhere in memory."""
    sessions = [open_session(model, 1, "a graph to be timed") for model in (before, after) for _ in range(_OPENED)]
    return _times(sessions, items, name, seed)


def _times(sessions: list[ort.InferenceSession], items: Sequence[np.ndarray], name: str, seed: int) -> np.ndarray:
    clock, random = (processor_clock() or time.perf_counter), np.random.default_rng(seed)
    once = max(_seconds(session, items[0], name, clock) for session in sessions for _ in range(_WARMUP))
    rounds = int(np.clip(_SECONDS / (once * len(sessions)), *_ROUNDS))
    times = np.empty((len(sessions), rounds))
    for round_ in range(rounds):
        item = items[int(random.integers(len(items)))]
        for at in random.permutation(len(sessions)):
            times[at, round_] = _seconds(sessions[at], item, name, clock)
    return times.reshape(2, _OPENED, rounds)


def _seconds(session: ort.InferenceSession, item: np.ndarray, name: str, clock: Callable[[], float]) -> float:
    started = clock()
    session.run([OUTPUT], {name: item})
    return clock() - started
