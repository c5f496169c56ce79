"""What a campaign's devices send: promises of updates and silences, checked, entered and answered.

An update is checked, saved, and only then answered `committed`.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from laconic.compression import Piece
from laconic.coordinator import notes
from laconic.coordinator.campaign import Committed, update_limit_bytes
from laconic.coordinator.course import Course
from laconic.coordinator.inbox import Inbox
from laconic.coordinator.ledger import Answer, bookings, participation
from laconic.coordinator.staleness import discount, staleness
from laconic.errors import LaconicError, Malformed, RemoteProtocolError
from laconic.node import Effect, Note, Send
from laconic.protocol import topics
from laconic.protocol.identity import update_id
from laconic.protocol.messages import Ack, Fate, Fin, Folded, Skip, encode
from laconic.protocol.messages import decode as decode_message

_MAX_MISSING_NAMED = 256


class Reception:
    """Takes the reports of one campaign."""

    def __init__(self, course: Course, inbox: Inbox) -> None:
        self.course, self._ledger, self._inbox = course, course.ledger, inbox
        self._held_back: dict[str, tuple[str, bytes]] = {}
        """Late promises that came while a version was computed, one a device: the device would repeat it."""

    def release(self, now: float) -> list[Effect]:
        """Take the promises that were held back, once there is a round or a pause that they can count in."""
        if self.course.advancing or not self._held_back:
            return []
        waiting, self._held_back = self._held_back, {}
        return [e for name, (update, fin) in waiting.items() for e in self.promised(name, update, fin, now)]

    def promised(self, device: str, update: str, payload: bytes, now: float) -> list[Effect]:
        """A `Fin`: commit the update if all of it is here and it may be taken, and answer in any case."""
        course, record, task = self.course, self._ledger[device], ""
        if update in (record.last_update, course.book.committed.get(device)) or update in course.book.late:
            self._inbox.discard(device)
            note = Note("duplicate", {"device": device, "update": update})
            return [note, _ack(device, update, Fate.COMMITTED, folded=record.last_folded)]
        if update == record.last_rejected:
            self._inbox.discard(device)
            return [_ack(device, update, Fate.REJECTED, why="rejected before")]
        try:
            # A promise that cannot be read is answered too: its device would repeat it for ever.
            fin = decode_message(Fin, payload)
            task = fin.task
            if not record.last_seen and task != course.progress.task:
                # Nobody has told us whose device it is, and it does not work for us: not ours to answer.
                return self._reject(device, update, task, _not_this_task(task, course.progress.task))[:1]
            self._ledger.admit(device)
            late = self._admitted(device, update, fin)
            if late is not None and course.advancing:
                if fin.frame:
                    # What waits, waits in the inbox, whose memory is bounded.
                    self._inbox.add(device, update, 0, fin.frame)
                    payload = encode(msgspec.structs.replace(fin, frame=b""))
                self._held_back[device] = update, payload
                return []
            if missing := self._inbox.missing(
                device, update, fin, limit_bytes=update_limit_bytes(course.schema)
            ):
                named = missing[:_MAX_MISSING_NAMED]
                return [_ack(device, update, Fate.MISSING, missing=named)]
            frame = self._inbox.take(device, fin)
            factor = 1.0 if late is None else discount(late, course.campaign.lateness.exponent)
            change = course.pieces_of(frame, factor)
            course.book.check(device, change, fin.weight)
        except LaconicError as e:
            effects = self._reject(device, update, task, e)
            if task not in ("", course.progress.task):
                effects += course.tell_current(device)
            # It has answered, if badly: waiting for it would hold the round.
            return effects + (course.left(device, now) if task == course.progress.task else [])
        if late is not None:
            return self._commit_late(device, update, fin, frame, change, now, behind=late, factor=factor)
        return self._commit(device, update, fin, frame, change, now)

    def skipped(self, device: str, payload: bytes, now: float) -> list[Effect]:
        """A device that has nothing worth sending. Raises `WireError` for a payload that is not a `Skip`."""
        course, skip = self.course, decode_message(Skip, payload)
        on_trial = course.trials.answered(
            device,
            skip.task,
            samples=self._ledger[device].samples,
            loss=skip.loss_before,
            accuracy=skip.accuracy_before,
            now=now,
        )
        if on_trial is not None:
            return on_trial
        if not course.collecting or skip.task != course.progress.task:
            late = Note("late", {"device": device, "task": skip.task, "why": skip.why})
            return [late, *course.tell_current(device)] if self._ledger[device].last_seen else [late]
        if course.book.heard(device):
            return []
        self._ledger.admit(device)
        was_expected = device in course.book.expected
        course.book.stay_silent(device, skip.weight)
        course.custody.heard(device, skip.weight, skip.loss_before, skip.accuracy_before)
        course.tally.skipped(device, skip.why)
        self._ledger.timed(device, seconds=skip.seconds, samples=skip.weight)
        rest_until = now + skip.rest_s if skip.rest_s else 0.0
        self._ledger.answered(device, self._answer(skip.task, skip.weight, rest_until=rest_until))
        self._told(device, skip.loss_before)
        record = self._ledger[device]
        self._ledger.put(msgspec.structs.replace(record, skipped=record.skipped + 1, last_seen=now))
        fields = {"round": course.round.number, "device": device, **msgspec.structs.asdict(skip)}
        return [
            Note("skipped", fields),
            *course.reported(was_expected=was_expected, was_heard=False, now=now),
        ]

    def _admitted(self, device: str, update: str, fin: Fin) -> int | None:
        """How many versions a late update is behind; None for one of the open round.

        Raises `Malformed` or `RemoteProtocolError` for one that cannot be taken.
        """
        course = self.course
        if update != (expected := update_id(device, fin.task, fin.base, fin.sha256)):
            raise Malformed("id of an update", value=update, limit=expected)
        if course.collecting and fin.task == course.progress.task:
            if fin.base != (current := course.registry.current.name):
                raise RemoteProtocolError("base of an update", value=fin.base, limit=current)
            if device in course.book.committed:
                raise RemoteProtocolError(
                    "second update of a device in one round",
                    value=device,
                    limit=course.book.committed[device],
                )
            return None
        task = course.past_task(fin.task)
        if task is None or course.finished:
            raise _not_this_task(fin.task, course.progress.task)
        if fin.base != task.base:
            raise RemoteProtocolError("base of an update", value=fin.base, limit=task.base)
        settled = self._ledger[device].settled_round
        if task.round <= settled:
            # A message of long ago that comes again: its update has been committed or given up.
            raise RemoteProtocolError(
                "round of a late update", value=task.round, limit=f"after {settled}, which has been settled"
            )
        return staleness(task, course.registry.current.version, course.campaign.lateness)

    def _settled(self, device: str, task: str) -> int:
        """The newest round that is settled for a device once its update for `task` is."""
        course, settled = self.course, self._ledger[device].settled_round
        if course.collecting and task == course.progress.task:
            return max(settled, course.round.number)
        past = course.past_task(task)
        return settled if past is None else max(settled, past.round)

    def _reject(self, device: str, update: str, task: str, error: LaconicError) -> list[Effect]:
        self._inbox.discard(device)
        record = self._ledger[device]
        if record.last_seen:
            self.course.tally.rejected(device, str(error))
            self._ledger.put(
                msgspec.structs.replace(
                    record,
                    rejected=record.rejected + 1,
                    last_rejected=update,
                    settled_round=self._settled(device, task),
                )
            )
        fields = {"device": device, "update": update, "error": type(error).__name__, "why": str(error)}
        return [Note("rejected", fields), _ack(device, update, Fate.REJECTED, why=str(error)[:500])]

    def _commit(
        self, device: str, update: str, fin: Fin, frame: bytes, change: Sequence[Piece], now: float
    ) -> list[Effect]:
        course = self.course
        was_heard, was_expected = course.book.heard(device), device in course.book.expected
        course.book.commit(device, update, change, fin.weight)
        course.custody.heard(device, fin.weight, fin.loss_before, fin.accuracy_before)
        course.tally.committed(device, update, fin, frame_bytes=len(frame), staleness=0)
        self._enter(device, update, fin, now)
        saved = Committed(
            update,
            device,
            fin.weight,
            frame,
            course.round.number,
            fin.base,
            loss=fin.loss_before,
            accuracy=fin.accuracy_before,
        )
        return [
            course.save({f"update/{device}": msgspec.msgpack.encode(saved)}),
            _ack(device, update, Fate.COMMITTED, folded=self._ledger[device].last_folded),
            notes.committed(
                course.round.number, device, update, fin, frame_bytes=len(frame), staleness=0, discount=1.0
            ),
            *course.reported(was_expected=was_expected, was_heard=was_heard, now=now),
        ]

    def _commit_late(
        self,
        device: str,
        update: str,
        fin: Fin,
        frame: bytes,
        change: Sequence[Piece],
        now: float,
        *,
        behind: int,
        factor: float,
    ) -> list[Effect]:
        """Commit an update of a task that is over, discounted, to the round that is open or comes next."""
        course, task = self.course, self.course.past_task(fin.task)
        assert task is not None
        course.book.commit_late(device, update, change, fin.weight)
        course.tally.committed(device, update, fin, frame_bytes=len(frame), staleness=behind)
        self._enter(device, update, fin, now, factor=factor)
        saved = Committed(update, device, fin.weight, frame, task.round, fin.base, behind, factor)
        return [
            course.save({f"late/{device}/{update}": msgspec.msgpack.encode(saved)}),
            _ack(device, update, Fate.COMMITTED, folded=self._ledger[device].last_folded),
            notes.committed(
                course.round.number,
                device,
                update,
                fin,
                frame_bytes=len(frame),
                staleness=behind,
                discount=factor,
            ),
            *course.reported_late(now),
        ]

    def _answer(
        self,
        task: str,
        samples: int,
        *,
        frame: int | None = None,
        norm: float = 0.0,
        rest_until: float = 0.0,
    ) -> Answer:
        """An answer to the open task or one of the past, for the ledger."""
        past = self.course.past_task(task)
        version = self.course.registry.current.version if past is None else past.version
        epochs = self.course.campaign.training.epochs
        return Answer(task, samples, epochs, version, frame, norm, rest_until)

    def _enter(self, device: str, update: str, fin: Fin, now: float, *, factor: float = 1.0) -> None:
        """What a commit changes in the ledger."""
        self._ledger.timed(device, seconds=fin.seconds, samples=fin.weight)
        self._told(device, fin.loss_before)
        given = self._answer(fin.task, fin.weight, frame=fin.size, norm=fin.norm)
        record = self._ledger[device]
        self._ledger.put(
            bookings.answer(
                record,
                given,
                last_update=update,
                last_round=self.course.round.number,
                settled_round=self._settled(device, fin.task),
                committed=record.committed + 1,
                last_seen=now,
                last_folded=self.course.folded(factor),
            )
        )

    def _told(self, device: str, loss: float | None) -> None:
        """The loss that a device tells is what choosing goes by the next time."""
        record = self._ledger[device]
        part = participation.told(record.participation, self.course.campaign.cohort, loss)
        if part is not record.participation:
            self._ledger.put(msgspec.structs.replace(record, participation=part))


def _not_this_task(found: str, expected: str) -> RemoteProtocolError:
    limit = f"another: {expected}" if expected not in ("", found) else "none at present"
    return RemoteProtocolError("task", value=found, limit=limit, remedy="its round is over")


def _ack(
    device: str,
    update: str,
    fate: Fate,
    *,
    missing: Sequence[int] = (),
    why: str = "",
    folded: Folded | None = None,
) -> Effect:
    return Send(topics.ack(device), encode(Ack(update, fate, list(missing), why, folded)))
