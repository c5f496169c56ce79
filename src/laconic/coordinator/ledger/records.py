"""One device's page of the ledger."""

from __future__ import annotations

from typing import Final

import msgspec

from laconic.budget.costs import Learnt
from laconic.budget.spending import NOTHING, Spent, Totals, increase
from laconic.coordinator.ledger.participation import Participation
from laconic.protocol.messages import Folded

_RELIABILITY_RATE: Final = 0.05
"""Weight of the last task in the reliability, once there have been twenty."""
_NEW_S: Final = 86_400.0
"""Whose totals began within so many seconds before they were first told is new here."""


class Booking(msgspec.Struct, frozen=True, array_like=True):
    """What a task that has been offered is expected to cost, until its true cost is in the totals."""

    task: str
    at: float
    """When it was offered, seconds since 1970."""
    up: int = 0
    down: int = 0
    joules: float = 0.0
    answered: bool = False
    """Whether the device has answered; what it spent comes with its next totals."""


class DeviceRecord(msgspec.Struct, frozen=True):
    """One device's page of the ledger. Totals are over the life of the device's disk, as it reports them."""

    name: str
    cohort: str = "default"
    online: bool = False
    last_seen: float = 0.0
    samples: int = 0
    charge: float | None = None
    charging: bool = False
    metered: bool = False
    bytes_up: int = 0
    bytes_down: int = 0
    joules_compute: float = 0.0
    joules_radio: float = 0.0
    joules_measured: bool = False
    seconds_per_sample: float | None = None
    """Learnt from reports, smoothed."""
    committed: int = 0
    skipped: int = 0
    rejected: int = 0
    dropped: int = 0
    """Messages of this device that were not what the specification says."""
    last_update: str = ""
    """The update that was last committed: it may be announced again long after its round."""
    last_round: int = 0
    settled_round: int = 0
    """The newest round whose task the device has had an update committed or rejected for: a late update must
    be of a later one, so that none is ever counted twice."""
    last_rejected: str = ""
    """The update that was last rejected: its device has given it up, so it must never be committed."""
    zone: str = ""
    """Time zone as the device names it; see `laconic.budget.calendar`."""
    metered_up: int = 0
    metered_down: int = 0
    since: float = 0.0
    """When the device's totals began."""
    earlier_bytes: int = 0
    """Of totals that the device has lost with its disk."""
    earlier_joules: float = 0.0
    spent: Spent = Spent()
    """In the present day and month of the device."""
    learnt: Learnt = Learnt()
    bookings: list[Booking] = []
    trained: int = 0
    """Samples, epochs counted, that it has trained on since its last totals."""
    last_frame: int | None = None
    """Size of the update that it has sent since its last totals."""
    answered: int = 0
    """Tasks that it has answered, with an update or a skip."""
    vanished: int = 0
    """Tasks that it was expected to answer in vain."""
    reliability: float = 0.5
    """How likely it is to answer, from those two, smoothed."""
    given_samples: int = 0
    """Samples behind its committed updates."""
    norm_sum: float = 0.0
    """Of its committed updates' norms."""
    held_version: int = 0
    """The newest version that it is known to hold."""
    rest_until: float = 0.0
    """Until when it hears no offers, as it has said."""
    last_folded: Folded | None = None
    """Where the update that was last committed is folded, for the device's account of its echo."""
    participation: Participation = Participation()
    """In its cohort's campaign."""

    @property
    def totals(self) -> Totals:
        """As the device told them last."""
        return Totals(
            self.bytes_up,
            self.bytes_down,
            self.metered_up,
            self.metered_down,
            self.joules_compute,
            self.joules_radio,
            self.since,
        )

    @property
    def life(self) -> Totals:
        """What it has spent in all, with disks that it has lost; only sums are right."""
        return Totals(
            up=self.earlier_bytes + self.bytes_up,
            down=self.bytes_down,
            compute=self.earlier_joules + self.joules_compute,
            radio=self.joules_radio,
        )


def with_totals(record: DeviceRecord, totals: Totals, now: float) -> tuple[DeviceRecord, Totals]:
    """The record after the device has told its totals, and what is new in them."""
    before = record.totals
    more = increase(before, totals)
    lost = before.since > 0 and totals.since != before.since
    if before == NOTHING and now - totals.since > _NEW_S:
        # It has lived elsewhere, and what of it was today only the device knows, which keeps its limits too.
        more = NOTHING
    return (
        msgspec.structs.replace(
            record,
            bytes_up=totals.up,
            bytes_down=totals.down,
            metered_up=totals.metered_up,
            metered_down=totals.metered_down,
            joules_compute=totals.compute,
            joules_radio=totals.radio,
            since=totals.since,
            earlier_bytes=record.earlier_bytes + (before.bytes if lost else 0),
            earlier_joules=record.earlier_joules + (before.joules if lost else 0.0),
            spent=record.spent.add(more, now, record.zone),
        ),
        more,
    )


def outcome(record: DeviceRecord, *, answered: bool) -> dict[str, float]:
    """What changes in a record when one more task has been answered, or has not.

    The reliability is the mean of 1 and 0 over all tasks and one of each that never were (Laplace's rule of
    succession); after twenty, old ones are slowly forgotten.
    """
    count = record.answered + record.vanished + 1
    rate = max(1 / (count + 2), _RELIABILITY_RATE)
    return {
        "answered": record.answered + answered,
        "vanished": record.vanished + (not answered),
        "reliability": record.reliability + rate * (answered - record.reliability),
    }
