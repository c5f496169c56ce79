"""What changes by the clock: piecewise constant functions of time, known without ticking.

A user's drain, a charger's power, whether a device is there: each tells its value now and until when it
holds.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import acos, floor, inf, isfinite, pi, sin
from typing import Final, Protocol

from laconic.device_sim import chance
from laconic.errors import ConfigError

DAY_S: Final = 86_400.0
HOUR_S: Final = 3_600.0


class Signal(Protocol):
    """A piecewise constant function of time."""

    def at(self, t: float) -> tuple[float, float]:
        """The value at `t` seconds, and until when it holds: later than `t`."""
        ...

    @property
    def most(self) -> float:
        """No value is larger."""
        ...


@dataclass(frozen=True, slots=True)
class Constant:
    """Always the same."""

    value: float

    def at(self, t: float) -> tuple[float, float]:
        return self.value, inf

    @property
    def most(self) -> float:
        return self.value


@dataclass(frozen=True, slots=True)
class Daily:
    """A level for each of a day's equal parts; the day begins `origin_s` after the world's midnight."""

    levels: tuple[float, ...]
    origin_s: float = 0.0

    def at(self, t: float) -> tuple[float, float]:
        slot_s = DAY_S / len(self.levels)
        k, end = cycle(t, self.origin_s, slot_s)
        return self.levels[k % len(self.levels)], end

    @property
    def most(self) -> float:
        return max(self.levels)


@dataclass(frozen=True, slots=True)
class Nightly:
    """`value` from about `begin_s` of the day for about `length_s`, both moved by up to `jitter_s` a day."""

    value: float
    key: int
    begin_s: float = 22 * HOUR_S
    length_s: float = 8 * HOUR_S
    jitter_s: float = HOUR_S

    def __post_init__(self) -> None:
        if not (self.jitter_s < self.length_s and self.length_s + 4 * self.jitter_s < DAY_S):
            raise ConfigError(
                "length and jitter of a nightly window",
                value=(self.length_s, self.jitter_s),
                limit="a jitter below the length, and length and four jitters within a day",
            )

    def at(self, t: float) -> tuple[float, float]:
        k, end = cycle(t, self.origin_s, DAY_S)
        first = k * DAY_S + self.begin_s + self.jitter_s * (2 * chance.uniform(self.key, 2 * k) - 1)
        last = first + self.length_s + self.jitter_s * (2 * chance.uniform(self.key, 2 * k + 1) - 1)
        return _within(t, first, last, end, self.value)

    @property
    def origin_s(self) -> float:
        """Where a cycle begins: early enough for the earliest window."""
        return self.begin_s - self.jitter_s

    @property
    def most(self) -> float:
        return self.value


@dataclass(frozen=True, slots=True)
class Sessions:
    """1 while a device is available, 0 otherwise: one session a day around the hour of the peak.

    Of a fleet of such devices the share mean x (1 + a cos(2 pi (t - peak)/day)) is available at `t`, with
    a = (swing - 1)/(swing + 1): `swing` times as many at the peak as twelve hours later. Every day a device
    draws u and is available while the share is above u.
    """

    key: int
    mean: float = 0.3
    swing: float = 4.0
    peak_s: float = 3 * HOUR_S

    def __post_init__(self) -> None:
        if not (self.swing >= 1 and self.mean > 0 and self.mean * (1 + self.amplitude) <= 1):
            raise ConfigError(
                "mean and swing of availability",
                value=(self.mean, self.swing),
                limit="a swing of at least 1, and a peak of at most 1",
            )

    @property
    def amplitude(self) -> float:
        """The peak over the mean, less 1."""
        return (self.swing - 1) / (self.swing + 1)

    def at(self, t: float) -> tuple[float, float]:
        origin = self.peak_s - DAY_S / 2
        k, end = cycle(t, origin, DAY_S)
        half = self.half_s(chance.uniform(self.key, k))
        centre = k * DAY_S + self.peak_s
        if half >= DAY_S / 2:
            return 1.0, end
        return _within(t, centre - half, centre + half, end, 1.0) if half > 0 else (0.0, end)

    def half_s(self, u: float) -> float:
        """Half the length of the session of a day for which `u` was drawn."""
        wave = (u / self.mean - 1) / self.amplitude if self.amplitude else (1.0 if u >= self.mean else -1.0)
        return 0.0 if wave >= 1 else DAY_S / 2 if wave <= -1 else acos(wave) * DAY_S / (2 * pi)

    @property
    def most(self) -> float:
        return 1.0


@dataclass(frozen=True, slots=True)
class Synthetic:
    """1 for `share` of every period, at a random place in it; 0 otherwise. Made up: nobody measured it."""

    key: int
    share: float = 0.5
    period_s: float = 4 * HOUR_S

    def __post_init__(self) -> None:
        if not (0 <= self.share <= 1 and 0 < self.period_s < inf):
            raise ConfigError("share and period of availability", value=(self.share, self.period_s))

    def at(self, t: float) -> tuple[float, float]:
        k, end = cycle(t, 0.0, self.period_s)
        first = (k + (1 - self.share) * chance.uniform(self.key, k)) * self.period_s
        return _within(t, first, first + self.share * self.period_s, end, 1.0)

    @property
    def most(self) -> float:
        return 1.0


@dataclass(frozen=True, slots=True)
class Solar:
    """A panel: half a sine from six to six, times the day's weather, in steps of an hour.

    The weather is uniform from `worst` to 1, another every day. Made up, but for its shape.
    """

    peak_w: float
    key: int
    worst: float = 0.2
    origin_s: float = 0.0

    def at(self, t: float) -> tuple[float, float]:
        k, end = cycle(t, self.origin_s, HOUR_S)
        day, hour = divmod(k, 24)
        if not 6 <= hour < 18:
            return 0.0, end
        weather = self.worst + (1 - self.worst) * chance.uniform(self.key, day)
        return self.peak_w * weather * sin(pi * (hour + 0.5 - 6) / 12), end

    @property
    def most(self) -> float:
        return self.peak_w


class Recorded:
    """A trace: the value from each of its times to the next, again and again."""

    __slots__ = ("_times", "_values", "most", "origin_s", "period_s")

    def __init__(
        self, times: Sequence[float], values: Sequence[float], period_s: float, origin_s: float = 0.0
    ) -> None:
        """`times` from 0, rising; the trace begins at `origin_s`, and again after each `period_s`.

        Raises `ConfigError`.
        """
        rising = all(a < b for a, b in pairwise(times))
        if len(times) != len(values) or not times or times[0] != 0 or not rising:
            raise ConfigError("times of a trace", value=len(times), limit="from 0, rising, one a value")
        if not (times[-1] < period_s < inf and all(isfinite(v) and v >= 0 for v in values)):
            raise ConfigError("values of a trace", value=period_s, limit="finite, not negative; a later end")
        self._times, self._values = tuple(times), tuple(values)
        self.period_s, self.origin_s = period_s, origin_s
        self.most: float = max(values)

    def begun(self, origin_s: float) -> Recorded:
        """The same trace, begun at another time, in the same memory."""
        other = object.__new__(Recorded)
        other._times, other._values, other.most = self._times, self._values, self.most
        other.period_s, other.origin_s = self.period_s, origin_s
        return other

    def at(self, t: float) -> tuple[float, float]:
        k, end = cycle(t, self.origin_s, self.period_s)
        begin = self.origin_s + k * self.period_s
        i = bisect_right(self._times, t - begin) - 1
        while i + 1 < len(self._times) and begin + self._times[i + 1] <= t:
            i += 1
        later = begin + self._times[i + 1] if i + 1 < len(self._times) else end
        return self._values[max(i, 0)], later

    @property
    def mean(self) -> float:
        """The mean over a period."""
        ends = (*self._times[1:], self.period_s)
        spans = zip(self._times, ends, self._values, strict=True)
        return sum((b - a) * v for a, b, v in spans) / self.period_s


def cycle(t: float, origin_s: float, period_s: float) -> tuple[int, float]:
    """In which cycle `t` lies, and its end, which is later than `t` whatever the rounding."""
    k = floor((t - origin_s) / period_s)
    while (end := origin_s + (k + 1) * period_s) <= t:
        k += 1
    return k, end


def rises(signal: Signal, t: float, *, until_s: float, above: Callable[[float], bool] = bool) -> float:
    """The first moment from `t` on, at most `until_s`, when the signal's value is `above`; else infinity."""
    while t <= until_s:
        value, end = signal.at(t)
        if above(value):
            return t
        t = end
    return inf


def _within(t: float, first: float, last: float, end: float, value: float) -> tuple[float, float]:
    if t < first:
        return 0.0, first
    return (value, min(last, end)) if t < last else (0.0, end)
