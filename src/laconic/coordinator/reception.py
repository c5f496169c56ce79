"""What a campaign's devices send: promises of updates and silences, checked, entered and answered.

An update is checked, saved, and only then answered `committed`.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from laconic.compression import Piece, pieces
from laconic.coordinator import notes
from laconic.coordinator.campaign import Committed, update_limit_bytes
from laconic.coordinator.course import Course
from laconic.coordinator.inbox import Inbox
from laconic.errors import LaconicError, Malformed, RemoteProtocolError
from laconic.node import Effect, Note, Send
from laconic.protocol import topics
from laconic.protocol.identity import update_id
from laconic.protocol.messages import Ack, Fate, Fin, Skip, encode
from laconic.protocol.messages import decode as decode_message

_MAX_MISSING_NAMED = 256


class Reception:
    """Takes the reports of one campaign."""

    def __init__(self, course: Course, inbox: Inbox) -> None:
        self.course, self._ledger, self._inbox = course, course.ledger, inbox

    def promised(self, device: str, update: str, payload: bytes, now: float) -> list[Effect]:
        """A `Fin`: commit the update if all of it is here and it may be taken, and answer in any case."""
        course, record, task = self.course, self._ledger[device], ""
        if update in (record.last_update, course.book.committed.get(device)):
            self._inbox.discard(device)
            note = Note("duplicate", {"device": device, "update": update})
            return [note, _ack(device, update, Fate.COMMITTED)]
        if update == record.last_rejected:
            self._inbox.discard(device)
            return [_ack(device, update, Fate.REJECTED, why="rejected before")]
        try:
            # A promise that cannot be read is answered too: its device would repeat it for ever.
            fin = decode_message(Fin, payload)
            task = fin.task
            if not record.last_seen and task != course.progress.task:
                # Nobody has told us whose device it is, and it does not work for us: not ours to answer.
                return self._reject(device, update, _not_this_task(task, course.progress.task))[:1]
            self._ledger.admit(device)
            self._check_admissible(device, update, fin)
            if missing := self._inbox.missing(
                device, update, fin, limit_bytes=update_limit_bytes(course.schema)
            ):
                named = missing[:_MAX_MISSING_NAMED]
                return [_ack(device, update, Fate.MISSING, missing=named)]
            frame = self._inbox.take(device, fin)
            change = tuple(pieces(frame, course.schema, limit_bytes=course.dense_bytes))
            course.book.fold.check(change, fin.weight)
        except LaconicError as e:
            effects = self._reject(device, update, e)
            if task not in ("", course.progress.task):
                effects += course.tell_current(device)
            # It has answered, if badly: waiting for it would hold the round.
            return effects + (course.left(device, now) if task == course.progress.task else [])
        return self._commit(device, update, fin, frame, change, now)

    def skipped(self, device: str, payload: bytes, now: float) -> list[Effect]:
        """A device that has nothing worth sending. Raises `WireError` for a payload that is not a `Skip`."""
        course, skip = self.course, decode_message(Skip, payload)
        if not course.collecting or skip.task != course.progress.task:
            late = Note("late", {"device": device, "task": skip.task, "why": skip.why})
            return [late, *course.tell_current(device)] if self._ledger[device].last_seen else [late]
        if course.book.heard(device):
            return []
        self._ledger.admit(device)
        was_expected = device in course.book.expected
        course.book.stay_silent(device, skip.weight)
        self._ledger.timed(device, seconds=skip.seconds, samples=skip.weight)
        record = self._ledger[device]
        self._ledger.put(msgspec.structs.replace(record, skipped=record.skipped + 1, last_seen=now))
        fields = {"round": course.round.number, "device": device, **msgspec.structs.asdict(skip)}
        return [
            Note("skipped", fields),
            *course.reported(was_expected=was_expected, was_heard=False, now=now),
        ]

    def _check_admissible(self, device: str, update: str, fin: Fin) -> None:
        course = self.course
        if update != (expected := update_id(device, fin.task, fin.base, fin.sha256)):
            raise Malformed("id of an update", value=update, limit=expected)
        if not course.collecting or fin.task != course.progress.task:
            raise _not_this_task(fin.task, course.progress.task)
        current = course.registry.current.name
        if fin.base != current:
            raise RemoteProtocolError("base of an update", value=fin.base, limit=current)
        if device in course.book.committed:
            raise RemoteProtocolError(
                "second update of a device in one round", value=device, limit=course.book.committed[device]
            )

    def _reject(self, device: str, update: str, error: LaconicError) -> list[Effect]:
        self._inbox.discard(device)
        record = self._ledger[device]
        if record.last_seen:
            self._ledger.put(
                msgspec.structs.replace(record, rejected=record.rejected + 1, last_rejected=update)
            )
        fields = {"device": device, "update": update, "error": type(error).__name__, "why": str(error)}
        return [Note("rejected", fields), _ack(device, update, Fate.REJECTED, why=str(error)[:500])]

    def _commit(
        self, device: str, update: str, fin: Fin, frame: bytes, change: Sequence[Piece], now: float
    ) -> list[Effect]:
        course = self.course
        was_heard, was_expected = course.book.heard(device), device in course.book.expected
        course.book.commit(device, update, change, fin.weight)
        self._ledger.timed(device, seconds=fin.seconds, samples=fin.weight)
        record = self._ledger[device]
        self._ledger.put(
            msgspec.structs.replace(
                record,
                last_update=update,
                last_round=course.round.number,
                committed=record.committed + 1,
                last_seen=now,
            )
        )
        saved = Committed(update, device, fin.weight, frame)
        return [
            course.save({f"update/{device}": msgspec.msgpack.encode(saved)}),
            _ack(device, update, Fate.COMMITTED),
            notes.committed(course.round.number, device, update, fin, frame_bytes=len(frame)),
            *course.reported(was_expected=was_expected, was_heard=was_heard, now=now),
        ]


def _not_this_task(found: str, expected: str) -> RemoteProtocolError:
    return RemoteProtocolError("task", value=found, limit=expected, remedy="its round is over")


def _ack(device: str, update: str, fate: Fate, *, missing: Sequence[int] = (), why: str = "") -> Effect:
    return Send(topics.ack(device), encode(Ack(update, fate, list(missing), why)))
