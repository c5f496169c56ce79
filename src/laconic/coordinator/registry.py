"""The model registry: versions with their lineage and metrics, and what of them lies at the broker."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import msgspec
import numpy as np

from laconic.coordinator.advance import Version
from laconic.errors import StorageError
from laconic.node import Effect, Send, StoreView
from laconic.protocol import topics
from laconic.protocol.chunks import split
from laconic.protocol.identity import short, sign, weights_hash
from laconic.protocol.messages import Blob, Manifest, encode
from laconic.schema import Schema, Vector


class ModelRecord(msgspec.Struct, frozen=True):
    """One version: where it comes from and how good it is."""

    version: int
    weights: bytes
    """SHA-256 of the weights: `laconic.protocol.identity.weights_hash`."""
    parent: str
    """Short hash of the version it was computed from; "" for the first."""
    created_at: float
    delta: Blob | None = None
    """The update frame from the parent to this version; None for the first."""
    full: Blob | None = None
    """The whole model as a frame, for one version in every few: see `Registry.full_every`."""
    round: int = 0
    updates: int = 0
    silent: int = 0
    samples: int = 0
    loss: float | None = None
    accuracy: float | None = None

    @property
    def name(self) -> str:
        """The short hash by which the version is offered."""
        return short(self.weights)


class Registry:
    """All versions' records; the newest version's weights and the server's residual in memory."""

    def __init__(
        self,
        store: StoreView,
        schema: Schema,
        *,
        bundle: str,
        key: bytes | None,
        chunk_bytes: int,
        keep_versions: int,
    ) -> None:
        """Restore from `store`. Raises `StorageError` when what it holds is damaged or of another bundle."""
        self._store, self._schema, self._bundle, self._key = store, schema, bundle, key
        self._chunk_bytes, self._keep = chunk_bytes, keep_versions
        self._records = {r.version: r for r in _records(store)}
        if self._records and store.get("bundle") != bundle.encode():
            raise StorageError(
                "bundle of the store",
                value=(store.get("bundle") or b"none").decode(errors="replace"),
                limit=bundle,
                remedy="start with the bundle that this store was made with, or with a new store",
            )
        # What is kept is what the store still has: the setting may have been another when it was written.
        self._held = {int(key.rsplit("/", 1)[1]) for key in store.keys("weights/")}
        self._gone: list[ModelRecord] = []
        self.weights = self.residual = np.zeros(schema.size, np.float32)
        if self._records:
            self.weights = self._vector(f"weights/{self.current.version:08d}")
            self.residual = self._vector("server-residual")
            if weights_hash(self.weights, schema) != self.current.weights:
                raise StorageError(
                    f"weights of version {self.current.version} are damaged, or of another bundle",
                    remedy="start with the bundle that this store was made with, or restore the store",
                )

    @property
    def full_every(self) -> int:
        """One version in so many is published whole too: there is always one, as a rule two, among the kept.

        Whoever is further behind than the deltas are worth fetches the newest of them and the deltas since.
        """
        return (self._keep + 1) // 2

    def wants_full(self) -> bool:
        """Whether the version after the newest is to be kept whole."""
        return (self.current.version + 1) % self.full_every == 0

    @property
    def empty(self) -> bool:
        """Whether there is no version yet."""
        return not self._records

    @property
    def current(self) -> ModelRecord:
        """The newest version."""
        return self._records[max(self._records)]

    @property
    def began_at(self) -> float:
        """When the first version was made, in seconds since 1970."""
        return self._records[min(self._records)].created_at

    def add(
        self, computed: Version, now: float, *, round_number: int, updates: int, silent: int, samples: int
    ) -> dict[str, bytes | None]:
        """Make `computed` the newest version; returns the entries of the `Save` that makes it durable."""
        record = ModelRecord(
            version=0 if self.empty else self.current.version + 1,
            weights=computed.digest,
            parent="" if self.empty else self.current.name,
            created_at=now,
            delta=None if computed.delta is None else self._blob(computed.delta),
            full=None if computed.full is None else self._blob(computed.full),
            round=round_number,
            updates=updates,
            silent=silent,
            samples=samples,
            loss=None if computed.score is None else computed.score.loss,
            accuracy=None if computed.score is None else computed.score.accuracy,
        )
        self._records[record.version] = record
        self.weights, self.residual = computed.weights, computed.residual
        self._held.add(record.version)
        too_old = sorted(v for v in self._held if v <= record.version - self._keep)
        self._held.difference_update(too_old)
        self._gone = [self._records[v] for v in too_old]
        return {
            "bundle": self._bundle.encode(),
            f"model/{record.version:08d}": msgspec.msgpack.encode(record),
            f"weights/{record.version:08d}": computed.weights.astype("<f4").tobytes(),
            f"delta/{record.version:08d}": computed.delta,
            f"full/{record.version:08d}": computed.full,
            "server-residual": computed.residual.astype("<f4").tobytes(),
            **{f"{kind}/{v:08d}": None for v in too_old for kind in ("weights", "delta", "full")},
        }

    def keep(self, computed: Version) -> dict[str, bytes | None]:
        """Stay at the newest version, whose weights `computed` has too; only the residual moves on."""
        self.residual = computed.residual
        return {"server-residual": computed.residual.astype("<f4").tobytes()}

    def publish_newest(self, computed: Version) -> Iterator[Effect]:
        """Make the newest version fetchable, and clear from the broker what is too old to be of use."""
        record = self.current
        if record.full is not None and computed.full is not None:
            yield from self._chunks(record.full, computed.full)
        if record.delta is not None and computed.delta is not None:
            yield from self._chunks(record.delta, computed.delta)
        # The manifest last: whoever sees it finds what it names.
        yield self._manifest(record)
        for stale in self._gone:
            if all(stale.name != kept.name for kept in self._kept()):
                yield Send(topics.manifest(stale.name), b"", retain=True)
            for blob in (stale.delta, stale.full):
                if blob is not None:
                    yield from self._clear(blob)

    def publish_all(self) -> Iterator[Effect]:
        """Everything that should lie at the broker, which may have lost it."""
        for record in self._kept():
            for kind, blob in (("delta", record.delta), ("full", record.full)):
                data = self._store.get(f"{kind}/{record.version:08d}")
                if blob is not None and data is not None:
                    yield from self._chunks(blob, data)
        for record in self._kept():
            yield self._manifest(record)

    def _kept(self) -> list[ModelRecord]:
        return [self._records[v] for v in sorted(self._held)]

    def _clear(self, blob: Blob) -> Iterator[Effect]:
        """Take a blob from the broker, unless a version that is kept happens to have the same bytes."""
        kept = self._kept()
        in_use = {b.address for r in kept for b in (r.delta, r.full) if b is not None}
        if blob.address not in in_use:
            for i in range(blob.chunks):
                yield Send(topics.blob_chunk(blob.address, i), b"", retain=True)

    def _oldest(self) -> int:
        return min(self._held)

    def _blob(self, data: bytes) -> Blob:
        return Blob(len(data), self._chunk_bytes, hashlib.sha256(data).digest())

    def _chunks(self, blob: Blob, data: bytes) -> Iterator[Effect]:
        for i, piece in enumerate(split(data, blob.chunk_bytes)):
            yield Send(topics.blob_chunk(blob.address, i), piece, retain=True)

    def _manifest(self, record: ModelRecord) -> Effect:
        manifest = Manifest(
            version=record.version,
            weights=record.weights,
            bundle=self._bundle,
            parent=record.parent,
            delta=record.delta,
            full=record.full,
            oldest=self._oldest(),
        )
        return Send(topics.manifest(record.name), encode(sign(manifest, self._key)), retain=True)

    def _vector(self, key: str) -> Vector:
        raw = self._store.get(key)
        if raw is None or len(raw) != 4 * self._schema.size:
            raise StorageError(
                f"entry {key} of the store",
                value="nothing" if raw is None else f"{len(raw)} bytes",
                limit=f"{4 * self._schema.size} bytes",
                remedy="start with the bundle that this store was made with",
            )
        return np.frombuffer(raw, "<f4").astype(np.float32)


def _records(store: StoreView) -> Iterator[ModelRecord]:
    for key in store.keys("model/"):
        try:
            yield msgspec.msgpack.decode(store.get(key) or b"", type=ModelRecord)
        except msgspec.DecodeError as e:
            raise StorageError(f"record {key} ({e})", remedy="restore the store from a copy") from e
