"""The coordinator as a Node: messages in, effects out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import msgspec

from laconic.coordinator import notes
from laconic.coordinator.campaign import Campaign, Subject, update_limit_bytes
from laconic.coordinator.closing import ADVANCE
from laconic.coordinator.course import Course
from laconic.coordinator.inbox import Inbox
from laconic.coordinator.ledger import Ledger
from laconic.coordinator.orders import carry_out
from laconic.coordinator.reception import Reception
from laconic.errors import ConfigError, LaconicError, Malformed, WireError
from laconic.node import (
    Computed,
    Connected,
    Effect,
    Event,
    Note,
    Ordered,
    Received,
    Started,
    StoreView,
    Subscribe,
    Will,
    Woke,
)
from laconic.protocol import topics
from laconic.protocol.messages import Fin, Skip, State, Telemetry
from laconic.protocol.messages import decode as decode_message


class CoordinatorEngine:
    """Runs campaigns, each with a model and a cohort of its own, over one ledger. See `laconic.node.Node`."""

    def __init__(
        self,
        campaigns: Sequence[tuple[Campaign, Subject]],
        *,
        max_devices: int = 100_000,
        max_arriving_bytes: int = 256 * 2**20,
    ) -> None:
        """Raises `ConfigError` for none, or for two of one cohort: a device works for one model."""
        cohorts = [campaign.cohort for campaign, _ in campaigns]
        if not cohorts or len(set(cohorts)) < len(cohorts):
            raise ConfigError("cohorts of the campaigns", value=cohorts, limit="at least one, each once")
        self._campaigns = tuple(campaigns)
        self._max_devices = max_devices
        self._inbox = Inbox(
            update_limit_bytes=max(update_limit_bytes(subject.schema) for _, subject in campaigns),
            total_limit_bytes=max_arriving_bytes,
        )
        self._ledger: Ledger
        self.courses: dict[str, Course] = {}
        """By cohort, once the node has started."""
        self._receptions: dict[str, Reception] = {}

    # --- Node

    @property
    def will(self) -> Will | None:
        return None

    @property
    def wake_at(self) -> float | None:
        return min((c.wake_at for c in self.courses.values() if c.wake_at is not None), default=None)

    @property
    def finished(self) -> bool:
        """Whether the last round of every campaign is over."""
        return bool(self.courses) and all(c.finished for c in self.courses.values())

    @property
    def drained(self) -> bool:
        """Whether no round is open, and none will be opened in this life."""
        courses = self.courses.values()
        return bool(courses) and all(c.draining and not c.collecting and not c.advancing for c in courses)

    def handle(self, event: Event, now: float) -> Sequence[Effect]:
        effects = self._handle(event, now)
        released = [e for c, r in self._receptions.items() for e in notes.of(c, r.release(now))]
        return [*effects, *released] if released else effects

    def _handle(self, event: Event, now: float) -> Sequence[Effect]:
        match event:
            case Started(store):
                return self._start(store, now)
            case Connected():
                said = [effect for course in self.courses.values() for effect in course.offering.republish()]
                return [Subscribe((topics.EVERY_UP,)), *said]
            case Received(topic, payload):
                return self._receive(topic, payload, now)
            case Computed(job, result) if job.startswith(ADVANCE):
                cohort = job.removeprefix(ADVANCE)
                return notes.of(cohort, self.courses[cohort].closing.advanced(result, now))
            case Woke():
                due = [c for c in self.courses.items() if c[1].wake_at is not None and c[1].wake_at <= now]
                return [effect for cohort, c in due for effect in notes.of(cohort, c.timed_out(now))]
            case Ordered(order):
                return carry_out(order, self.courses, now)
            case _:
                return ()

    def _start(self, store: StoreView, now: float) -> list[Effect]:
        self._ledger = Ledger(store, max_devices=self._max_devices)
        effects: list[Effect] = []
        for campaign, subject in self._campaigns:
            course = self.courses[campaign.cohort] = Course(campaign, subject, self._ledger, store)
            self._receptions[campaign.cohort] = Reception(course, self._inbox)
            effects += notes.of(campaign.cohort, course.start(now))
        return effects

    # --- messages

    def _receive(self, topic: str, payload: bytes, now: float) -> Sequence[Effect]:
        try:
            match topics.parse(topic):
                case topics.State(device):
                    return self._state(device, decode_message(State, payload), now)
                case topics.Telemetry(device):
                    return self._telemetry(device, payload, now)
                case topics.UpdateChunk(device, update, index):
                    if self._of(device) is not None:
                        self._inbox.add(device, update, index, payload)
                    return ()
                case topics.UpdateFin(device, update):
                    reception = self._of(device, Fin, payload)
                    return _by(reception, lambda r: r.promised(device, update, payload, now))
                case topics.Skip(device):
                    reception = self._of(device, Skip, payload)
                    return _by(reception, lambda r: r.skipped(device, payload, now))
                case _:
                    raise Malformed("topic", value=topic, limit="topics of devices upwards")
        except LaconicError as e:
            return [self._dropped(topics.sender(topic), topic, e)]

    def _of(
        self, device: str, kind: type[Fin] | type[Skip] | None = None, payload: bytes = b""
    ) -> Reception | None:
        """Who takes a device's message; None if the device is another coordinator's on the same broker.

        A device that has not said whose it is belongs where the task of its message comes from.
        """
        record = self._ledger[device]
        if record.last_seen:
            return self._receptions.get(record.cohort)
        receptions = list(self._receptions.values())
        if kind is not None and len(receptions) > 1:
            with contextlib.suppress(WireError):
                task = decode_message(kind, payload).task
                return next((r for r in receptions if r.course.progress.task == task), receptions[0])
        return receptions[0]

    def _dropped(self, device: str, topic: str, error: LaconicError) -> Note:
        record = self._ledger[device]
        if record.last_seen:
            self._ledger.put(msgspec.structs.replace(record, dropped=record.dropped + 1))
        return Note(
            "dropped",
            {"device": device, "topic": topic[:200], "error": type(error).__name__, "why": str(error)},
        )

    def _state(self, device: str, state: State, now: float) -> list[Effect]:
        topics.check_name(state.cohort, "cohort")
        before = self.courses.get(self._ledger[device].cohort)
        self._ledger.seen(device, state, now)
        effects: list[Effect] = [
            Note(
                "state",
                {
                    "campaign": state.cohort,
                    "device": device,
                    "online": state.online,
                    "charge": state.charge,
                },
            )
        ]
        course = self.courses.get(state.cohort)
        if before is not None and (before is not course or not state.online):
            effects += notes.of(before.campaign.cohort, before.left(device, now))
        return effects + (notes.of(state.cohort, course.arrived(device, now)) if course is not None else [])

    def _telemetry(self, device: str, payload: bytes, now: float) -> list[Effect]:
        if self._of(device) is None:
            return []
        t = decode_message(Telemetry, payload)
        self._ledger.told(device, t, now)
        said = {"campaign": self._ledger[device].cohort, "device": device, **msgspec.structs.asdict(t)}
        return [Note("telemetry", said)]


def _by(reception: Reception | None, take: Callable[[Reception], list[Effect]]) -> list[Effect]:
    """What a campaign makes of a message; nothing if it is nobody's."""
    return [] if reception is None else notes.of(reception.course.campaign.cohort, take(reception))
