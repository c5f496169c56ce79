"""The model registry: versions with their lineage and metrics, which are kept, which is on offer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec
import numpy as np

from laconic.coordinator import publication
from laconic.coordinator.advance import Score, Version
from laconic.coordinator.campaign import update_limit_bytes
from laconic.coordinator.records import ModelRecord, Refusal, Status, read_records
from laconic.errors import ConfigError, StorageError
from laconic.node import Effect, StoreView
from laconic.protocol.identity import weights_hash
from laconic.schema import Schema, Vector

Entries = dict[str, bytes | None]
"""What goes into a `Save`."""


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
        self._records = {r.version: r for r in read_records(store)}
        if self._records and store.get("bundle") != bundle.encode():
            raise StorageError(
                "bundle of the store",
                value=(store.get("bundle") or b"none").decode(errors="replace"),
                limit=bundle,
                remedy="start with the bundle that this store was made with, or with a new store",
            )
        # What is kept is what the store still has: the setting may have been another when it was written.
        self._weights = _versions(store, "weights/")
        self._held = _versions(store, "delta/") | _versions(store, "full/")
        self._gone: list[ModelRecord] = []
        self.weights = self.residual = np.zeros(schema.size, np.float32)
        if self._records:
            self.weights = self._vector(f"weights/{self.current.version:08d}")
            self.residual = self._vector("server-residual")
            self._check(self.current, self.weights)

    @property
    def full_every(self) -> int:
        """One version in so many is published whole too: there is always one, as a rule two, among the kept.

        Whoever is further behind than the deltas are worth fetches the newest of them and the deltas since.
        """
        return (self._keep + 1) // 2

    def wants_full(self) -> bool:
        """Whether the version after the newest is to be kept whole."""
        return (self.current.version + 1) % self.full_every == 0

    def must_be_whole(self) -> Callable[[Version], bool]:
        """Tells of a version after the newest whether it must be kept whole, whatever `wants_full` says.

        With weights that lie at the broker already it takes their name, and no delta leads past it. And a
        device takes no more bytes for one version than two whole models have: with deltas that are as long
        as a model, the newest whole one and the deltas since would soon be more than that.
        """
        kept = self._at_the_broker()
        known = frozenset(r.weights for r in kept)
        since = 0
        for record in reversed(kept):
            if record.full is not None:
                break
            since += record.delta.size if record.delta is not None else 0
        room = update_limit_bytes(self._schema) // 2 - since
        return lambda version: version.digest in known or len(version.delta or b"") > room

    def sizes(self) -> tuple[dict[int, int], dict[int, int]]:
        """Bytes of the deltas, and of the whole models, that lie at the broker, by version."""
        kept = self._at_the_broker()
        return (
            {r.version: r.delta.size for r in kept if r.delta is not None},
            {r.version: r.full.size for r in kept if r.full is not None},
        )

    @property
    def empty(self) -> bool:
        """Whether there is no version yet."""
        return not self._records

    @property
    def current(self) -> ModelRecord:
        """The newest version: what the next one is computed from."""
        return self._records[max(self._records)]

    @property
    def offered(self) -> ModelRecord:
        """The newest version that everybody may have: the current one, unless that is still on trial."""
        current = self.current
        return current if current.status is not Status.CANDIDATE else self._records[current.version - 1]

    @property
    def began_at(self) -> float:
        """When the first version was made, in seconds since 1970."""
        return self._records[min(self._records)].created_at

    def __contains__(self, version: int) -> bool:
        return version in self._records

    def __getitem__(self, version: int) -> ModelRecord:
        return self._records[version]

    def weights_of(self, version: int) -> Vector:
        """The weights of a version that is kept.

        Raises `ConfigError` for one that is not, `StorageError` for one that is damaged.
        """
        self._require(version)
        weights = self._vector(f"weights/{version:08d}")
        self._check(self._records[version], weights)
        return weights

    def keeps(self, version: int) -> bool:
        """Whether a version's weights are here."""
        return version in self._weights

    # --- changes: each returns the entries of the `Save` that makes it durable

    def add(
        self,
        computed: Version,
        now: float,
        *,
        round_number: int,
        updates: int,
        silent: int,
        samples: int,
        status: Status = Status.PUBLISHED,
        rollback_of: int | None = None,
        worse: int = 0,
        why: str = "",
        settings: str = "",
    ) -> Entries:
        """Make `computed` the newest version."""
        score = computed.score
        record = ModelRecord(
            version=0 if self.empty else self.current.version + 1,
            weights=computed.digest,
            parent="" if self.empty else self.current.name,
            created_at=now,
            delta=publication.blob_of(computed.delta, self._chunk_bytes),
            full=publication.blob_of(computed.full, self._chunk_bytes),
            round=round_number,
            updates=updates,
            silent=silent,
            samples=samples,
            loss=None if score is None else score.loss,
            accuracy=None if score is None else score.accuracy,
            status=status,
            rollback_of=rollback_of,
            worse=worse,
            why=why,
            settings=settings,
        )
        self._records[record.version] = record
        self.weights, self.residual = computed.weights, computed.residual
        self._weights.add(record.version)
        self._held.add(record.version)
        entries: Entries = {
            "bundle": self._bundle.encode(),
            f"weights/{record.version:08d}": computed.weights.astype("<f4").tobytes(),
            f"delta/{record.version:08d}": computed.delta,
            f"full/{record.version:08d}": computed.full,
            "server-residual": computed.residual.astype("<f4").tobytes(),
        }
        return {**self._put(record), **entries, **self._let_go(record.version - self._keep)}

    def _let_go(self, newest_gone: int) -> Entries:
        """Keep nothing of versions up to `newest_gone`, but the weights of those that are pinned."""
        stale = sorted(v for v in self._held if v <= newest_gone)
        self._held.difference_update(stale)
        self._gone += [self._records[v] for v in stale]
        old = [v for v in self._weights if v <= newest_gone and not self._records[v].pinned]
        self._weights.difference_update(old)
        entries: Entries = {f"{kind}/{v:08d}": None for v in stale for kind in ("delta", "full")}
        return {**entries, **{f"weights/{v:08d}": None for v in sorted(old)}}

    def keep(self, computed: Version) -> Entries:
        """Stay at the newest version, whose weights `computed` has too; only the residual moves on."""
        self.residual = computed.residual
        return {"server-residual": computed.residual.astype("<f4").tobytes()}

    def refuse(
        self,
        computed: Version,
        now: float,
        *,
        round_number: int,
        updates: int,
        silent: int,
        samples: int,
        why: str,
    ) -> Entries:
        """Write down that `computed` is no version; residual and newest version stay what they were."""
        score = computed.score or Score(float("nan"), None)
        refusal = Refusal(
            round=round_number,
            weights=computed.digest,
            parent=self.current.name,
            created_at=now,
            updates=updates,
            silent=silent,
            samples=samples,
            loss=score.loss,
            accuracy=score.accuracy,
            why=why,
        )
        return {f"refused/{round_number:08d}": msgspec.msgpack.encode(refusal)}

    def note(self, version: int, **changed: object) -> Entries:
        """Change what is written down of a version."""
        return self._put(msgspec.structs.replace(self._records[version], **changed))

    def pin(self, version: int, *, pinned: bool) -> Entries:
        """Keep a version's weights whatever its age, or no longer. Raises `ConfigError` if they are gone."""
        self._require(version)
        entries = self.note(version, pinned=pinned)
        return {**entries, **self._let_go(self.current.version - self._keep)}

    def _put(self, record: ModelRecord) -> Entries:
        self._records[record.version] = record
        return {f"model/{record.version:08d}": msgspec.msgpack.encode(record)}

    # --- the broker

    def publish_newest(self, *computed: Version) -> Iterator[Effect]:
        """Make the newest versions, which were just added, fetchable, and clear from the broker what is too
        old to be of use."""
        kept = self._at_the_broker()
        for record, version in zip(kept[-len(computed) :], computed, strict=True):
            yield from publication.chunks(record.full, version.full)
            yield from publication.chunks(record.delta, version.delta)
            # The manifest last: whoever sees it finds what it names.
            yield self._manifest(record, kept)
        yield from publication.cleared(self._gone, kept)
        self._gone = []

    def publish_all(self) -> Iterator[Effect]:
        """Everything that should lie at the broker, which may have lost it."""
        kept = self._at_the_broker()
        for record in kept:
            for kind, blob in (("delta", record.delta), ("full", record.full)):
                yield from publication.chunks(blob, self._store.get(f"{kind}/{record.version:08d}"))
        for record in kept:
            # Of two with the same weights, the newer one has the name.
            yield self._manifest(record, kept)

    def _at_the_broker(self) -> list[ModelRecord]:
        return [self._records[v] for v in sorted(self._held)]

    def _manifest(self, record: ModelRecord, kept: Sequence[ModelRecord]) -> Effect:
        oldest = publication.oldest_on_the_way([r for r in kept if r.version <= record.version])
        return publication.manifest(record, bundle=self._bundle, oldest=oldest, key=self._key)

    # --- the store

    def _require(self, version: int) -> None:
        if version not in self._weights:
            kept = ", ".join(str(v) for v in sorted(self._weights))
            raise ConfigError(
                "version of the model",
                value=version,
                limit=f"one whose weights are kept: {kept}",
                remedy="pin a version to keep it, or raise keep_versions",
            )

    def _check(self, record: ModelRecord, weights: Vector) -> None:
        if weights_hash(weights, self._schema) != record.weights:
            raise StorageError(
                f"weights of version {record.version} are damaged, or of another bundle",
                remedy="start with the bundle that this store was made with, or restore the store",
            )

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


def _versions(store: StoreView, prefix: str) -> set[int]:
    return {int(key.rsplit("/", 1)[1]) for key in store.keys(prefix)}
