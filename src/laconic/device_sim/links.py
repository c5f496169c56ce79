"""A host's link: when bytes that are sent have passed, and when they arrive.

One transfer after the other each way, as on one TCP connection. A lost segment is sent again: its bytes pass
twice; one of the last three of a transfer, which nothing after it gives away, waits for the retransmission
timer (RFC 6298). Loss bounds the rate at 1.22 MSS/(RTT sqrt(p)) (Mathis, Semke, Mahdavi, Ott: "The
macroscopic behavior of the TCP congestion avoidance algorithm", CCR 1997).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import floor, inf, log, log1p, sqrt
from typing import Final, NamedTuple

from laconic.device_sim import chance
from laconic.device_sim.medium import Medium
from laconic.device_sim.signals import Signal
from laconic.device_sim.wire import Wire
from laconic.errors import ConfigError
from laconic.profiles import profiles

_MATHIS: Final = 1.22
_FAR: Final = 2.0**60
_MOST_LOSS: Final = 0.9
_GIVEN_AWAY_BY: Final = 3
"""Later segments that tell the sender of a loss (RFC 5681, section 3.2)."""


@dataclass(frozen=True, slots=True)
class Connection:
    """A host's link to the broker: one way each."""

    latency_s: float = 0.05
    up_bytes_per_s: float = 1e6
    down_bytes_per_s: float = 1e6
    jitter_s: float = 0.0
    """What comes on top of the latency, uniform from 0; no message overtakes another."""
    loss: float = 0.0
    """The share of segments that do not arrive."""
    up_trace: Signal | None = None
    """Bytes a second by the clock, instead of `up_bytes_per_s`."""
    down_trace: Signal | None = None
    outage: Signal | None = None
    """Above 0 while there is no connection."""
    wire: Wire | None = None
    """None: each message has nine bytes beside topic and payload, and acknowledgements are free."""
    medium: Medium | None = None
    """What the link shares with others: its rates count instead of the link's own."""

    def __post_init__(self) -> None:
        rates = (self.up_bytes_per_s, self.down_bytes_per_s)
        traces = [t.most for t in (self.up_trace, self.down_trace) if t is not None]
        if not all(0 < r < inf for r in (*rates, *traces)):
            raise ConfigError("bytes a second of a link", value=(*rates, *traces), limit="above 0")
        if not (0 <= self.latency_s < inf and 0 <= self.jitter_s < inf and 0 <= self.loss <= _MOST_LOSS):
            raise ConfigError(
                "latency, jitter and loss of a link",
                value=(self.latency_s, self.jitter_s, self.loss),
                limit=f"seconds of at least 0, and a share of at most {_MOST_LOSS}",
            )


class Passage(NamedTuple):
    """When the last byte has passed, when it arrives, and the bytes that were sent again."""

    passed: float
    arrives: float
    again: int


class Lane:
    """One direction of one link: what it remembers from transfer to transfer."""

    __slots__ = ("_arrived", "_drawn", "_key", "_spared")

    def __init__(self, key: int) -> None:
        self._key = key
        self._drawn = 0
        self._arrived = 0.0
        self._spared = -1
        """Segments that will pass before the next is lost; -1: not drawn yet."""

    def carry(self, c: Connection, size: int, begin: float, rate: float, trace: Signal | None) -> Passage:
        """Pass `size` bytes from `begin` on."""
        again, late = self._lost(c, size) if c.loss else (0, 0.0)
        if c.loss and c.latency_s:
            rate = min(rate, _bound(c.latency_s, c.loss))
        passed = _finish(trace, begin, size + again) if trace else begin + (size + again) / rate
        jitter = c.jitter_s * self._draw() if c.jitter_s else 0.0
        arrives = max(self._arrived, passed + c.latency_s + jitter + late)
        self._arrived = arrives
        return Passage(passed, arrives, again)

    def renew(self) -> None:
        """A new connection: nothing of the last one is on its way."""
        self._arrived = 0.0

    def _lost(self, c: Connection, size: int) -> tuple[int, float]:
        """Bytes of segments that must be sent again, and the seconds that the last of them wait."""
        segment = _segment()
        left, lost, late = -(-size // segment), 0, 0.0
        while True:
            if self._spared < 0:
                # From one loss to the next: geometric, so that every segment is lost by itself.
                self._spared = floor(min(log(1.0 - self._draw()) / log1p(-c.loss), _FAR))
            if self._spared >= left:
                self._spared -= left
                return lost * segment, late
            left -= self._spared
            self._spared = -1
            lost += 1
            # The copy is the next to go; it may be lost too.
            if left <= _GIVEN_AWAY_BY:
                late += max(_timer(), 2 * c.latency_s)

    def _draw(self) -> float:
        self._drawn += 1
        return chance.uniform(self._key, self._drawn)


def _finish(trace: Signal, t: float, size: float) -> float:
    """When `size` bytes have passed at the rate of a trace."""
    while True:
        rate, until = trace.at(t)
        if rate * (until - t) >= size:
            return t + size / rate
        size -= rate * (until - t)
        t = until


def _bound(latency_s: float, loss: float) -> float:
    return _MATHIS * _segment() / (2 * latency_s * sqrt(loss))


@lru_cache(1)
def _segment() -> int:
    return int(profiles().wire.mss_bytes.value)


@lru_cache(1)
def _timer() -> float:
    return profiles().wire.retransmission_s.value
