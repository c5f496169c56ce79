"""Late updates: for a round that is over, from a base that has been replaced since.

Buffered asynchronous aggregation: Nguyen et al., "Federated Learning with Buffered Asynchronous Aggregation"
(FedBuff), AISTATS 2022, algorithm 1. A late update is added to whatever round is open, shortened by a
polynomial of its staleness, while its samples count in full in the divisor. So what is shortened is the
update, not its weight: a round of nothing but stale updates makes a small step, as in the paper, and the
fold knows nothing of staleness.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from laconic.compression import Piece, decode, pieces, whole
from laconic.errors import ConfigError, RemoteProtocolError
from laconic.schema import Schema, Vector

MOST_STALENESS = 1000
"""No campaign may remember more tasks than these: they are saved with every round."""


@dataclass(frozen=True, slots=True)
class Lateness:
    """What becomes of late updates.

    * `max_staleness`: an update whose base is more versions behind than this is refused; 0 refuses all late
      ones, also those of a round that made no version.
    * `exponent`: a in the discount (1 + s)^-a of an update that is s versions behind; FedBuff's is 0.5.

    Raises `ConfigError` for a value out of range.
    """

    max_staleness: int = 0
    exponent: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.max_staleness <= MOST_STALENESS:
            raise ConfigError("max_staleness", value=self.max_staleness, limit=f"0 to {MOST_STALENESS}")
        if not 0.0 <= self.exponent <= 10.0:
            raise ConfigError("staleness_exponent", value=self.exponent, limit="0 to 10")

    @property
    def folds(self) -> bool:
        """Whether late updates are taken at all."""
        return self.max_staleness > 0


class PastTask(msgspec.Struct, frozen=True, array_like=True):
    """A task that has been on offer, and what it was to be worked from."""

    round: int
    task: str
    base: str
    """Short hash of its base."""
    version: int
    """Version of its base."""


def remember(tasks: Sequence[PastTask], newest: PastTask, lateness: Lateness) -> list[PastTask]:
    """The tasks whose updates may still be folded, once `newest` is on offer."""
    if not lateness.folds:
        return []
    oldest = newest.version - lateness.max_staleness
    kept = [t for t in tasks if t.version >= oldest and t.round < newest.round]
    return [*kept[-MOST_STALENESS:], newest]


def staleness(task: PastTask, current: int, lateness: Lateness) -> int:
    """How many versions the base of `task` is behind version `current`.

    Raises `RemoteProtocolError` for more than are allowed.
    """
    behind = max(0, current - task.version)
    if behind > lateness.max_staleness:
        raise RemoteProtocolError(
            "staleness of an update in versions", value=behind, limit=lateness.max_staleness
        )
    return behind


def discount(behind: int, exponent: float) -> float:
    """(1 + s)^-a (FedBuff, section 5), in (0, 1], rounded to float32.

    It is saved with the update: neither another setting nor another machine's `pow` changes a sum afterwards.
    """
    return float(np.float32((1.0 + behind) ** -exponent))


def discounted(update: Vector, factor: float) -> Vector:
    """The update times a factor, each value rounded once to float32: a function of the update alone, so that
    the order of arrival still changes no bit of a sum."""
    return update * np.float32(factor)


def pieces_of(frame: bytes, schema: Schema, factor: float) -> tuple[Piece, ...]:
    """An update as it is folded, times its discount. Raises `WireError` for a frame that is none."""
    dense_bytes = 4 * schema.size
    if factor == 1.0:
        return tuple(pieces(frame, schema, limit_bytes=dense_bytes))
    return whole(discounted(decode(frame, schema, limit_bytes=dense_bytes), factor))
