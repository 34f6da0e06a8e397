"""The trials of a search as they come in: numbered, judged, written down at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from compress.evidence.choose import problems_of
from compress.optimize.bench import Bench, Measurement
from compress.optimize.records import Record, State, Trial, excess_of
from compress.optimize.shapes import Shape
from compress.recipe import TEACHER, Student
from serve.manifest import Precision


class Trials:
    """All trials so far; `on_trial` is told of each new one."""

    def __init__(
        self, bench: Bench, record: Record, save: Callable[[], None], on_trial: Callable[[Trial], None]
    ) -> None:
        self._bench, self._record, self._save, self._on_trial = bench, record, save, on_trial
        self.measured: dict[str, Measurement] = {}  # by id, of those that are complete
        self.students: dict[str, Student] = {}  # by name, of the same
        self._numbers = 0

    @property
    def all(self) -> list[Trial]:
        return self._record.trials

    def best(self) -> Trial | None:
        """The feasible trial that is fastest, or smallest, as the recipe prefers."""
        feasible = [trial for trial in self.all if trial.feasible]
        return min(feasible, key=self.aim, default=None)

    def aim(self, trial: Trial) -> float:
        """What is to be as small as possible."""
        by_size = self._bench.recipe.accept.prefer == "size"
        value = trial.size_bytes if by_size else trial.relative
        return float("inf") if value is None else float(value)

    def of(self, model: str) -> list[Trial]:
        return [trial for trial in self.all if trial.model == model]

    def complete(self, student: Student | None, found: Measurement, seconds: dict[str, float], epochs: int) -> Trial:
        """A package that was measured on validation. `seconds` are what its model took, if it is the first of it."""
        accept, drop, timed = self._bench.recipe.accept, found.drop, found.timed
        upper = self._bench.upper(drop)
        problems = problems_of(accept, upper, timed.latency, found.size_bytes) + list(found.problems)
        if problems and found.collapse:
            problems = [found.collapse, *problems]  # the cause before its effect
        self.measured[found.variant.id] = found
        if student is not None:
            self.students[student.name] = student
        return self._add(
            student,
            found.variant.precision,
            state="complete",
            feasible=not problems,
            why="; ".join(problems) or "within every limit on validation",
            seconds={**seconds, **found.seconds},
            epochs=epochs,
            epochs_in_all=epochs if student is None else student.fit.epochs,
            accuracy=self._bench.accuracy(found.scores),
            drop_points=drop.points,
            drop_low=drop.low,
            drop_high=drop.high,
            drop_upper=upper,
            chance=found.chance,
            p50_ms=timed.latency.total_p50,
            p95_ms=timed.latency.total_p95,
            relative=timed.relative,
            size_bytes=found.size_bytes,
            threads=timed.threads,
            graph_level=timed.graph_level,
            excess=excess_of(accept, upper, timed.latency.total_p95, found.size_bytes),
        )

    def omitted(
        self, student: Student | None, precision: Precision, why: str, seconds: dict[str, float], epochs: int
    ) -> Trial:
        """A package that was not begun. `seconds` are what its model took, if it is the first of it."""
        epochs_in_all = epochs if student is None else student.fit.epochs
        fields = {"seconds": seconds, "epochs": epochs, "epochs_in_all": epochs_in_all}
        return self._add(student, precision, state="omitted", feasible=False, why=why, **fields)

    def left(
        self,
        student: Student,
        state: State,
        why: str,
        seconds: dict[str, float],
        shape: Shape | None = None,
        epochs: int = 0,
        accuracy: float | None = None,
        precision: str = "fp32",
    ) -> Trial:
        """A student that was left before it was trained to the end."""
        fields: dict[str, Any] = {}
        if shape is not None:
            precision, timed = shape.fastest()
            fields = {
                "p50_ms": timed.latency.total_p50,
                "p95_ms": timed.latency.total_p95,
                "relative": timed.relative,
                "size_bytes": shape.sizes[precision],
                "threads": timed.threads,
                "graph_level": timed.graph_level,
                "measured_untrained": True,
            }
        return self._add(
            student,
            precision,
            state=state,
            feasible=False,
            why=why,
            seconds=seconds,
            epochs=epochs,
            epochs_in_all=student.fit.epochs,
            accuracy=accuracy,
            **fields,
        )

    def _add(self, student: Student | None, precision: str, **fields: Any) -> Trial:
        """A new trial; what was recorded of a model that was left is replaced once the model goes on."""
        model = TEACHER if student is None else student.name
        before = [trial for trial in self.of(model) if trial.state in ("stopped", "unfinished")]
        for trial in before:
            self.all.remove(trial)
        if before:
            number = before[0].number
        else:
            self._numbers += 1
            number = self._numbers
        teacher = self._bench.recipe.teacher
        trial = Trial(
            number=number,
            id=f"{model}-{precision}",
            model=model,
            source=teacher.model if student is None else student.model,
            options=teacher.options if student is None else student.options,
            precision=precision,
            **fields,
        )
        self.all.append(trial)
        self.all.sort(key=lambda one: one.number)
        self._save()
        self._on_trial(trial)
        return trial
