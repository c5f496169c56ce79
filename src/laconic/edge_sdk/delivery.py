"""Bringing a task's answer to the coordinator: an update until its fate is known, or a skip."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from laconic.edge_sdk.backoff import Backoff
from laconic.edge_sdk.bookkeeping import Bookkeeping
from laconic.edge_sdk.learner import Learner, Measured
from laconic.edge_sdk.records import Outbox
from laconic.edge_sdk.report import promise, skip, upload
from laconic.edge_sdk.retained import Retained
from laconic.edge_sdk.settings import DeviceSettings
from laconic.edge_sdk.work import Outcome
from laconic.node import Effect, Note, Save, Send
from laconic.protocol import topics
from laconic.protocol.messages import Ack, Fate, Offer


class Delivery:
    """The outbox, and what is said of each task. What was not committed stays in the residual."""

    def __init__(
        self,
        settings: DeviceSettings,
        learner: Learner,
        backoff: Backoff,
        books: Bookkeeping,
        retained: Retained,
    ) -> None:
        self._name, self._chunk_bytes = settings.name, settings.chunk_bytes
        self._learner, self._backoff = learner, backoff
        self._books, self._retained = books, retained
        self.outbox: Outbox | None = None
        """The update that has left, or is about to."""

    def restore(self, outbox: Outbox | None, now: float) -> None:
        """Go on with what an earlier life has saved: an update that waits is announced at once."""
        self.outbox = outbox
        if outbox is not None:
            self._backoff.at = now

    # --- an update

    def send(self, offer: Offer, outcome: Outcome, frame: bytes, seconds: float, now: float) -> list[Effect]:
        """Save an update and what was learnt with it; only then does it leave."""
        need = self._books.upload_need(len(frame))
        self.outbox = promise(
            self._name, offer, outcome, frame, chunk_bytes=self._chunk_bytes, seconds=seconds
        )
        self._books.write_down(answered=offer.task, skip=b"", last_sent_bytes=len(frame))
        self._backoff.reset()
        self._backoff.arm(now)
        self._books.book_bytes(need.bytes)
        entries = {
            "outbox": msgspec.msgpack.encode(self.outbox),
            **self._retained.learnt(),
            "diary": self._books.diary_bytes(now),
        }
        note = Note("sending", {"round": offer.round, "bytes": len(frame), "norm": outcome.norm})
        return [Save(entries), *self._upload(self.outbox), note]

    def announce(self, now: float) -> list[Effect]:
        """No answer in time: promise the update again; the coordinator names the chunks that it lacks."""
        if self.outbox is None:
            return []
        if not self._books.affords(self._books.upload_need(0), now):
            return self._postpone(now)
        return self._upload(self.outbox, ())

    def awaits(self, ack: Ack) -> bool:
        """Whether an acknowledgement is of the update that waits for one."""
        return self.outbox is not None and ack.update == self.outbox.update

    def acknowledged(self, ack: Ack, now: float) -> list[Effect]:
        """The coordinator's word on the update that is awaited; its outbox is empty then, or it goes on."""
        outbox = self.outbox
        assert outbox is not None
        if ack.fate is Fate.MISSING:
            return self._send_missing(outbox, ack.missing, now)
        entries: dict[str, bytes | None] = {}
        size = len(outbox.frame)
        if ack.fate is Fate.COMMITTED:
            self._retained.settle(outbox.frame, ack.folded)
            self._books.write_down(echo=self._retained.echo_note)
            entries = self._retained.owed()
            note = Note("committed", {"round": outbox.round, "update": outbox.update, "bytes": size})
        else:
            fields = {"round": outbox.round, "update": outbox.update, "bytes": size, "why": ack.why}
            note = Note("rejected", fields)
        self.outbox = None
        self._books.settle()
        self._books.end_task(now, frame=size)
        saved = Save({"outbox": None, "diary": self._books.diary_bytes(now), **entries})
        return [saved, note, self._books.telemetry(now)]

    def _send_missing(self, outbox: Outbox, missing: Sequence[int], now: float) -> list[Effect]:
        self._backoff.arm(now)
        lacking = min(len(outbox.frame), len(missing) * self._chunk_bytes)
        need = self._books.upload_need(lacking)
        if not self._books.affords(need, now):
            return self._postpone(now)
        return [*self._books.book(need, now), *self._upload(outbox, missing)]

    def _upload(self, outbox: Outbox, indices: Sequence[int] | None = None) -> list[Effect]:
        return upload(self._name, outbox, chunk_bytes=self._chunk_bytes, indices=indices)

    def _postpone(self, now: float) -> list[Effect]:
        """The update that waits is not announced again before the next day."""
        self._backoff.at = self._books.next_day(now)
        return []

    # --- a skip

    def skip(
        self,
        offer: Offer,
        why: str,
        now: float,
        *,
        result: Outcome | Measured | None,
        seconds: float,
        rest_s: float,
    ) -> list[Effect]:
        """Say that nothing is sent, and why; what was learnt stays in the residual.

        `result` came of `seconds` of work, None if there was none; `rest_s`: how long the device now rests.
        """
        outcome = result if isinstance(result, Outcome) else None
        message = skip(
            offer,
            why,
            samples=self._learner.samples,
            outcome=outcome,
            seconds=seconds,
            rest_s=rest_s,
            measured=result if isinstance(result, Measured) else None,
        )
        self._books.write_down(answered=offer.task, skip=message)
        entries: dict[str, bytes | None] = {"diary": self._books.diary_bytes(now)}
        if outcome is not None:
            entries.update(self._retained.learnt())
        note = Note("skipped", {"round": offer.round, "why": why})
        return [Save(entries), self._skipped(message), note, self._books.telemetry(now)]

    def skip_again(self) -> list[Effect]:
        """The skip that answered the last task, if it was one: it may have been lost.

        An update announces itself until it is acknowledged.
        """
        said = self._books.diary.skip
        return [self._skipped(said)] if said else []

    def _skipped(self, message: bytes) -> Effect:
        return Send(topics.skip(self._name), message)
