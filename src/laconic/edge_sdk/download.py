"""Fetching a model version: which deltas or which full model, chunk by chunk, resumable.

Pure: it says which topics it wants and takes what arrives. It holds at most the frames of one plan, whose
size the manifests promised and the caller limited.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from laconic.budget.costs import MANIFEST_BYTES, download_bytes, message_bytes
from laconic.compression import decode as decode_frame
from laconic.edge_sdk.records import Held, save_held
from laconic.errors import ChecksumMismatch, LaconicError, LimitExceeded, RemoteProtocolError, WireError
from laconic.node import StoreView
from laconic.protocol import topics
from laconic.protocol.chunks import Assembly
from laconic.protocol.identity import short, verify, weights_hash
from laconic.protocol.messages import Blob, Manifest, decode
from laconic.schema import Schema

_PATIENCE = 3
"""Waits in vain for a chunk before another way is tried."""
_WINDOW = 4
"""Chunks asked for at a time: a broker may drop what it cannot queue for a client."""


def download_limit_bytes(schema: Schema) -> int:
    """Most bytes of all frames that lead to one version: two whole models, neither of which compresses."""
    return 2 * 4 * schema.size + 4096 + 256 * len(schema.tensors)


@dataclass(frozen=True, slots=True)
class Fetched:
    """Frames to be added up: on the weights that are held, or on zeros."""

    manifest: Manifest
    frames: tuple[bytes, ...]
    from_zero: bool

    def apply(self, held: Held, schema: Schema) -> Held:
        """The version that the frames make of the one that is held: the sum that the coordinator made too.

        Its weights are read-only.

        Raises a `WireError` for a frame that cannot be decoded, `ChecksumMismatch` when the sum is not what
        the manifest promises.
        """
        weights = np.zeros(schema.size, np.float32) if self.from_zero else held.weights
        for frame in self.frames:
            weights = weights + decode_frame(frame, schema, limit_bytes=4 * schema.size)
        digest = weights_hash(weights, schema)
        if digest != self.manifest.weights:
            raise ChecksumMismatch(
                f"weights of version {self.manifest.version}",
                value=digest.hex(),
                limit=self.manifest.weights.hex(),
            )
        weights.flags.writeable = False
        return Held(self.manifest.version, digest, weights)


@dataclass(frozen=True, slots=True)
class Whole:
    """A version that has been fetched, and its entry of the store."""

    held: Held
    saved: bytes


@dataclass(frozen=True, slots=True)
class Sum:
    """The last step of a fetch as a call, for drivers that want to know what they call: where many devices
    live in one process, its arguments are often equal, and then so are its results."""

    fetched: Fetched
    held: Held
    schema: Schema

    def __call__(self) -> Whole:
        """Raises as `Fetched.apply` does."""
        held = self.fetched.apply(self.held, self.schema)
        return Whole(held, save_held(held))


def saved_pieces(store: StoreView, address: str) -> Iterator[tuple[int, bytes]]:
    """The pieces of a blob that an earlier life has kept under `piece/{address}/{index}`."""
    for key in store.keys(f"piece/{address}/"):
        piece = store.get(key)
        if piece is not None:
            yield int(key.rsplit("/", 1)[1]), piece


@dataclass
class Download:
    """The way from the version that is held to the one that is wanted."""

    target: str
    held: str
    held_version: int
    bundle: str
    key: bytes | None
    limit_bytes: int
    """Most bytes of all frames together, and of one."""
    saved: Callable[[str], Iterable[tuple[int, bytes]]] = lambda address: ()
    """The pieces of a blob that an earlier life has kept."""
    only_full: bool = False
    _chain: list[Manifest] = field(default_factory=list)
    _plan: list[Blob] = field(default_factory=list)
    _from_zero: bool = False
    _from_full: list[Blob] = field(default_factory=list)
    """The newest full model and the deltas since, once its manifest is here."""
    _frames: list[bytes] = field(default_factory=list)
    _assembly: Assembly | None = None
    _disappointments: int = 0
    _stalls: int = 0

    def wanted(self) -> tuple[str, ...]:
        """The topics to be subscribed to now."""
        if not self._plan:
            return (topics.manifest(self._asking_for()),)
        blob, assembly = self._plan[len(self._frames)], self._assembly
        assert assembly is not None
        missing = assembly.missing(blob.chunks, most=_WINDOW)
        return tuple(topics.blob_chunk(blob.address, i) for i in missing)

    def take(self, topic: str, payload: bytes) -> Fetched | None:
        """Take a message under a wanted topic; the frames, once all are here.

        Raises a `WireError` or `RemoteProtocolError` for what cannot be used; a blob that is not what its
        manifest promised is asked for again, and the second time the full model in its place.
        """
        self._stalls = 0
        match topics.parse(topic):
            case topics.ManifestOf(model) if not self._plan and model == self._asking_for():
                self._take_manifest(decode(Manifest, payload))
            case topics.BlobChunk(address, index) if self._plan:
                return self._take_chunk(address, index, payload)
        return None

    @property
    def cost_bytes(self) -> int | None:
        """What is to be fetched in all, once it is decided."""
        return sum(blob.size for blob in self._plan) if self._plan else None

    @property
    def left_bytes(self) -> int:
        """What is still to come, both ways: of the plan, or the next manifest while there is none."""
        if not self._plan:
            return message_bytes(MANIFEST_BYTES)
        rest = self._plan[len(self._frames) :]
        return sum(download_bytes([blob.size], blob.chunk_bytes, 0) for blob in rest)

    def stalled(self) -> None:
        """Nothing has come in time: the broker may not have any more what a manifest promised."""
        self._stalls += 1
        if not self._plan and self._from_full:
            self._begin(self._from_full, from_zero=True)
        elif not self._plan:
            self._chain.clear()
        elif self._stalls >= _PATIENCE:
            self.only_full = True
            self._stalls = 0
            self._chain, self._plan, self._frames, self._from_full = [], [], [], []

    def worth_saving(self) -> bool:
        """Whether the blob under way has pieces enough to be worth keeping over a restart."""
        return bool(self._plan) and self._plan[len(self._frames)].chunks > 1

    def _asking_for(self) -> str:
        return self._chain[-1].parent if self._chain else self.target

    def _take_manifest(self, manifest: Manifest) -> None:
        asked = self._asking_for()
        if short(manifest.weights) != asked:
            raise RemoteProtocolError("model of a manifest", value=short(manifest.weights), limit=asked)
        if manifest.bundle != self.bundle:
            raise RemoteProtocolError(
                "bundle of a manifest", value=manifest.bundle, limit=self.bundle, remedy="update the bundle"
            )
        verify(manifest, self.key)
        if self._chain and manifest.version != self._chain[-1].version - 1:
            # Falling by one at each step, the chain has an end whoever wrote the manifests.
            raise RemoteProtocolError(
                "version of a parent's manifest", value=manifest.version, limit=self._chain[-1].version - 1
            )
        self._chain.append(manifest)
        try:
            self._decide()
        except LaconicError:
            self._chain.pop()
            raise

    def _decide(self) -> None:
        """The shorter of the missing deltas and a full model with the deltas since; or one more manifest."""
        last = self._chain[-1]
        deltas = [m.delta for m in reversed(self._chain) if m.delta is not None]
        unbroken = len(deltas) == len(self._chain)
        if last.full is not None and not self._from_full:
            # The newest of the full models: deltas since an older one would only add to it.
            self._from_full = [last.full, *(deltas[1:] if last.delta is not None else deltas)]
        cost = sum(d.size for d in deltas)
        full_cost = sum(b.size for b in self._from_full)
        deltas_pay = unbroken and not self.only_full and (not self._from_full or cost <= full_cost)
        if deltas_pay and last.parent == self.held:
            self._begin(deltas, from_zero=False)
        elif (
            unbroken
            and last.version > self._chain[0].oldest
            and (not self._from_full or (deltas_pay and last.version > self.held_version + 1))
        ):
            return  # More deltas could lead to what is held, or at least to a full model.
        elif self._from_full:
            self._begin(self._from_full, from_zero=True)
        else:
            raise RemoteProtocolError(
                f"no way from version {self.held_version} to {self._chain[0].version}",
                remedy="wait for the next version",
            )

    def _begin(self, plan: list[Blob], *, from_zero: bool) -> None:
        size = sum(blob.size for blob in plan)
        if size > self.limit_bytes or any(b.chunks > max(1, b.size) for b in plan):
            raise LimitExceeded("size of a model in bytes", value=size, limit=self.limit_bytes)
        self._plan, self._from_zero = plan, from_zero
        self._next_blob()

    def _next_blob(self) -> None:
        blob = self._plan[len(self._frames)]
        self._assembly = Assembly(limit_bytes=blob.size)
        for index, piece in self.saved(blob.address):
            # One piece is always asked for anew: its arrival is what completes the blob.
            if 0 < index < blob.chunks:
                self._assembly.add(index, piece)

    def _give_up_blob(self) -> None:
        """What came is not what was promised: ask for all of it again, and then for a full model."""
        self._assembly = Assembly(limit_bytes=self._plan[len(self._frames)].size)
        self._disappointments += 1
        if self._disappointments >= 2 and not self._from_zero:
            self.only_full = True
            self._frames.clear()
            self._plan = []
            self._decide()

    def _take_chunk(self, address: str, index: int, payload: bytes) -> Fetched | None:
        blob, assembly = self._plan[len(self._frames)], self._assembly
        assert assembly is not None
        if address != blob.address or index >= blob.chunks:
            return None
        assembly.add(index, payload)
        if assembly.missing(blob.chunks, most=1):
            return None
        try:
            frame = assembly.join(size=blob.size, chunks=blob.chunks, sha256=blob.sha256)
        except WireError:
            self._give_up_blob()
            raise
        self._frames.append(frame)
        if len(self._frames) < len(self._plan):
            self._next_blob()
            return None
        return Fetched(self._chain[0], tuple(self._frames), self._from_zero)
