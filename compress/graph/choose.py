"""Which rewrites a graph keeps: those after which it says the same, and which are measured faster on this machine."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import onnx
from pydantic import BaseModel, ConfigDict

from compress.graph.rewrites import REWRITES, Rewrite, try_on
from compress.graph.timing import Timer
from serve.errors import said
from serve.predictor import OUTPUT, open_session
from serve.runner import softmax

SAME = 1e-5  # of a score, between fp32 graphs; the order of summation may change
_COMPARED = 32  # items are enough to see whether fp32 graphs compute the same
FLIPS = 0.01  # of the items: a quantized graph rounds anew what is a millionth of a level off


class Tried(BaseModel):
    """One rewrite that fits a graph, and what came of it. Milliseconds of a call at batch 1, 1 thread."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    what: str
    kept: bool
    why: str
    max_abs: float | None = None  # of a score, against the graph before it, in fp32
    flips: int | None = None  # items of `n` with another label than before, at the variant's precision
    n: int
    before_ms: float | None = None
    after_ms: float | None = None
    rounds: int | None = None


class Chooser:
    """Tries rewrites of one fp32 graph, whose variant `build` makes of it, on prepared real items of batch 1.

    `together` are several of them in a batch, where a graph may pad and mask: there too scores must stay.
    """

    def __init__(
        self,
        fp32: bytes,
        build: Callable[[bytes], bytes],
        items: Sequence[np.ndarray],
        name: str,
        timer: Timer,
        rewrites: Sequence[Rewrite] = REWRITES,
        together: np.ndarray | None = None,
    ) -> None:
        self._build, self._items, self._name, self._timer, self._rewrites = build, items, name, timer, rewrites
        self._together = together
        self._fp32 = onnx.load_from_string(fp32)
        self._built: bytes | None = None
        self._said: dict[str, np.ndarray] = {}  # scores of graphs, by their hash
        self.tried: list[Tried] = []

    def choose(self) -> bytes:
        """The fp32 graph with what is kept of the rewrites for it; `tried` says of each what it was worth.

        Those too small to be measured alone are tried once more all together.
        """
        small = [rewrite for rewrite in self._rewrites if self._small(rewrite.name, rewrite.what, [rewrite])]
        if len(small) > 1:
            name = "+".join(rewrite.name for rewrite in small)
            self._small(name, "what was too small alone, together", small)
        return self._fp32.SerializeToString()

    def _small(self, name: str, what: str, rewrites: Sequence[Rewrite]) -> bool:
        """Take what `rewrites` make of the graph if it is as right and faster. True where only the gain is missing.

        A graph of other tools may be one that a rewrite was never meant for: what fails is left out.
        """
        try:
            candidate = self._fp32
            for rewrite in rewrites:
                candidate = try_on(rewrite, candidate) or candidate
            return candidate is not self._fp32 and self._worse(name, what, candidate)
        except Exception as error:  # onnx, onnx_ir and onnxruntime raise dozens of kinds
            self._note(name, what, False, f"it fails on this graph: {said(error)}")
            return False

    def _worse(self, name: str, what: str, candidate: onnx.ModelProto) -> bool:
        """Take the candidate if it is as right and faster. True where it is right, and not measurably faster."""
        before, after = self._fp32.SerializeToString(), candidate.SerializeToString()
        moved = self._moved(before, after)
        if not moved <= SAME:
            self._note(name, what, False, f"it moves a score by {moved:.1e}", max_abs=moved)
            return False
        self._built = self._built or self._build(before)
        built = self._build(after)
        if self._kept(name, what, self._built, built, moved):
            self._fp32, self._built = candidate, built
            return False
        return self.tried[-1].before_ms is not None

    def _moved(self, before: bytes, after: bytes) -> float:
        """The largest change of a score of an fp32 graph: of items alone, and of several in a batch."""
        scores = [[self._scores(model, _COMPARED) for model in (before, after)]]
        if self._together is not None:
            sessions = [open_session(model, 1, "a rewritten graph") for model in (before, after)]
            logits = [session.run([OUTPUT], {self._name: self._together})[0] for session in sessions]
            scores.append([softmax(each, 1.0) for each in logits])
        return float(np.max([np.abs(ours - theirs).max() for ours, theirs in scores]))

    def _kept(self, name: str, what: str, before: bytes, after: bytes, moved: float | None) -> bool:
        labels = [self._scores(model).argmax(axis=1) for model in (before, after)]
        flips = int((labels[0] != labels[1]).sum())
        if flips > max(1, FLIPS * len(self._items)):
            self._note(name, what, False, f"{flips} of {len(self._items)} labels change", moved, flips)
            return False
        timed = self._timer(before, after)
        why = "faster" if timed.faster else "not measurably faster"
        self._note(name, what, timed.faster, why, moved, flips)
        figures = {"before_ms": timed.before_ms, "after_ms": timed.after_ms, "rounds": timed.rounds}
        self.tried[-1] = self.tried[-1].model_copy(update=figures)
        return timed.faster

    def _note(
        self, name: str, what: str, kept: bool, why: str, max_abs: float | None = None, flips: int | None = None
    ) -> None:
        tried = Tried(name=name, what=what, kept=kept, why=why, max_abs=max_abs, flips=flips, n=len(self._items))
        self.tried.append(tried)

    def _scores(self, model: bytes, count: int | None = None) -> np.ndarray:
        """float32 [items, K], one by one: what a quantized graph says may depend on a batch."""
        key = hashlib.sha256(model).hexdigest()
        if key not in self._said or len(self._said[key]) < len(self._items[:count]):
            session = open_session(model, 1, "a rewritten graph")
            logits = [session.run([OUTPUT], {self._name: item})[0] for item in self._items[:count]]
            self._said[key] = softmax(np.concatenate(logits), 1.0)
        return self._said[key][:count]


def told(tried: Sequence[Tried]) -> dict[str, str]:
    """What a report says of each rewrite, by its name."""
    return {
        one.name: (
            f"{'kept' if one.kept else 'not kept'}, "
            + (f"{one.after_ms / one.before_ms:.2f} of the time" if one.after_ms and one.before_ms else one.why)
        )
        for one in tried
    }
