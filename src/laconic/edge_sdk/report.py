"""What a device answers to a task: an update with its promise, or a skip."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from laconic.edge_sdk.learner import Measured
from laconic.edge_sdk.records import Outbox
from laconic.edge_sdk.work import Outcome
from laconic.errors import WireError
from laconic.node import Effect, Send
from laconic.protocol import topics
from laconic.protocol.chunks import split
from laconic.protocol.identity import update_id
from laconic.protocol.messages import (
    MESSAGE_LIMIT_BYTES,
    Fin,
    Offer,
    Skip,
    amount,
    decode,
    encode,
    real,
    report_weight,
)


def promise(
    device: str, offer: Offer, outcome: Outcome, frame: bytes, *, chunk_bytes: int, seconds: float
) -> Outbox:
    """An update as it waits to be committed."""
    fin = Fin(
        task=offer.task,
        base=offer.model,
        size=len(frame),
        chunks=max(1, -(-len(frame) // chunk_bytes)),
        sha256=outcome.sha256,
        weight=report_weight(outcome.samples),
        norm=amount(outcome.norm),
        threshold=amount(outcome.threshold),
        loss_before=real(outcome.loss_before),
        loss_after=real(outcome.loss_after),
        seconds=amount(seconds),
        rate=outcome.rate,
        target=outcome.target,
        accuracy_before=outcome.accuracy_before,
    )
    update = update_id(device, fin.task, fin.base, fin.sha256)
    return Outbox(update, offer.task, encode(fin), frame, offer.round)


def upload(
    device: str, outbox: Outbox, *, chunk_bytes: int, indices: Iterable[int] | None = None
) -> list[Effect]:
    """The chunks at `indices` (none, to be told which are missing), then the promise.

    By default all of the update: within its promise if that is no longer than a chunk may be.
    """
    if indices is None and (full := _full(outbox, chunk_bytes)) is not None:
        return [Send(topics.update_fin(device, outbox.update), full)]
    pieces = split(outbox.frame, chunk_bytes)
    wanted = range(len(pieces)) if indices is None else sorted({i for i in indices if i < len(pieces)})
    chunks = [Send(topics.update_chunk(device, outbox.update, i), pieces[i]) for i in wanted]
    return [*chunks, Send(topics.update_fin(device, outbox.update), outbox.fin)]


def _full(outbox: Outbox, chunk_bytes: int) -> bytes | None:
    """The promise with the frame in it; None if it is too long for a message, or cannot be read."""
    most = min(chunk_bytes, MESSAGE_LIMIT_BYTES)
    if len(outbox.frame) >= most:
        return None
    try:
        full = encode(msgspec.structs.replace(decode(Fin, outbox.fin), frame=outbox.frame))
    except WireError:
        return None
    return full if len(full) <= most else None


def skip(
    offer: Offer,
    why: str,
    *,
    samples: int,
    outcome: Outcome | None,
    seconds: float,
    rest_s: float = 0.0,
    measured: Measured | None = None,
) -> bytes:
    """The message that nothing is sent, and why.

    A device that has trained weighs as much as if it had sent: its change is postponed. One that has not has
    no say in the average.
    """
    return encode(
        Skip(
            task=offer.task,
            base=offer.model,
            why=why,
            weight=0 if outcome is None else report_weight(samples),
            norm=0.0 if outcome is None else amount(outcome.norm),
            threshold=0.0 if outcome is None else amount(outcome.threshold),
            seconds=amount(seconds),
            rate=0.0 if outcome is None else outcome.rate,
            target=0.0 if outcome is None else outcome.target,
            rest_s=amount(rest_s),
            loss_before=_loss(outcome, measured),
            accuracy_before=_accuracy(outcome, measured),
        )
    )


def _loss(outcome: Outcome | None, measured: Measured | None) -> float | None:
    return real(outcome.loss_before) if outcome is not None else None if measured is None else measured.loss


def _accuracy(outcome: Outcome | None, measured: Measured | None) -> float | None:
    return outcome.accuracy_before if outcome is not None else None if measured is None else measured.accuracy
