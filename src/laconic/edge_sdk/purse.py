"""What this device may still spend: the owner's limits and the coordinator's allowance, checked beforehand.

A limit is kept by not beginning what could break it. At any time so much is set aside as it takes to hear one
more offer, refuse it, and stop listening; who has no more than that rests until the next day or month.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Final

import msgspec

from laconic.budget import calendar, costs
from laconic.budget.allowance import FREE, Room, limits_something, of_device, room
from laconic.budget.spending import Totals
from laconic.edge_sdk.accounts import totals_of
from laconic.edge_sdk.records import Booked, Diary
from laconic.protocol.messages import Allowance, Offer, encode

_REFUSAL_BYTES: Final = (
    costs.message_bytes(costs.SKIP_BYTES)
    + costs.message_bytes(costs.TELEMETRY_BYTES)
    + 2 * costs.message_bytes(0)
)
"""A skip, the totals, the end of two subscriptions."""
_LIFE_REST_S: Final = 366 * 86_400.0
"""How long a device rests whose limit is one of its life: a wider one is heard of after a year."""


@dataclass(frozen=True, slots=True)
class Need:
    """What something takes that is about to begin."""

    bytes: int = 0
    joules: float = 0.0


NOTHING_YET: Final = Need()


class Purse:
    """Keeps one device's limits."""

    def __init__(
        self, name: str, owner: Allowance, *, zone: str, chunk_bytes: int, standing_bytes_per_s: float
    ) -> None:
        """`standing_bytes_per_s`: what being connected costs while nothing is said."""
        self._name, self._owner, self._zone = name, owner, zone
        self._chunk_bytes, self._standing = chunk_bytes, standing_bytes_per_s
        self.terms = FREE
        """The allowance of the last offer."""
        self._offer_bytes = 512
        self._booked, self._booked_at = 0, 0

    # --- terms

    def hear(self, offer: Offer) -> None:
        """An offer's terms hold from now on."""
        self.terms = of_device(self._name, offer.allowances)
        self._offer_bytes = max(self._offer_bytes, len(encode(offer)))

    @property
    def limited(self) -> bool:
        """Whether anything limits bytes or joules."""
        return limits_something(self._owner) or limits_something(self.terms)

    # --- what is left

    def affords(self, diary: Diary, need: Need, *, metered: bool, now: float) -> bool:
        """Whether `need` can be spent, and what is set aside is left after it."""
        if not self.limited:
            return True
        left, kept = self._left(diary, metered, now), self._reserve(diary)
        return left.holds(need.bytes + kept.bytes, need.joules + kept.joules)

    def affords_refusal(self, diary: Diary, *, metered: bool, now: float) -> bool:
        """Whether a skip and what goes with it can be paid for, with what is set aside."""
        size = _REFUSAL_BYTES
        return self._left(diary, metered, now).holds(size, costs.radio_joules(diary.learnt, size, 0, 1))

    def frame_room(self, diary: Diary, *, metered: bool, now: float) -> int | None:
        """The longest update that can be sent now; None for no limit."""
        left = self._left(diary, metered, now).bytes if self.limited else inf
        if left == inf:
            return None
        return costs.frame_room(left - self._reserve(diary).bytes, self._chunk_bytes)

    def _left(self, diary: Diary, metered: bool, now: float) -> Room:
        total = diary.bytes_up + diary.bytes_down
        both = [
            room(
                a,
                diary.spent,
                totals_of(diary),
                metered=metered,
                now=now,
                zone=self._zone,
                standing_bytes_per_s=self._standing,
            )
            for a in (self._owner, self.terms)
        ]
        least = Room(min(r.bytes for r in both), min(r.joules for r in both))
        return least.less(self.pending(total), 0.0)

    def _reserve(self, diary: Diary) -> Need:
        """Two offers, a refusal with what goes with it, the end of listening, one reconnection."""
        reserve = (
            2 * costs.message_bytes(self._offer_bytes)
            + _REFUSAL_BYTES
            + costs.message_bytes(costs.ACK_BYTES)
            + costs.CONNECT_BYTES
        )
        return Need(reserve, costs.radio_joules(diary.learnt, reserve, 0, 2))

    # --- what is under way

    def book(self, diary: Diary, more_bytes: int) -> None:
        """So many bytes are about to be spent: they count as spent until they are seen to be."""
        total = diary.bytes_up + diary.bytes_down
        self._booked, self._booked_at = self.pending(total) + more_bytes, total

    def pending(self, total: int) -> int:
        """What is booked and not among the `total` of bytes yet."""
        return max(0, self._booked - (total - self._booked_at))

    def settle(self) -> None:
        """Nothing is under way any more."""
        self._booked = 0

    # --- what things take

    def upload(self, diary: Diary, frame: int) -> Need:
        """An update of `frame` bytes."""
        size = costs.upload_bytes(frame, self._chunk_bytes)
        return Need(size, costs.radio_joules(diary.learnt, size, 0, 2))

    def task(self, diary: Diary, *, samples: int, down: int, fits: bool) -> Need:
        """A task with `samples` (epochs counted) to train on and `down` bytes to fetch.

        `fits`: the update can be made as short as need be.
        """
        frame = costs.SMALLEST_FRAME_BYTES
        if not fits:
            frame = max(frame, diary.last_sent_bytes)
        cost = costs.task_cost(
            diary.learnt, samples=samples, frame=frame, chunk_bytes=self._chunk_bytes, down=down
        )
        return Need(cost.bytes, cost.joules)

    # --- rest

    def rests_until(self, diary: Diary, need: Need, *, metered: bool, now: float) -> float:
        """When `need` can be afforded again: with the next day, with the next month, or not for long."""
        zone = calendar.zone_of(self._zone)
        if calendar.quiet(now, zone, self._owner.quiet_from, self._owner.quiet_until):
            return calendar.quiet_ends(now, zone, self._owner.quiet_until)
        if calendar.quiet(now, zone, self.terms.quiet_from, self.terms.quiet_until):
            return calendar.quiet_ends(now, zone, self.terms.quiet_until)
        for later in (calendar.day_ends(now, zone), calendar.month_ends(now, zone)):
            if self.affords(diary, need, metered=metered, now=later):
                return later
        return now + _LIFE_REST_S

    def next_period(self, now: float) -> float:
        """When the device's day ends."""
        return calendar.day_ends(now, calendar.zone_of(self._zone))


def with_lost_bookings(diary: Diary, booked: Booked, now: float, zone: str) -> Diary:
    """A diary found at the start, with what was booked in the life before counted as spent.

    Whether it was is not known any more: the process ended before it could be written down.
    """
    b = max(diary.booked_bytes, booked.up_to - diary.bytes_up - diary.bytes_down)
    if b <= 0 and not diary.booked_joules:
        return diary
    lost = Totals(up=b, metered_up=b if diary.booked_metered else 0, compute=diary.booked_joules)
    return msgspec.structs.replace(
        diary,
        spent=diary.spent.add(lost, now, zone),
        lost_bytes=diary.lost_bytes + b,
        booked_bytes=0,
        booked_joules=0.0,
    )
