"""What a person sees while the demonstration runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from laconic.demo.results import DemoResult, FleetResult
from laconic.demo.watch import Progress

_ROWS = 16


class Display(Protocol):
    """Where progress goes."""

    def say(self, text: str) -> None:
        """One line: a new phase has begun."""
        ...

    def show(self, progress: Progress) -> None:
        """The state of a federated run."""
        ...


class Quiet:
    """For programs: phases on standard error, nothing else."""

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def show(self, progress: Progress) -> None:
        """Nothing to see."""


class Lines:
    """For a log: a line for each round."""

    def __init__(self) -> None:
        self._run = ""
        self._printed = 0

    def say(self, text: str) -> None:
        print(text, flush=True)

    def show(self, progress: Progress) -> None:
        if progress.name != self._run:
            self._run, self._printed = progress.name, 0
        new = progress.versions[self._printed :]
        self._printed += len(new)
        for v in new:
            b = progress.bytes_now()
            print(
                f"  {progress.name} round {v['round']:>3}: accuracy {v['accuracy']:.3f}, "
                f"{v['updates']} sent, {v['silent']} silent, {size(b.up)} up, {size(b.down)} down",
                flush=True,
            )


class Terminal:
    """For a person at a terminal: one table, renewed in place."""

    def __init__(self, console: Console, live: Live) -> None:
        self._console, self._live = console, live

    def say(self, text: str) -> None:
        self._live.update(Text(""), refresh=True)
        self._console.print(f"[bold cyan]›[/] {text}")

    def show(self, progress: Progress) -> None:
        self._live.update(_picture(progress))


@contextmanager
def display(*, as_json: bool) -> Iterator[Display]:
    """The display that fits: a program's, a log's or a person's."""
    console = Console()
    if as_json:
        yield Quiet()
    elif not console.is_terminal:
        yield Lines()
    else:
        with Live(console=console, refresh_per_second=8, transient=True) as live:
            yield Terminal(console, live)


def outcome(run: FleetResult) -> str:
    """A federated run in one line."""
    return (
        f"  {run.accuracy:.1%} on held-out digits, {size(run.bytes.up)} up and {size(run.bytes.down)} down, "
        f"{run.seconds:.0f} s"
    )


def print_summary(result: DemoResult) -> None:
    """The result in one table."""
    table = Table(title="Held-out accuracy, and what it cost the devices", title_justify="left")
    for column, justify in (("", "left"), ("accuracy", "right"), ("up", "right"), ("down", "right")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    table.add_column("joules", justify="right")
    rows = (("Laconic", result.laconic, "bold green"), ("uncompressed FedAvg", result.fedavg, ""))
    for name, run, style in rows:
        cells = (f"{run.accuracy:.1%}", size(run.bytes.up), size(run.bytes.down), f"{run.joules:.0f}")
        table.add_row(name, *cells, style=style)
    table.add_row("each device alone (mean)", f"{result.accuracy_alone:.1%}", "0 B", "0 B", "")
    table.add_row("all data in one place", f"{result.accuracy_pooled:.1%}", "all data", "", "")
    console = Console()
    console.print()
    console.print(table)
    console.print(
        f"[bold]{result.ratio:.0f}x fewer bytes[/] than uncompressed FedAvg over {result.rounds} rounds with "
        f"{result.devices} devices, in {result.seconds:.0f} s.",
        soft_wrap=True,
    )
    console.print(f"Report: {result.report}", soft_wrap=True)


def size(count: float) -> str:
    """A number of bytes for people."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def _picture(progress: Progress) -> RenderableType:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("device", "", "battery", "sent", "silent", "up", "down"):
        table.add_column(column, justify="left" if column in ("device", "") else "right")
    for name, w in list(progress.devices.items())[:_ROWS]:
        told = w.told[-1] if w.told else {"bytes_up": 0, "bytes_down": 0}
        style = "green" if w.state.startswith("sent") else "yellow" if w.state.startswith("silent") else "dim"
        battery = "" if w.charge is None else f"{w.charge:.2%}"
        cells = (str(w.committed), str(w.silent), size(told["bytes_up"]), size(told["bytes_down"]))
        table.add_row(name, Text(w.state, style=style), battery, *cells)
    if len(progress.devices) > _ROWS:
        table.add_row(f"and {len(progress.devices) - _ROWS} more", "")
    accuracy = progress.versions[-1]["accuracy"] if progress.versions else 0.0
    b = progress.bytes_now()
    head = Text.assemble(
        (f"round {progress.round} of {progress.rounds}", "bold"),
        "   accuracy ",
        (f"{accuracy:.1%}", "bold"),
        f"   {size(b.up)} up   {size(b.down)} down",
    )
    bar = ProgressBar(total=progress.rounds, completed=len(progress.versions) - 1, width=60)
    return Panel(Group(head, bar, Text(""), table), title=progress.name, title_align="left", width=96)
