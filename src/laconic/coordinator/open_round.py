"""Who is expected to report in a round, who has, and the sum of what came."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from laconic.compression import Piece
from laconic.coordinator.aggregation import plausible
from laconic.coordinator.aggregation.clipping import clipped, length
from laconic.coordinator.aggregation.plausible import NOTHING_YET, NormHistory
from laconic.coordinator.aggregation.settings import PLAIN, AggregationSettings
from laconic.coordinator.fold import Fold
from laconic.errors import LimitExceeded


class OpenRound:
    """The book of one round. A device is in it once, as a committed update or as a silence.

    Late updates, of tasks that are over, are in it besides: a device may have one of each such task. They
    may come before the round opens, too.
    """

    def __init__(
        self,
        size: int,
        expected: Iterable[str] = (),
        rule: AggregationSettings = PLAIN,
        usual: NormHistory = NOTHING_YET,
    ) -> None:
        """`size`: number of values in an update; `expected`: who has been asked; `usual`: earlier norms."""
        self.fold = Fold(size)
        """Of the updates, where the rule is a sum; any other rule reads them from the store in the end."""
        self.samples = 0
        """Behind all reports."""
        self.norms: dict[str, float] = {}
        """Of the update that a device offered last, refused or not."""
        self._size, self._rule, self._usual = size, rule, usual
        self.expected = set(expected)
        self.committed: dict[str, str] = {}
        """Update by device."""
        self.late: dict[str, str] = {}
        """Device by late update."""
        self._silent: dict[str, int] = {}

    @property
    def updates(self) -> int:
        """How many updates the sum is of."""
        return len(self.committed) + len(self.late)

    @property
    def silent(self) -> int:
        """How many devices have said that they send nothing."""
        return len(self._silent)

    @property
    def absent(self) -> int:
        """How many expected devices have said nothing."""
        return len(self.unheard())

    @property
    def idle(self) -> int:
        """How many silent devices have trained, and have sent nothing late either: rows of zeros."""
        return sum(weight > 0 and name not in self.late.values() for name, weight in self._silent.items())

    def keys(self) -> dict[str, list[str]]:
        """Where the updates are in the campaign's part of the store, by device."""
        keys = {device: [f"update/{device}"] for device in self.committed}
        for update, device in self.late.items():
            keys.setdefault(device, []).append(f"late/{device}/{update}")
        return keys

    def unheard(self) -> list[str]:
        """The expected devices that have said nothing, by name."""
        return sorted(self.expected - self.committed.keys() - self._silent.keys())

    def awaits(self, device: str) -> bool:
        """Whether a device is expected to report and has not."""
        return device in self.expected and not self.heard(device)

    def heard(self, device: str) -> bool:
        """Whether a device has reported."""
        return device in self.committed or device in self._silent

    def check(self, device: str, pieces: Sequence[Piece], weight: int) -> None:
        """Refuse what must not reach the model.

        Raises `NonFinite` or `LimitExceeded`: see `Fold.check` and `plausible.check`; and for more updates
        than the rule can hold.
        """
        self.fold.check(pieces, weight)
        most = self._rule.most_updates(self._size)
        if most is not None and self.updates >= most:
            raise LimitExceeded("updates in one round", value=self.updates + 1, limit=most)
        if self._rule.absurd_multiple:
            self.norms[device] = length(pieces)
            plausible.check(self.norms[device], self._usual, self._rule.absurd_multiple)

    def commit(self, device: str, update: str, pieces: Sequence[Piece], weight: int) -> None:
        """Fold a checked update; it takes the place of the device's silence."""
        silence = self._silent.pop(device, 0)
        self.samples -= silence
        self.fold.withdraw_silent(self._counted(silence))
        self._add(device, pieces, weight)
        self.committed[device] = update
        self.expected.add(device)

    def commit_late(self, device: str, update: str, pieces: Sequence[Piece], weight: int) -> None:
        """Fold a checked and discounted update of a task that is over."""
        self._add(device, pieces, weight)
        self.late[update] = device

    def stay_silent(self, device: str, weight: int) -> None:
        """Count a device that sends nothing, with the samples behind its silence (0 if it did not train)."""
        self.samples += weight
        self.fold.add_silent(self._counted(weight))
        self._silent[device] = weight
        self.expected.add(device)

    def _add(self, device: str, pieces: Sequence[Piece], weight: int) -> None:
        self.samples += weight
        if self._rule.absurd_multiple and device not in self.norms:
            # Committed in an earlier life of the process.
            self.norms[device] = length(pieces)
        if self._rule.streams:
            limited = clipped(pieces, self._rule.norm_limit) if self._rule.clips else pieces
            self.fold.add(limited, self._counted(weight))

    def _counted(self, weight: int) -> int:
        """A device's weight in the mean."""
        return weight if self._rule.weighted else min(weight, 1)
