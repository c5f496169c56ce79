"""What the figures of a run that went wrong do not say, in words."""

from __future__ import annotations

from collections.abc import Iterator

from laconic.device_sim.scenario.results import Totals
from laconic.quantities import format_hours, plural


def of(t: Totals) -> Iterator[str]:
    """For the table of runs."""
    if t.versions == 0:
        yield unmade(t)
    yield from failures(t)


def unmade(t: Totals) -> str:
    """Why there is no version, as far as is known."""
    said = f"no version was made in {format_hours(t.hours)}"
    if t.opened is None:
        return said
    if t.opened == 1:
        return f"{said}: the only round made none"
    return f"{said}: none of {t.opened} rounds made one" if t.opened else f"{said}: no round was opened"


def failures(t: Totals) -> Iterator[str]:
    """Errors that ended work, each with how often."""
    for why, times in t.failures.items():
        yield f"work that came to nothing {plural(times, 'time')}: {why}"
