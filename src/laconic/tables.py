"""Tables for people: with rich where one watches, plain columns for pipes and where rich is not installed."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from datetime import datetime

Row = Sequence[str]


def show(title: str, head: Row, rows: Sequence[Row], *, right: Sequence[int] = ()) -> None:
    """Print a table to standard output; the columns in `right` are numbers."""
    if sys.stdout.isatty():
        named = list(right) == list(range(1, len(head)))
        # Rich has a line between columns, too.
        wide = max(map(len, _lines(head, rows, right))) + len(head) - 1
        if named and wide > shutil.get_terminal_size().columns:
            # Beside its numbers a long name would stand letter by letter: each has a line to itself.
            below = iter(_lines(("", *head[1:]), [("", *row[1:]) for row in rows], right))
            print(title, next(below), sep="\n")
            for row, line in zip(rows, below, strict=True):
                print(row[0], line, sep="\n")
            return
        if _show_rich(title, head, rows, right):
            return
    print(title, *_lines(head, rows, right), sep="\n")


def _show_rich(title: str, head: Row, rows: Sequence[Row], right: Sequence[int]) -> bool:
    """Whether rich was there to print it."""
    try:
        from rich.console import Console
        from rich.table import Table
    except ModuleNotFoundError:
        return False
    table = Table(title=title, title_justify="left", show_edge=False)
    for i, name in enumerate(head):
        # A name that does not fit goes on below, and leaves numbers their place.
        number = i in right
        table.add_column(name, justify="right" if number else "left", no_wrap=number, overflow="fold")
    for row in rows:
        table.add_row(*(cell.replace("[", "\\[") for cell in row))
    Console().print(table)
    return True


def _lines(head: Row, rows: Sequence[Row], right: Sequence[int]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return [
        "  "
        + "  ".join(
            c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (head, *rows)
    ]


def number(value: float | None, digits: int = 4) -> str:
    """A measured value; "-" where it is not known."""
    return "-" if value is None else f"{value:.{digits}g}"


def share(value: float | None) -> str:
    """A part of one in per cent."""
    return "-" if value is None else f"{100 * value:.0f} %"


def size(value: float) -> str:
    """Bytes in decimal units."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 1000:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def moment(at: float | None) -> str:
    """A time by this machine's clock and zone; "-" for never."""
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S") if at else "-"


def since(at: float | None, now: float) -> str:
    """How long ago something was; "-" for never."""
    if not at:
        return "-"
    seconds = max(0.0, now - at)
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
