"""What is written down of each model version: lineage, metrics, and what became of it."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

import msgspec

from laconic.errors import StorageError
from laconic.node import StoreView
from laconic.protocol.identity import short
from laconic.protocol.messages import Blob


class Status(StrEnum):
    """Where a version stands."""

    CANDIDATE = "candidate"
    """Computed, and with a part of the fleet for trial; nobody else is told of it."""
    PUBLISHED = "published"
    REFUSED = "refused"
    """Found worse before anybody was told of it: it has no number of its own."""
    TAKEN_BACK = "taken back"
    """A version of before has replaced it."""
    PASSAGE = "passage"
    """Only a step on the way back: it is never offered."""


class FleetScore(msgspec.Struct, frozen=True):
    """How good a version is by the devices' reports: on the data of each, before it trained."""

    reports: int
    samples: int
    loss_mean: float | None = None
    """Weighted by samples."""
    loss_median: float | None = None
    """Weighted by samples: half of them lie on devices with no more than this."""
    accuracy_mean: float | None = None
    accuracy_median: float | None = None


class ModelRecord(msgspec.Struct, frozen=True):
    """One version: where it comes from, how good it is, what became of it."""

    version: int
    weights: bytes
    """SHA-256 of the weights: `laconic.protocol.identity.weights_hash`."""
    parent: str
    """Short hash of the version it was computed from; "" for the first."""
    created_at: float
    delta: Blob | None = None
    """The update frame from the parent to this version; None for the first, and where `full` is shorter."""
    full: Blob | None = None
    """The whole model as a frame, for one version in every few: see `Registry.full_every`."""
    round: int = 0
    updates: int = 0
    silent: int = 0
    samples: int = 0
    loss: float | None = None
    accuracy: float | None = None
    status: Status = Status.PUBLISHED
    rollback_of: int | None = None
    """The older version whose weights these are."""
    pinned: bool = False
    """Its weights are kept whatever its age."""
    worse: int = 0
    """Versions in a row, this one included, that were found worse."""
    why: str = ""
    """Why it was found worse, refused, taken back, or made by a rollback."""
    settings: str = ""
    """Short hash of the campaign's settings under which it was made."""
    fleet: FleetScore | None = None

    @property
    def name(self) -> str:
        """The short hash by which the version is offered."""
        return short(self.weights)


class Refusal(msgspec.Struct, frozen=True):
    """A candidate that was not published: what it was made of, and why it was refused."""

    round: int
    weights: bytes
    parent: str
    created_at: float
    updates: int
    silent: int
    samples: int
    loss: float | None
    accuracy: float | None
    why: str


def read_records(store: StoreView) -> Iterator[ModelRecord]:
    """All versions' records. Raises `StorageError` for one that cannot be read."""
    for key in store.keys("model/"):
        try:
            yield msgspec.msgpack.decode(store.get(key) or b"", type=ModelRecord)
        except msgspec.DecodeError as e:
            raise StorageError(f"record {key} ({e})", remedy="restore the store from a copy") from e
