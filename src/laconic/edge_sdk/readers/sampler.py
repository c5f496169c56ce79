"""Asks readers in a thread of its own, each at its period, and keeps the newest sample of each.

The event loop reads what is kept and never waits. A reader that tells nothing is asked less and less often.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from laconic.edge_sdk.readers.sample import Reader, Sample, plausible
from laconic.edge_sdk.readers.trace import PowerTrace, Slice

_MOST_WAIT_S: Final = 3600.0
_GRACE_S: Final = 30.0
_SLICES: Final = 4096


@dataclass(frozen=True, slots=True)
class Taken:
    """A sample and when it was taken."""

    sample: Sample
    at_s: float


class Sampler:
    """The newest sample of every reader, and slices of measured energy."""

    def __init__(
        self,
        readers: Sequence[Reader],
        *,
        battery_joules: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        own_s: Callable[[], float] = time.process_time,
    ) -> None:
        """`readers`: what comes first is believed first. `battery_joules`: what a full battery holds.

        Asks each reader once, so that there is something to read at once.
        """
        self.readers = tuple(readers)
        self.slices: deque[Slice] = deque(maxlen=_SLICES)
        """For one consumer, who takes them from the left."""
        self._clock, self._own_s = clock, own_s
        self._battery_joules = battery_joules
        self._newest: list[Taken | None] = [None] * len(self.readers)
        self._due = [float("-inf")] * len(self.readers)
        self._failures = [0] * len(self.readers)
        self._trace = PowerTrace()
        self._stepping = threading.Lock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self.step()

    def newest(self) -> list[tuple[Reader, Taken]]:
        """Readers that have told something, with what they told last; from any thread."""
        return [(r, t) for r, t in zip(self.readers, tuple(self._newest), strict=True) if t is not None]

    def fresh(self, reader: Reader, taken: Taken) -> bool:
        """Whether a sample is of now: two askings may fail before it is not."""
        return self._clock() - taken.at_s <= 3 * reader.period_s + _GRACE_S

    def age_s(self, taken: Taken) -> float:
        """Seconds since a sample was taken."""
        return max(0.0, self._clock() - taken.at_s)

    def step(self, everyone: bool = False) -> float:
        """Ask every reader that is due, or `everyone`; gives the seconds until the next is due."""
        with self._stepping:
            return self._step(everyone)

    def _step(self, everyone: bool) -> float:
        asked: set[int] = set()
        for i, reader in enumerate(self.readers):
            if not everyone and self._due[i] > self._clock():
                continue
            sample = _look(reader)
            now = self._clock()
            if sample.tells:
                asked.add(i)
                self._newest[i], self._failures[i] = Taken(sample, now), 0
            else:
                self._failures[i] += 1
            wait = reader.period_s * 2.0 ** min(self._failures[i], 16)
            self._due[i] = now + min(wait, max(_MOST_WAIT_S, reader.period_s))
        self._feed(asked)
        return max(0.0, min(self._due, default=self._clock() + _MOST_WAIT_S) - self._clock())

    def start(self) -> None:
        """Go on asking in a thread, until `stop`."""
        if self._thread is None and self.readers and not self._stopped.is_set():
            self._thread = threading.Thread(target=self._run, name="laconic-readers", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Ask no more; a reader that is being asked may still finish."""
        self._stopped.set()

    def join(self) -> None:
        """Wait until it has stopped: for as long as the reader takes that is being asked."""
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(max(0.05, self.step())):
            pass

    def _feed(self, asked: set[int]) -> None:
        """Energy comes from the first reader that measures power, or else from the first battery."""
        fresh = [
            (i, taken)
            for i, taken in enumerate(self._newest)
            if taken is not None and self.fresh(self.readers[i], taken)
        ]
        power = next((it for it in fresh if it[1].sample.power_w is not None), None)
        i, taken = power or next((it for it in fresh if self._stored(it[1].sample) is not None), (-1, None))
        if taken is None or i not in asked:
            return
        s = taken.sample
        stored = self._stored(s) if s.charging is False else None
        piece = self._trace.feed(taken.at_s, self._own_s(), source=i, power_w=s.power_w, stored_joules=stored)
        if piece is not None:
            self.slices.append(piece)

    def _stored(self, s: Sample) -> float | None:
        if s.stored_joules is None and self._battery_joules is not None and s.charge is not None:
            return None if "charge" in s.inferred else s.charge * self._battery_joules
        return s.stored_joules


def _look(reader: Reader) -> Sample:
    """What a reader tells; nothing from one that raises, which those of others may do."""
    try:
        return plausible(reader.read())
    except Exception:
        return Sample()
