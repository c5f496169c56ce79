"""What of the versions lies at the broker: chunks of deltas and of full models, manifests that name them."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence

from laconic.coordinator.records import ModelRecord
from laconic.node import Effect, Send
from laconic.protocol import topics
from laconic.protocol.chunks import split
from laconic.protocol.identity import sign
from laconic.protocol.messages import Blob, Manifest, encode


def blob_of(data: bytes | None, chunk_bytes: int) -> Blob | None:
    """The reference to `data` as it is published."""
    return None if data is None else Blob(len(data), chunk_bytes, hashlib.sha256(data).digest())


def chunks(blob: Blob | None, data: bytes | None) -> Iterator[Effect]:
    """A blob's chunks, if it has any."""
    if blob is not None and data is not None:
        for i, piece in enumerate(split(data, blob.chunk_bytes)):
            yield Send(topics.blob_chunk(blob.address, i), piece, retain=True)


def oldest_on_the_way(kept: Sequence[ModelRecord]) -> int:
    """The oldest of `kept`, in order, that the deltas lead back to from the newest.

    A manifest lies under its weights' name. Where a version has the weights of an older one, as after a
    rollback, the older one's manifest has been replaced, and the way back ends after the newer one.
    """
    names: set[str] = set()
    oldest = kept[-1].version
    for record in reversed(kept):
        if record.name in names:
            break
        names.add(record.name)
        oldest = record.version
    return oldest


def manifest(record: ModelRecord, *, bundle: str, oldest: int, key: bytes | None) -> Effect:
    """The retained manifest of a version."""
    said = Manifest(
        version=record.version,
        weights=record.weights,
        bundle=bundle,
        parent=record.parent if record.delta is not None else "",
        delta=record.delta,
        full=record.full,
        oldest=oldest,
    )
    return Send(topics.manifest(record.name), encode(sign(said, key)), retain=True)


def cleared(gone: Sequence[ModelRecord], kept: Collection[ModelRecord]) -> Iterator[Effect]:
    """Take versions from the broker, but for what those that are kept have in common with them."""
    names = {r.name for r in kept}
    in_use = {b.address for r in kept for b in (r.delta, r.full) if b is not None}
    for record in gone:
        if record.name not in names:
            yield Send(topics.manifest(record.name), b"", retain=True)
        for blob in (record.delta, record.full):
            if blob is not None and blob.address not in in_use:
                for i in range(blob.chunks):
                    yield Send(topics.blob_chunk(blob.address, i), b"", retain=True)
