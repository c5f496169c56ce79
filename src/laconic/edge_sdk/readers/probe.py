"""What this machine can tell of itself, as rows: for `laconic device --probe`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from laconic.edge_sdk.readers.machine import Line, Machine
from laconic.edge_sdk.readers.sample import Reader
from laconic.edge_sdk.sensors import Origin
from laconic.transport.link import WireBytes

HEAD: Final = ("quantity", "now", "unit", "origin", "source")
_APART_S: Final = 1.0
"""Between two looks: the processor's load is what happens from one to the next."""


def probe(
    *,
    readers: Sequence[Reader] | None = None,
    board: str | None = None,
    radio: str | None = None,
    battery_wh: float | None = None,
    charge: float = 1.0,
    metered: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[list[Line], list[str]]:
    """Every quantity with its value and origin, and what readers have to say besides.

    The arguments are `Machine`'s. It asks every reader twice, a second apart, and waits for their answers.
    There is no connection, hence no bytes. Raises `ConfigError` as `Machine` does.
    """
    machine = Machine(
        lambda: WireBytes(0, 0, False),
        readers=readers,
        board=board,
        radio=radio,
        battery_wh=battery_wh,
        charge=charge,
        metered=metered,
        background=False,
    )
    sleep(_APART_S)
    machine.sample()
    lines = [line for line in machine.describe(time.time()) if not line.quantity.startswith("bytes_")]
    return lines, machine.notes()


def as_text(line: Line) -> tuple[str, str, str, str, str]:
    """A line for a table under `HEAD`."""
    value = line.value
    if value is None:
        now = "-"
    elif isinstance(value, bool):
        now = "yes" if value else "no"
    else:
        now = f"{value:.4g}"
    return line.quantity, now, line.unit, str(line.origin), line.source


def as_object(line: Line) -> dict[str, object]:
    """A line for JSON."""
    return {
        "quantity": line.quantity,
        "value": line.value,
        "unit": line.unit,
        "origin": str(line.origin),
        "source": None if line.origin is Origin.UNKNOWN else line.source,
    }
