"""What a person sees while scenarios run: a bar with the time left, or a line for each run."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from laconic.device_sim.scenario.running import Progress, Watch
from laconic.quantities import format_hours

_EVERY_S = 0.1


class Display(Protocol):
    """Where progress goes."""

    def begin(self, label: str, number: int, of: int) -> Watch | None:
        """A run begins; what it returns is told how far the run is."""
        ...


class Lines:
    """For logs and programs: a line on standard error for each run that begins."""

    def begin(self, label: str, number: int, of: int) -> Watch | None:
        print(f"run {number} of {of}" + (f": {label}" if label else ""), file=sys.stderr, flush=True)
        return None


class _Bar:
    """For a person at a terminal."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar
        self._last = 0.0

    def begin(self, label: str, number: int, of: int) -> Watch:
        # Values alone: with its keys a sweep's label leaves no room for the bar.
        values = ", ".join(part.partition("=")[2] for part in label.split(","))
        title = f"{number}/{of} {values:.40}".strip() if of > 1 else "run"
        task = self._bar.add_task(title, total=1.0, said="")

        def watch(p: Progress) -> None:
            now = time.monotonic()
            if now - self._last < _EVERY_S:
                return
            self._last = now
            accuracy = "" if p.accuracy is None else f", accuracy {p.accuracy:.3f}"
            said = f"round {p.rounds} of {p.of_rounds}, {format_hours(p.hours)}{accuracy}"
            if p.baselines is not None:
                self._bar.update(task, completed=p.baselines / max(1, p.rounds), said="alone and pooled")
                return
            self._bar.update(task, completed=done(p), said=said)

        return watch


def done(p: Progress) -> float:
    """The share of a run that is behind it, by whatever will end it first."""
    rounds = p.rounds / p.of_rounds
    accuracy = min(1.0, (p.accuracy or 0.0) / p.of_accuracy) if p.of_accuracy else 0.0
    # Accuracy comes fast at first: it does not tell how much is left before it is nearly there.
    return min(1.0, max(rounds, p.hours / p.of_hours, accuracy**4))


@contextmanager
def display(*, watched: bool) -> Iterator[Display]:
    """Progress on standard error: a bar if a person watches and rich is installed."""
    if watched:
        try:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        except ModuleNotFoundError:
            pass
        else:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TimeElapsedColumn(),
                TextColumn("gone,"),
                TimeRemainingColumn(),
                TextColumn("left;"),
                TextColumn("{task.fields[said]}"),
            )
            with Progress(*columns, console=Console(stderr=True)) as bar:
                yield _Bar(bar)
            return
    yield Lines()
