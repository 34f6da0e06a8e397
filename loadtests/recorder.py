"""What a test saw, second by second: told when it ends, written as JSON, judged by --slo."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loadtests.objective import EXIT, Judged, Objective, judge
from loadtests.samples import TAIL_NEEDS, Samples, Summary

SCHEMA = 1


@dataclass
class Recorder:
    """Collects samples from the start of a test; `started` is on the clock of time.perf_counter."""

    settings: dict[str, Any]  # as they are written into the JSON
    warm_up: float = 0.0  # seconds at the start that do not count
    objective: Objective | None = None
    out: Path | None = None
    samples: Samples = field(default_factory=Samples)
    started: float = 0.0
    begun: float = 0.0  # seconds since the epoch

    def start(self) -> None:
        """Forget what an earlier test of the same process saw."""
        self.samples, self.started, self.begun = Samples(), time.perf_counter(), time.time()

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.started

    def end(self, open_loop: bool) -> int | None:
        """Print and write what was seen; the exit code where there is an objective, or where nothing was sent."""
        summary = self.samples.after(self.warm_up)
        judged = None if self.objective is None else judge(self.objective, summary, self.samples.lag, open_loop)
        for line in self._lines(summary, judged, open_loop):
            print(line, file=sys.stderr)
        if self.out is not None:
            write_json(self.out, self._content(summary, judged, open_loop))
            print(f"written to {self.out}", file=sys.stderr)
        if judged is None:
            return None if self.samples.seconds else 1
        return EXIT[judged.verdict]

    def _lines(self, summary: Summary, judged: Judged | None, open_loop: bool) -> list[str]:
        latency = summary.latency
        since = "from when each was due" if open_loop else "from when each was sent (closed loop: waits are left out)"
        lines = [
            f"{summary.due:,} requests in {summary.seconds} s after {self.warm_up:g} s of warm-up, latency {since}"
        ]
        tail = "99th needs 10,000" if len(latency) < TAIL_NEEDS else f"p99 {latency.percentile(99):.2f}"
        if len(latency):
            shown = [f"p{percent} {latency.percentile(percent):.2f}" for percent in (50, 90, 95)]
            lines.append(f"ms: {', '.join(shown)}, {tail}, max {latency.percentile(100):.2f}")
        lines.append(
            f"{summary.goodput:.1f} right answers/s; {summary.errors.total():,} failed, {summary.error_percent:.3g} %, "
            f"of which {summary.dropped:,} were never sent"
        )
        lines += [f"  {count:,} x {why}" for why, count in summary.errors.most_common(5)]
        if open_loop and len(self.samples.lag):
            lines.append(f"the generator's own delay, p99: {self.samples.lag.percentile(99):.2f} ms")
        if judged is not None:
            lines += [judged.verdict, *(f"  {reason}" for reason in judged.reasons)]
        return lines

    def _content(self, summary: Summary, judged: Judged | None, open_loop: bool) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "begun": round(self.begun, 3),
            "loop": "open" if open_loop else "closed",
            "settings": self.settings,
            "warm_up_s": self.warm_up,
            "summary": summary.as_json(),
            "lag_p99_ms": self.samples.lag.percentile(99),
            "verdict": None if judged is None else judged.verdict,
            "cause": None if judged is None else judged.cause,
            "reasons": [] if judged is None else list(judged.reasons),
            "histogram_ms": {f"{bucket / 100:.2f}": n for bucket, n in sorted(summary.latency.counts.items())},
            "seconds": [
                {
                    "at": at,
                    "due": second.due,
                    "failed": second.errors.total(),
                    "dropped": second.dropped,
                    "p50_ms": second.answered.percentile(50),
                    "max_ms": second.answered.percentile(100),
                }
                for at, second in sorted(self.samples.seconds.items())
            ],
        }


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    partial.replace(file)
