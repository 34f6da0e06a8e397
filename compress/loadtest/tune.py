"""`limbeck tune-serve`: the setting of a run's selection that holds the highest rate under an objective, kept in it."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from compress.environment import hardware, versions
from compress.loadtest.generator import Generator, on_cores, split_cores
from compress.loadtest.measure import Say, body_of, selected, telling, too_few
from compress.loadtest.search import Found, Search
from compress.loadtest.tuning import Trial, Tuning, shapes, told
from compress.report.write import read_report
from compress.rundir import read_about, write_text
from serve.errors import UserError
from serve.launch import start
from serve.manifest import ServingConfig
from serve.package import Package, load_package, write_serving

RESULT = Path("loadtest") / "tune-serve.json"
_SCHEMA = 1
_CORES_TO_SPARE = 4  # with so many, the generator gets one to itself
_SEARCH_SECONDS = 8.0  # of a test that only searches: what is found is confirmed in the end
_NEAR = 0.7  # of the rate that was found: where the last search, with its windows, begins


@dataclass(frozen=True)
class TuneAsked:
    """What `limbeck tune-serve` was asked for."""

    objective: str  # "p99<20ms,errors<0.1%"
    minutes: float = 20.0  # after which no further setting is tried
    body: str | None = None  # how an item is sent
    lowest: float = 10.0  # requests per second at which the first search begins
    highest: float = 100_000.0
    seconds: float | None = None  # of each window that confirms; None: as many as a 99th percentile needs


def tune_serve(folder: Path, asked: TuneAsked, say: Say = print) -> bool:
    """Find the setting, write it into the package's serving.json; False if none holds any rate.

    Every trial is in loadtest/tune-serve.json as soon as it is known; serving.json is written last. Raises UserError.
    """
    bench = _Bench.of(folder, asked, say)
    with tempfile.TemporaryDirectory(prefix="limbeck-tune-") as scratch:
        tuning = Tuning(
            measure=lambda serving, rate: bench.measure(serving, rate, Path(scratch), windows=0),
            present=bench.package.serving,
            cores=bench.cores,
            batched=bench.package.manifest.batch_invariant,
            lowest=asked.lowest,
            budget_s=60 * asked.minutes,
            tell=lambda trial: bench.keep(tuning, trial),
        )
        if not tuning.run():
            say(f"{asked.minutes:g} minutes are over: the best so far counts")
        confirmed = None
        if (best := tuning.best) is not None:
            assert best.found.rate is not None
            say(f"confirming {told(best.serving)}")
            rate = max(asked.lowest, _NEAR * best.found.rate)
            confirmed = bench.measure(best.serving, rate, Path(scratch), windows=3)
    return bench.finish(tuning, confirmed)


@dataclass
class _Bench:
    """A run's package, served with one setting after the other."""

    folder: Path
    asked: TuneAsked
    say: Say
    package: Package
    body: str
    cores: int  # of the server
    generator_alone: bool
    _searches: int = field(default=0)

    @classmethod
    def of(cls, folder: Path, asked: TuneAsked, say: Say) -> _Bench:
        """Raises UserError where there is nothing to tune."""
        report = read_report(folder)
        package = load_package(folder / "packages" / selected(folder, report))
        if os.environ.get("LIMBECK_WORKERS"):
            hint = "unset it: then the package's own setting holds"
            raise UserError("LIMBECK_WORKERS is set, and overrides what would be found", hint)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        alone = cores >= _CORES_TO_SPARE
        cores -= alone
        if len(shapes(cores)) == 1 and not package.manifest.batch_invariant:
            hint = "run it on the machine that will serve"
            raise UserError("there is nothing to tune: one core, and a package that must not be batched", hint)
        if not alone:
            say(f"the generator shares {cores} cores with the server: rates are lower than they could be")
        if read_about(folder).get("recipe", {}).get("serving") is not None:
            say("the recipe has [serving]: another `limbeck run` would write that back; take over there what is found")
        return cls(folder, asked, say, package, body_of(report, asked.body), cores, alone)

    def measure(self, serving: ServingConfig, rate: float, scratch: Path, windows: int) -> Found:
        """The highest rate from `rate` on that holds with a setting, if any."""
        self.say(f"{told(serving)}, from {rate:.1f} requests/s on")
        self._searches += 1
        place = scratch / str(self._searches)
        package = _linked(self.package.path, place / "package", serving)
        for_server, for_generator = split_cores() if self.generator_alone else (None, None)
        with on_cores(for_server), start(package) as server:
            generator = Generator(server.url, self.folder.resolve(), self.asked.objective, place, self.body)
            generator.seconds, generator.cores = self.asked.seconds, for_generator
            generator.seed, generator.most_seconds = 1000 * self._searches, _SEARCH_SECONDS
            return Search(telling(generator, self.say), rate, max(rate, self.asked.highest), windows).run()

    def keep(self, tuning: Tuning, trial: Trial) -> None:
        """Say what came of a trial, and write down all of them so far."""
        rate = trial.found.rate
        came = f"not {trial.needed:.1f} requests/s"
        if rate is not None:
            came = f"{rate:.1f} requests/s, the best so far"
        elif trial.found.limited_by == "generator":
            came = f"undecided: the generator itself cannot send {trial.needed:.1f} requests/s"
        self.say(f"  {told(trial.serving)}: {came}")
        self._write(tuning, "unfinished", None)

    def finish(self, tuning: Tuning, confirmed: Found | None) -> bool:
        """Write the result; whether there is one."""
        best, rate = tuning.best, None if confirmed is None else confirmed.rate
        if best is None or rate is None:
            self._write(tuning, "nothing held", confirmed)
            if confirmed is not None and confirmed.limited_by == "evidence":
                self.say(f"NO VERDICT: a window has too few requests to show anything; {too_few(self.asked.seconds)}")
                return False
            self.say(f"FAIL: no setting keeps {self.asked.objective}; serving.json stays as it is")
            return False
        if best.serving != self.package.serving:
            write_serving(self.package.path, best.serving)
        self._write(tuning, "complete", confirmed)
        kept = "it stays so" if best.serving == self.package.serving else f"was {told(self.package.serving)}"
        self.say(f"{told(best.serving)}: {rate:.1f} requests/s keep {self.asked.objective} ({kept})")
        if confirmed is not None and confirmed.limited_by == "generator":
            self.say("beyond it the generator was late, not the server: another setting may be as good")
        self.say(f"in {self.package.path / 'serving.json'}; what was measured in {self.folder / RESULT}")
        return True

    def _write(self, tuning: Tuning, state: str, confirmed: Found | None) -> None:
        best = tuning.best
        content: dict[str, Any] = {
            "schema": _SCHEMA,
            "state": state,
            "asked": asdict(self.asked),
            "package_id": self.package.manifest.id,
            "variant": self.package.path.name,
            "body": self.body,
            "before": self.package.serving.model_dump(mode="json"),
            "chosen": None if best is None else best.serving.model_dump(mode="json"),
            "requests_per_second": None if confirmed is None else confirmed.rate,
            "confirmed": None if confirmed is None else asdict(confirmed),
            "server_cores": self.cores,
            "generator_on_its_own_core": self.generator_alone,
            "hardware": hardware(),
            "versions": versions(),
            "trials": [trial.as_json() for trial in tuning.trials],
        }
        (self.folder / RESULT).parent.mkdir(exist_ok=True)
        write_text(self.folder / RESULT, json.dumps(content, indent=1) + "\n")


def _linked(package: Path, place: Path, serving: ServingConfig) -> Path:
    """The same package with another serving.json; its large files are links where the file system has them."""
    copy: Callable[[str, str], Any] = _link
    shutil.copytree(package, place, copy_function=copy)
    write_serving(place, serving)  # puts another file in the place of the link
    return place


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
