"""Where joules go: a ledger by part, and what each part's figures rest on."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import Final

import numpy as np

from laconic.profiles import Origin


class Part(IntEnum):
    """What takes energy from a host, and what gives it."""

    IDLE = 0
    """The board or phone as it does nothing."""
    USER = 1
    """What its owner does with it."""
    COMPUTE = 2
    """Above idle."""
    PROMOTION = 3
    ACTIVE = 4
    TAIL = 5
    RADIO_IDLE = 6
    SELF_DISCHARGE = 7
    CHARGED = 8
    """Into the host, battery or not: what is spent on the charger comes from it too."""


_RADIO: Final = slice(Part.PROMOTION, Part.TAIL + 1)
"""What is there for transfers."""
_SPENT: Final = slice(Part.CHARGED)
SPENT: Final = tuple(p for p in Part if p is not Part.CHARGED)


class Ledger:
    """Joules by part since the host was made."""

    __slots__ = ("joules",)

    def __init__(self) -> None:
        self.joules = array("d", bytes(8 * len(Part)))

    def add(self, part: Part, joules: float) -> None:
        """Book some."""
        self.joules[part] += joules

    def __getitem__(self, part: Part) -> float:
        return self.joules[part]

    @property
    def radio(self) -> float:
        """All that there is for transfers."""
        return sum(self.joules[_RADIO])

    @property
    def spent(self) -> float:
        """All that was taken."""
        return sum(self.joules[_SPENT])


def spent_and_worked(ledgers: Iterable[Ledger]) -> tuple[float, float]:
    """All that hosts have spent, and what of it went into computing and transfers; of one host at least.

    Added up as `Ledger` and a loop would, one after the other, for whole fleets at every version.
    """
    joules = np.frombuffer(b"".join(ledger.joules for ledger in ledgers)).reshape(-1, len(Part))
    spent = joules[:, _SPENT].cumsum(axis=1)[:, -1]
    worked = joules[:, Part.COMPUTE] + joules[:, _RADIO].cumsum(axis=1)[:, -1]
    return float(spent.cumsum()[-1]), float(worked.cumsum()[-1])


def shares(
    ledgers: Mapping[str, Ledger], origins: Mapping[str, Mapping[Part, Origin]]
) -> dict[Origin, float]:
    """Which share of what hosts have spent rests on which kind of figure; 0 everywhere if none was spent.

    A part of which nothing is said was set by the scenario: assumed.
    """
    found = dict.fromkeys(Origin, 0.0)
    for name, ledger in ledgers.items():
        for part in SPENT:
            found[origins[name].get(part, Origin.ASSUMED)] += ledger[part]
    total = sum(found.values())
    return {origin: joules / total if total else 0.0 for origin, joules in found.items()}
