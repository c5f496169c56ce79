"""Who is expected to report in a round, who has, and the sum of what came."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from laconic.compression import Piece
from laconic.coordinator.fold import Fold


class OpenRound:
    """The book of one round. A device is in it once, as a committed update or as a silence.

    Late updates, of tasks that are over, are in it besides: a device may have one of each such task. They
    may come before the round opens, too.
    """

    def __init__(self, size: int, expected: Iterable[str] = ()) -> None:
        """`size`: number of values in an update; `expected`: who has been asked."""
        self.fold = Fold(size)
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

    def unheard(self) -> list[str]:
        """The expected devices that have said nothing, by name."""
        return sorted(self.expected - self.committed.keys() - self._silent.keys())

    def awaits(self, device: str) -> bool:
        """Whether a device is expected to report and has not."""
        return device in self.expected and not self.heard(device)

    def heard(self, device: str) -> bool:
        """Whether a device has reported."""
        return device in self.committed or device in self._silent

    def commit(self, device: str, update: str, pieces: Sequence[Piece], weight: int) -> None:
        """Fold a checked update; it takes the place of the device's silence."""
        self.fold.withdraw_silent(self._silent.pop(device, 0))
        self.fold.add(pieces, weight)
        self.committed[device] = update
        self.expected.add(device)

    def commit_late(self, device: str, update: str, pieces: Sequence[Piece], weight: int) -> None:
        """Fold a checked and discounted update of a task that is over."""
        self.fold.add(pieces, weight)
        self.late[update] = device

    def stay_silent(self, device: str, weight: int) -> None:
        """Count a device that sends nothing, with the samples behind its silence (0 if it did not train)."""
        self.fold.add_silent(weight)
        self._silent[device] = weight
        self.expected.add(device)
