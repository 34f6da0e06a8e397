"""Serve a run's selection, find the highest rate that keeps the objective, and write down how."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from compress.environment import hardware, versions
from compress.loadtest.generator import Generator, on_cores, split_cores
from compress.loadtest.others import served, with_answers_of
from compress.loadtest.search import Found, Kind, Probe, Search
from compress.loadtest.split import Split
from compress.loadtest.split import lines as split_lines
from compress.report.schema import Report
from compress.report.write import read_report, write_report
from compress.rundir import write_text
from serve.errors import UserError
from serve.launch import start

RESULT = Path("loadtest") / "capacity.json"  # of the selection; of others, capacity-VARIANT.json
_SCHEMA = 1
_STEADY = 1.1  # times its fastest, the slowest search's model may take
_BODIES = {"text": ("json",), "image": ("json", "multipart", "raw")}
Say = Callable[[str], None]


@dataclass(frozen=True)
class Asked:
    """What `limbeck loadtest` was asked for."""

    objective: str  # "p99<20ms,errors<0.1%"
    at_least: float | None = None  # requests per second that must hold; None: any
    body: str | None = None  # how an item is sent; None: as text in JSON, as a raw image
    repeats: int = 3
    seconds: float | None = None  # of each window; None: as many as a 99th percentile needs
    lowest: float = 10.0  # requests per second at which a search begins
    highest: float = 100_000.0
    variant: str | None = None  # None: the run's selection


@dataclass(frozen=True)
class Capacity:
    """The result: the lowest of the searches."""

    found: tuple[Found, ...]
    asked: Asked

    @property
    def rate(self) -> float | None:
        """Requests per second; None where in one of the searches no rate held."""
        rates = [one.rate for one in self.found if one.rate is not None]
        return min(rates) if len(rates) == len(self.found) else None

    @property
    def split(self) -> Split:
        """Where the server's time went at that rate, in the search that found it."""
        return next((one.split() for one in self.found if one.rate is not None and one.rate == self.rate), {})

    @property
    def model_ms(self) -> list[float]:
        """How long the model itself took a request, in each search that found a rate."""
        splits = [one.split() for one in self.found]
        return [split["compute"].mean_ms for split in splits if "compute" in split]

    @property
    def unsteady(self) -> list[str]:
        """Said where the same work took longer in one search than in another: then the rates differ for that alone."""
        least, most = min(self.model_ms, default=1.0), max(self.model_ms, default=1.0)
        if most <= _STEADY * least:
            return []
        took = f"the model alone took {least:.2f} ms a request in one search and {most:.2f} in another"
        return [f"{took}: this machine's speed changes, by {most / least:.2f}x here, and the rates with it"]

    @property
    def unknown(self) -> bool:
        """Nothing held, and in no search was it the server's doing."""
        ours = ("generator", "evidence")
        return self.rate is None and all(one.rate is not None or one.limited_by in ours for one in self.found)

    @property
    def verdict(self) -> Literal["PASS", "FAIL", "NO VERDICT"]:
        return "PASS" if self.passed else "NO VERDICT" if self.unknown else "FAIL"

    @property
    def passed(self) -> bool:
        return self.rate is not None and (self.asked.at_least is None or self.rate >= self.asked.at_least)

    def lines(self) -> list[str]:
        """The verdict in words."""
        if self.unknown and any(one.limited_by == "evidence" for one in self.found):
            return ["NO VERDICT: a window has too few requests to show anything", too_few(self.asked.seconds)]
        if self.unknown:
            late = "the generator was late even at the lowest rate, so nothing is known of the server"
            return [f"NO VERDICT: {late}", "give the generator a core that nothing else runs on, and try again"]
        reached = ", ".join("none" if one.rate is None else f"{one.rate:.0f}" for one in self.found)
        what = "no rate keeps" if self.rate is None else f"{self.rate:.0f} requests/s keep"
        wanted = "" if self.asked.at_least is None else f", {self.asked.at_least:g} wanted"
        verdict = f"{self.verdict}: {what} {self.asked.objective}{wanted}"
        lines = [f"{verdict} (the lowest of {reached})" if len(self.found) > 1 else verdict]
        if any(one.limited_by == "generator" for one in self.found):
            lines.append("beyond it the generator was late, not the server: the server may take more")
        return [*lines, *self.unsteady, *split_lines(self.split)]


def too_few(seconds: float | None) -> str:
    """What to do where windows of `seconds`, None: as long as they may take, had too few requests."""
    if seconds is None:
        return "at so low a rate a high percentile takes too long to show: ask for a lower one"
    return "leave --seconds out, and each window takes as long as it needs"


def loadtest(folder: Path, asked: Asked, say: Say = print) -> bool:
    """Find the highest rate at which the package that `folder` selected keeps the objective; True if it is enough.

    Of another variant than the selection where `asked` names one.

    Written to loadtest/capacity.json in the run, with every rate that was tried. Raises UserError.
    """
    report = read_report(folder)
    variant = selected(folder, report) if asked.variant is None else served(report, asked.variant)
    body = body_of(report, asked.body)
    for_server, for_generator = split_cores()
    if for_generator is None:
        say("one core for both: the generator takes a part of what the server could use")
    found = []
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="limbeck-loadtest-")))
        run = with_answers_of(report, variant, folder.resolve(), scratch)
        with on_cores(for_server):
            server = stack.enter_context(start(folder / "packages" / variant))
        for repeat in range(asked.repeats):
            say(f"search {repeat + 1} of {asked.repeats}")
            generator = Generator(server.url, run, asked.objective, scratch, body, seed=1000 * repeat)
            generator.seconds, generator.cores = asked.seconds, for_generator
            found.append(Search(telling(generator, say), asked.lowest, asked.highest).run())
    capacity = Capacity(tuple(found), asked)
    content = {**_content(report, variant, body, capacity), "generator_on_its_own_core": for_generator is not None}
    out = folder / (RESULT if variant == report.selected else RESULT.with_stem(f"{RESULT.stem}-{variant}"))
    write_text(out, json.dumps(content, indent=1) + "\n")
    write_report(report, folder)  # which shows it
    for line in [*capacity.lines(), f"written to {out}; {folder / 'report.html'} shows it"]:
        say(line)
    return capacity.passed


def selected(folder: Path, report: Report) -> str:
    """The variant that a run selected. Raises UserError where it selected none."""
    if report.selected is None:
        raise UserError(f"{folder} has no selection to load: {report.verdict}", "change the recipe and run it again")
    return report.selected


def body_of(report: Report, body: str | None) -> str:
    """How items are sent: `body` where it fits the task. Raises UserError."""
    known = _BODIES[report.task]
    if body is not None and body not in known:
        raise UserError(f"--body {body}: {report.task}s are sent as {', '.join(known)}", "leave it out")
    return body or known[-1]


def telling(generator: Generator, say: Say) -> Callable[[float, Kind], Probe]:
    """Tries a rate and says what came of it."""

    def try_rate(rate: float, kind: Kind) -> Probe:
        probe = generator.try_rate(rate, kind)
        tail = "" if probe.p99_ms is None else f"  p99 {probe.p99_ms:.2f} ms"
        why = f"  {probe.reasons[0]}" if not probe.fits and probe.reasons else ""
        say(f"  {kind:<6} {rate:8.1f}/s  {'holds' if probe.fits else probe.outcome:<6}{tail}{why}")
        return probe

    return try_rate


def _content(report: Report, variant: str, body: str, capacity: Capacity) -> dict[str, Any]:
    return {
        "schema": _SCHEMA,
        "verdict": capacity.verdict,
        "requests_per_second": capacity.rate,
        "asked": asdict(capacity.asked),
        "variant": variant,
        "package_id": report.variant(variant).package_id,
        "body": body,
        "hardware": hardware(),
        "versions": versions(),
        "model_ms": capacity.model_ms,
        "time_split": {phase: asdict(part) for phase, part in capacity.split.items()},
        "searches": [asdict(one) for one in capacity.found],
    }
