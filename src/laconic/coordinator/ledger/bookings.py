"""What is booked when a task is offered, settled when its cost is known, released when nobody answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from laconic.budget.calendar import day_of, zone_of
from laconic.budget.costs import Cost, learn
from laconic.budget.spending import Totals
from laconic.coordinator.ledger.records import Booking, DeviceRecord, outcome

_MOST: Final = 8
"""Bookings of a device; the oldest gives way. It has one task at a time, so that two are usual."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a device has answered to a task."""

    task: str
    samples: int
    """That it trained on; 0 if it did not."""
    epochs: int
    version: int
    """Of the model that it was offered, which it holds if it trained."""
    frame: int | None = None
    """Bytes of its committed update; None for a skip."""
    norm: float = 0.0
    rest_until: float = 0.0


def book(record: DeviceRecord, task: str, cost: Cost, now: float) -> DeviceRecord:
    """The record with the cost of an offered task booked; offered again it is booked once."""
    others = [b for b in record.bookings if b.task != task]
    booking = Booking(task, now, cost.up, cost.down, cost.joules)
    return msgspec.structs.replace(record, bookings=[*others, booking][-_MOST:])


def booked(record: DeviceRecord, now: float) -> tuple[int, float]:
    """Bytes and joules that are booked for today.

    A booking of an earlier day is over: whatever came of it would have been told by now, or will count
    when the device is back.
    """
    zone = zone_of(record.zone)
    today = day_of(now, zone)
    open_today = [b for b in record.bookings if day_of(b.at, zone) == today]
    return sum(b.up + b.down for b in open_today), sum(b.joules for b in open_today)


def answer(record: DeviceRecord, given: Answer, **others: object) -> DeviceRecord:
    """The record after an answer: what is booked stays so until the next totals.

    `others`: fields besides; a record has so many that each copy counts where ten thousand answer at once.
    """
    trained = given.samples > 0
    return msgspec.structs.replace(
        record,
        **outcome(record, answered=True),
        **others,
        bookings=[
            msgspec.structs.replace(b, answered=True) if b.task == given.task else b for b in record.bookings
        ],
        trained=record.trained + given.samples * given.epochs,
        last_frame=record.last_frame if given.frame is None else given.frame,
        held_version=given.version if trained else record.held_version,
        given_samples=record.given_samples + (given.samples if given.frame is not None else 0),
        norm_sum=record.norm_sum + (given.norm if given.frame is not None else 0.0),
        rest_until=max(record.rest_until, given.rest_until),
    )


def vanish(record: DeviceRecord, task: str) -> DeviceRecord:
    """The record after a device has not answered: nothing is booked any more for the task.

    What it has spent nevertheless is in its totals when it is back.
    """
    kept = [b for b in record.bookings if b.task != task or b.answered]
    return msgspec.structs.replace(record, **outcome(record, answered=False), bookings=kept)


def settle(record: DeviceRecord, more: Totals) -> DeviceRecord:
    """The record after new totals: what has been answered is paid, and its price is learnt."""
    if not record.trained and record.last_frame is None and not any(b.answered for b in record.bookings):
        return record
    return msgspec.structs.replace(
        record,
        learnt=learn(record.learnt, more, samples=record.trained, frame=record.last_frame),
        bookings=[b for b in record.bookings if not b.answered],
        trained=0,
        last_frame=None,
    )
