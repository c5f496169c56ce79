"""Which rounds' lines of time are kept: some of all, however many there are."""

from __future__ import annotations

from typing import Final

from laconic.device_sim.scenario.results import StepRow

MOST_ROUNDS: Final = 16
MOST_ROWS: Final = 200_000


class Steps:
    """The first round, every second, fourth, eighth, ... after it, and the last one that was closed.

    At most `MOST_ROUNDS` of them beside the last; fewer, where they have more than `MOST_ROWS` rows.
    """

    def __init__(self) -> None:
        self._number, self._opened_s, self._rows = 0, 0.0, list[StepRow]()
        self._kept: dict[int, list[StepRow]] = {}
        self._last: list[StepRow] = []
        self._closed, self._stride = 0, 1

    def open(self, number: int, now_s: float) -> None:
        """A round begins."""
        self._number, self._opened_s, self._rows = number, now_s, []

    def add(self, now_s: float, device: str, what: str) -> None:
        """Something has happened; what comes after a round's end, until the next one, is that round's."""
        self._rows.append(StepRow(self._number, now_s - self._opened_s, device, what))

    def close(self) -> None:
        """The round is over."""
        self._last = self._rows
        if self._closed % self._stride == 0:
            self._kept[self._closed] = self._rows
        self._closed += 1
        while len(self._kept) > MOST_ROUNDS or (
            len(self._kept) > 1 and sum(map(len, self._kept.values())) > MOST_ROWS
        ):
            self._stride *= 2
            self._kept = {i: rows for i, rows in self._kept.items() if i % self._stride == 0}

    @property
    def rows(self) -> list[StepRow]:
        """Of all rounds that are kept, in their order."""
        rounds = list(self._kept.values())
        if not rounds or rounds[-1] is not self._last:
            rounds.append(self._last)
        return [row for rows in rounds for row in rows]
