"""int8-mixed: static int8, but for the few nodes that cost most in answers, which go back to floating point.

What a node costs is measured, not guessed: the graph is quantized without it and asked for the calibration items. Its
answers are paired with those of fp32: flips, and the Kullback-Leibler divergence, which tells before an answer flips.
Calibration items are the honest ones for it: no model was trained on them and no choice is made on them, while a search
on validation would choose there twice, and test must stay unseen. Labels are not looked at. What the search gained on
these items may flatter it, and so the report has its parity on validation.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from compress.quantize.config import Quantize
from compress.quantize.static import Static
from serve.predictor import OUTPUT, open_session
from serve.runner import softmax
from train.inputs import Inputs

Say = Callable[[str], None]
_BATCH = 32
_TIMED_CALLS = 30
_WORTH = 0.95  # a graph must have less than this share of the best one's divergence to be worth another float node
_HARMLESS = 1e-4  # nats: nearer to fp32 than this there is nothing that hurts, and no node is given back
_TINY = 1e-12


@dataclass(frozen=True)
class Trial:
    """One graph that was tried, against fp32 on the calibration items."""

    given_back: tuple[str, ...]  # nodes in floating point
    divergence: float  # mean KL(fp32 || this), in nats
    flips: int  # items with another label than fp32 gives
    slowdown: float  # its time at batch 1 over that of int8-static, in processor time of one thread
    model: bytes


@dataclass(frozen=True)
class Mixed:
    model: bytes
    notes: list[str]
    trace: list[dict[str, Any]]


def mix(
    fp32: bytes,
    static: Static,
    calibration: Inputs,
    config: Quantize,
    say: Say,
    clock: Callable[[], float] = time.monotonic,
) -> Mixed:
    """The best graph that the search found within config.mixed; int8-static itself if it found no better."""
    search = _Search(fp32, static, calibration, clock)
    limits = config.mixed

    def in_time() -> bool:
        return clock() - search.begun < limits.budget_seconds

    best = search.plain
    gains: dict[str, float] = {}
    for name in search.by_width():  # the likely culprits first, in case the time does not suffice for all
        if not in_time():
            break
        trial = search.attempt((name,))
        gains[name] = search.plain.divergence - trial.divergence
        best = _better(best, trial, limits.max_slowdown)
    ranked = sorted((name for name in gains if gains[name] > 0), key=lambda name: -gains[name])
    for count in range(2, min(limits.max_nodes, len(ranked)) + 1):
        if not in_time():
            break
        best = _better(best, search.attempt(tuple(ranked[:count])), limits.max_slowdown)
    note = _note(search, best, len(gains), in_time())
    say(note)
    return Mixed(best.model, [note], [search.row(trial, trial is best) for trial in search.trials])


class _Search:
    """Quantizes and measures; keeps every trial, the bytes of which are small beside the time they took."""

    def __init__(self, fp32: bytes, static: Static, calibration: Inputs, clock: Callable[[], float]) -> None:
        self.begun, self._clock = clock(), clock
        self._static, self._inputs = static, calibration
        self._expected = softmax(self._answers(fp32), temperature=1.0)
        self.trials: list[Trial] = []
        self._static_model = static.without(())
        self.plain = self._measure((), self._static_model)

    @property
    def items(self) -> int:
        return len(self._inputs)

    @property
    def seconds(self) -> float:
        return self._clock() - self.begun

    @property
    def candidates(self) -> int:
        return len(self._static.quantizable)

    def by_width(self) -> list[str]:
        """The nodes, those first whose input has the widest range for its 256 levels."""
        inputs = {node.name: node.input[0] for node in self._static.model.graph.node}
        spans = {name: float(high - low) for name, (low, high) in self._static.ranges.items()}
        return sorted(self._static.quantizable, key=lambda name: -spans.get(inputs[name], 0.0))

    def attempt(self, given_back: tuple[str, ...]) -> Trial:
        return self._measure(given_back, self._static.without(given_back))

    def _measure(self, given_back: tuple[str, ...], model: bytes) -> Trial:
        answers = softmax(self._answers(model), temperature=1.0)
        trial = Trial(
            given_back,
            divergence(self._expected, answers),
            int((answers.argmax(axis=1) != self._expected.argmax(axis=1)).sum()),
            self._slowdown(model) if given_back else 1.0,
            model,
        )
        self.trials.append(trial)
        return trial

    def _answers(self, model: bytes) -> np.ndarray:
        """Logits float32 [N, K] of the calibration items."""
        session = open_session(model, 1, "a graph of the search")
        name = session.get_inputs()[0].name
        starts = range(0, len(self._inputs), _BATCH)
        rows = [np.arange(start, min(start + _BATCH, len(self._inputs))) for start in starts]
        return np.concatenate([session.run([OUTPUT], {name: self._inputs.gather(some)})[0] for some in rows])

    def _slowdown(self, model: bytes) -> float:
        """Median time of one item over that of int8-static, in processor time of this thread: what else runs here

        does not count, and calls in turn let what is left of it fall on both.
        """
        sessions = [open_session(content, 1, "a graph of the search") for content in (self._static_model, model)]
        name = sessions[0].get_inputs()[0].name
        taken: list[list[float]] = [[], []]
        for call in range(-1, _TIMED_CALLS):  # the first is to warm up
            item = self._inputs.gather(np.array([max(call, 0) % len(self._inputs)]))
            for session, times in zip(sessions, taken, strict=True):
                before = time.thread_time()
                session.run([OUTPUT], {name: item})
                times.append(time.thread_time() - before)
        ours, theirs = (float(np.median(times[1:])) for times in reversed(taken))
        return ours / theirs

    def row(self, trial: Trial, kept: bool) -> dict[str, Any]:
        """A trial as the report shows it."""
        return {
            "given_back": list(trial.given_back),
            "divergence": trial.divergence,
            "flips": trial.flips,
            "slowdown": round(trial.slowdown, 3),
            "size_bytes": len(trial.model),
            "kept": kept,
        }


def divergence(expected: np.ndarray, answers: np.ndarray) -> float:
    """Mean Kullback-Leibler divergence of `answers` from `expected`, probabilities [N, K] each, in nats."""
    logs = np.log(np.maximum(expected, _TINY)) - np.log(np.maximum(answers, _TINY))
    return float((expected * logs).sum(axis=1).mean())


def _better(best: Trial, trial: Trial, max_slowdown: float) -> Trial:
    if best.divergence < _HARMLESS:
        return best
    worth = trial.divergence < best.divergence * _WORTH and trial.flips <= best.flips
    return trial if worth and trial.slowdown <= max_slowdown else best


def _note(search: _Search, best: Trial, ranked: int, all_done: bool) -> str:
    plain = search.plain
    effort = f"{len(search.trials)} graphs in {search.seconds:.0f} s"
    if not all_done:
        effort += f", when the time was up: {ranked} of {search.candidates} nodes were ranked"
    if best is plain:
        return f"int8-mixed found nothing worth giving back to floating point, so it is int8-static ({effort})"
    return (
        f"int8-mixed gives {len(best.given_back)} of {search.candidates} nodes back to floating point "
        f"({', '.join(best.given_back)}): on {search.items} calibration items, divergence from fp32 "
        f"{plain.divergence:.2g} -> {best.divergence:.2g}, flips {plain.flips} -> {best.flips}, "
        f"at {best.slowdown:.2f}x the time of int8-static ({effort})"
    )
