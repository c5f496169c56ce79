"""The device's diary: what it has spent, what it may still spend, and when its day or its rest ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from laconic.budget.costs import CONNECT_BYTES, learn, message_bytes
from laconic.budget.spending import Totals, increase
from laconic.edge_sdk.accounts import Accounts, totals_of
from laconic.edge_sdk.policy import allowance_of
from laconic.edge_sdk.purse import Need, Purse, with_lost_bookings
from laconic.edge_sdk.records import Booked, Diary
from laconic.edge_sdk.sensors import Sensors
from laconic.edge_sdk.settings import DeviceSettings
from laconic.node import Effect, Save, Send, Subscribe, Unsubscribe
from laconic.protocol import topics
from laconic.protocol.messages import Allowance, Offer, encode

_FLOAT_BYTES: Final = 2 * CONNECT_BYTES
"""Booked whenever something is written down: what the link does by itself, and what is heard unasked."""
_CLOCK_S: Final = 3600.0
"""A clock that is so far behind what was written by it was wrong then, or is now."""


class Bookkeeping:
    """Keeps the diary and the purse of one device.

    The diary is saved with whatever else changes at the same moment: `diary_bytes` is its entry there.
    """

    def __init__(self, settings: DeviceSettings, sensors: Sensors) -> None:
        """Raises `ConfigError` for limits that are none."""
        self._name, self._zone, self._sensors = settings.name, settings.zone, sensors
        self._purse = Purse(
            settings.name,
            allowance_of(settings.limits),
            zone=settings.zone,
            chunk_bytes=settings.chunk_bytes,
            standing_bytes_per_s=settings.standing_bytes_per_s,
        )
        self.diary = Diary()
        self._accounts = Accounts(sensors, self.diary, settings.zone)
        self._began: Totals | None = None
        """What had been spent when the task at work was begun."""
        self._trained_on = 0
        self._covered = self._quiet = 0
        self.period_at: float | None = None
        """When the device's day ends, if it matters, or its rest."""

    def begin(self, diary: Diary, booked: Booked, now: float) -> None:
        """Go on with the diary of an earlier life; the caller saves it."""
        ahead_s = diary.written_at - now
        if ahead_s > _CLOCK_S:
            # A rest goes on for as long as it would have by the clock that it was written by.
            diary = msgspec.structs.replace(diary, rest_until=max(0.0, diary.rest_until - ahead_s))
        self.diary = with_lost_bookings(diary, booked, now, self._zone)
        self._quiet = self._total
        self._accounts = Accounts(self._sensors, self.diary, self._zone)
        self._mind_the_period(now)

    def write_down(self, **changes: Any) -> None:
        """Change fields of the diary; `diary_bytes` saves it."""
        self.diary = msgspec.structs.replace(self.diary, **changes)

    def diary_bytes(self, now: float, joules: float = 0.0) -> bytes:
        """The diary as it is saved; `joules` are about to be spent."""
        self._enter(now)
        booked = self._purse.pending(self._total) + _FLOAT_BYTES
        self._covered = self._total + booked
        self.write_down(
            booked_bytes=booked,
            booked_joules=joules,
            booked_metered=self._sensors.read(now).metered,
            written_at=now,
        )
        return msgspec.msgpack.encode(self.diary)

    def cover(self, effects: Sequence[Effect], expected_bytes: int, now: float) -> list[Effect]:
        """Before `effects` are carried out: write down what they and `expected_bytes` more may spend.

        Nothing, where what was written last holds for them too. So a loss of power finds on the disk at least
        what has been spent. A device that does not count its bytes has nothing to write down.
        """
        self._enter(now)
        if self._total == self._quiet:
            return []
        about = self._total + expected_bytes + sum(_bytes_of(effect) for effect in effects)
        if about + CONNECT_BYTES <= self._covered:
            return []
        self._covered = about + _FLOAT_BYTES
        return [Save({"booked": msgspec.msgpack.encode(Booked(self._covered))})]

    @property
    def _total(self) -> int:
        return self.diary.bytes_up + self.diary.bytes_down

    def telemetry(self, now: float) -> Effect:
        """Tell the coordinator the totals; the next ones make up for it if they are lost."""
        told = encode(self._accounts.telemetry(self.diary, now))
        return Send(topics.telemetry(self._name), told, qos=0)

    def _enter(self, now: float) -> None:
        self.diary = self._accounts.enter(self.diary, now)

    # --- means

    @property
    def terms(self) -> Allowance:
        """The allowance of the last offer."""
        return self._purse.terms

    def hear(self, offer: Offer, now: float) -> None:
        """An offer's terms hold from now on."""
        self._purse.hear(offer)
        self._mind_the_period(now)

    def affords(self, need: Need, now: float) -> bool:
        """Whether `need` can be spent, and what is set aside is left after it."""
        if not self._purse.limited:
            return True
        self._enter(now)
        return self._purse.affords(self.diary, need, metered=self._sensors.read(now).metered, now=now)

    def affords_refusal(self, now: float) -> bool:
        """Whether a skip can be paid for, with what is set aside."""
        return self._purse.affords_refusal(self.diary, metered=self._sensors.read(now).metered, now=now)

    def frame_room(self, now: float) -> int | None:
        """The longest update that can be sent now, in bytes; None for no limit."""
        return self._purse.frame_room(self.diary, metered=self._sensors.read(now).metered, now=now)

    def task_need(self, *, samples: int, down: int, fits: bool) -> Need:
        """What is ahead of a task: see `Purse.task`."""
        return self._purse.task(self.diary, samples=samples, down=down, fits=fits)

    def upload_need(self, frame_bytes: int) -> Need:
        """What it takes to send an update."""
        return self._purse.upload(self.diary, frame_bytes)

    def book(self, need: Need, now: float) -> list[Effect]:
        """Write down what is about to be spent, where it matters."""
        if not self._purse.limited:
            return []
        self.book_bytes(need.bytes)
        return [Save({"diary": self.diary_bytes(now, need.joules)})]

    def book_bytes(self, more: int) -> None:
        """So many bytes are about to be spent; the caller saves the diary."""
        self._purse.book(self.diary, more)

    # --- a task's work and cost

    def begin_work(self, task: str, joules: float, now: float) -> tuple[list[Effect], int]:
        """A task's work begins; how many times in a row it has before without coming to an end."""
        before = self.diary.begun_times if self.diary.begun == task else 0
        self.write_down(begun=task, begun_times=before + 1)
        return [Save({"diary": self.diary_bytes(now, joules)})], before

    def end_work(self) -> None:
        """It has ended; what is saved next says so."""
        self.write_down(begun="", begun_times=0)

    def begin_task(self, now: float) -> None:
        """A task is begun: what is spent from here on is its cost."""
        self._began, self._trained_on = totals_of(self._accounts.enter(self.diary, now)), 0

    def trained_on(self, samples: int) -> None:
        """Samples that the task at work has taken, epochs counted."""
        self._trained_on = samples

    def end_task(self, now: float, *, frame: int | None = None) -> None:
        """The task at work is done: what it has cost tells what the next one will.

        `frame`: bytes of its update, None if there was none.
        """
        if self._began is None:
            return
        self._enter(now)
        spent = increase(self._began, totals_of(self.diary))
        self.write_down(learnt=learn(self.diary.learnt, spent, samples=self._trained_on, frame=frame))
        self._began = None

    def settle(self) -> None:
        """No update is under way any more."""
        self._purse.settle()

    # --- days and rests

    def resting(self, now: float) -> bool:
        """Whether no offer is listened to."""
        return self.diary.rest_until > now

    def rest_s(self, now: float) -> float:
        """How long the device still rests."""
        return max(0.0, self.diary.rest_until - now)

    def rest(self, need: Need, now: float) -> float:
        """Rest until `need` can be spent again; gives that moment, and the caller saves the diary."""
        self._enter(now)
        metered = self._sensors.read(now).metered
        self.write_down(rest_until=self._purse.rests_until(self.diary, need, metered=metered, now=now))
        self._mind_the_period(now)
        return self.diary.rest_until

    def next_day(self, now: float) -> float:
        """When the device's day ends."""
        return self._purse.next_period(now)

    def new_period(self, now: float) -> bool:
        """Begin a new day, if it is time; whether a rest has ended with it, and the diary is to be saved.

        What came before it is counted to the day before.
        """
        if self.period_at is None or now < self.period_at:
            return False
        self._enter(now)
        rested = 0 < self.diary.rest_until <= now
        if rested:
            self.write_down(rest_until=0.0)
        self.period_at = None
        self._mind_the_period(now)
        return rested

    def _mind_the_period(self, now: float) -> None:
        """Wake when the day ends, where anything is counted by days, or when the rest does."""
        if self.resting(now):
            self.period_at = self.diary.rest_until
        elif self.period_at is None and self._purse.limited:
            self.period_at = self._purse.next_period(now)


def _bytes_of(effect: Effect) -> int:
    """What an effect sends, at most."""
    match effect:
        case Send(_, payload):
            return message_bytes(len(payload))
        case Subscribe(filters) | Unsubscribe(filters):
            return len(filters) * message_bytes(0)
    return 0
