"""What a person sees while a command runs: progress bars on a terminal, plain lines elsewhere. All on stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console as RichConsole
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from train.epochs import EpochRecord, OnEpoch


class Console:
    """Tells of stages, epochs and counts. NO_COLOR is honoured."""

    def __init__(self, quiet: bool = False) -> None:
        self._rich = RichConsole(stderr=True, highlight=False, quiet=quiet)

    def say(self, text: str) -> None:
        self._rich.print(escape(text), soft_wrap=True)

    def detail(self, text: str) -> None:
        """Something of note within a stage."""
        self._rich.print(f"  [dim]{escape(text)}[/]", soft_wrap=True)

    def stage(self, name: str, state: str, seconds: float) -> None:
        """A stage's line: when it starts, when it is done, or that nothing changed since last time."""
        if state == "started":
            self._rich.print(f"[bold]{escape(name)}[/] ...", soft_wrap=True)
        elif state == "done":
            self._rich.print(f"[bold]{escape(name)}[/] done in {seconds:.1f} s", soft_wrap=True)
        else:
            self._rich.print(f"[dim]{escape(name)} unchanged[/]", soft_wrap=True)

    @contextmanager
    def epochs(self) -> Iterator[OnEpoch]:
        """Gives a callback for the end of each epoch."""
        if not self._rich.is_terminal:
            yield self._print_epoch
            return
        with self._progress() as progress:
            task = progress.add_task("epochs", total=None)

            def show(record: EpochRecord, epochs: int) -> None:
                text = f"loss {record.loss:.4f}, validation {record.accuracy:.2%}"
                progress.update(task, completed=record.epoch, total=epochs, description=text)

            yield show

    @contextmanager
    def count(self, what: str, total: int) -> Iterator[Callable[[], None]]:
        """Gives a callback that counts one of `total`."""
        if not self._rich.is_terminal:
            yield lambda: None
            return
        with self._progress() as progress:
            task = progress.add_task(what, total=total)
            yield lambda: progress.advance(task)

    def _print_epoch(self, record: EpochRecord, epochs: int) -> None:
        self.say(
            f"  epoch {record.epoch}/{epochs}  loss {record.loss:.4f}  validation {record.accuracy:.2%}"
            f"  {record.seconds:.1f} s"
        )

    def _progress(self) -> Progress:
        columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn())
        return Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=self._rich, transient=True)
