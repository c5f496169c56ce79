"""Joules of the work itself: what the device takes while it trains, above what it takes when idle.

Every span of work counts at once, at the watts measured in earlier spans or, before there are any, at those
of the board's profile. As soon as the measured energy of its time is here, the count is put right. It never
goes back: what was counted too much is taken off what comes next.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from laconic.edge_sdk.readers.trace import Slice

_QUIET: Final = 0.05
"""Of one core: a slice in which this process took less is idle."""
_IDLE_SLICES: Final = 121
_SLICES: Final = 8192
"""Four and a half hours at a sample each two seconds."""
_SPANS: Final = 64
_LEARN_S: Final = 3600.0
"""Older measurements of the work's watts count half after so much more work."""
_MEASURED: Final = 0.9
"""Of the seconds of work: at both ends of a span a part of a slice is not seen."""
_LEAST_IDLE: Final = 3
"""Short slices of idleness that make a judgement: in the first one power may still be falling."""


@dataclass(slots=True)
class _Span:
    start_s: float
    end_s: float
    counted: float
    joules: float = 0.0
    covered_s: float = 0.0

    @property
    def seconds(self) -> float:
        return self.end_s - self.start_s

    def overlap(self, s: Slice) -> float:
        return max(0.0, min(self.end_s, s.end_s) - max(self.start_s, s.start_s))


class WorkEnergy:
    """Counts the joules of spans of work from slices of measured energy."""

    def __init__(self, profile_w: float | None) -> None:
        """`profile_w`: watts above idle while working by the board's profile; None without one."""
        self._profile_w = profile_w
        self._idle: deque[float] = deque(maxlen=_IDLE_SLICES)
        self._judged = False
        self._slices: deque[Slice] = deque(maxlen=_SLICES)
        self._waiting: deque[_Span] = deque()
        self._learnt = (0.0, 0.0)
        self._total = self._ahead = 0.0
        self._measured_s = self._modelled_s = 0.0

    @property
    def joules(self) -> float:
        """All that was counted; never goes back."""
        return self._total

    @property
    def idle_w(self) -> float | None:
        """What the device takes while this process is quiet; None until it has been seen so."""
        if not self._judged:
            return None
        # 5 ms and 0.6 MB to load, for devices that measure their power.
        from statistics import median

        return median(self._idle)

    @property
    def work_w(self) -> float | None:
        """Watts above idle while working, as measured; None until work has been measured."""
        joules, seconds = self._learnt
        return joules / seconds if seconds > 0 else None

    @property
    def measured_share(self) -> float | None:
        """Of the seconds of work that are settled, how many were measured; None before any."""
        settled = self._measured_s + self._modelled_s
        return self._measured_s / settled if settled > 0 else None

    @property
    def measured(self) -> bool:
        """Whether the total is measured: all but a tenth of the work that is settled.

        The last spans may wait for their slice; they stand at the watts measured before.
        """
        share = self.measured_share
        return share is not None and share >= _MEASURED

    @property
    def silent(self) -> bool:
        """Whether nothing is known to count by."""
        return self._profile_w is None and self.work_w is None

    def worked(self, end_s: float, seconds: float) -> None:
        """A span of work of `seconds` has ended."""
        if not 0 < seconds < 1e9:
            return
        watts = self.work_w if self.work_w is not None else self._profile_w or 0.0
        span = _Span(end_s - seconds, end_s, watts * seconds)
        self._correct(span.counted)
        self._waiting.append(span)
        while len(self._waiting) > _SPANS:
            self._modelled_s += self._waiting.popleft().seconds
        self._settle()

    def add(self, s: Slice) -> None:
        """Measured energy; slices come in the order of time."""
        seconds = s.end_s - s.start_s
        if s.own_s < _QUIET * seconds:
            self._idle.append(s.joules / seconds)
            self._judged = self._judged or s.whole or len(self._idle) >= _LEAST_IDLE
        self._slices.append(s)
        self._settle()

    def _settle(self) -> None:
        idle_w = self.idle_w
        if not self._slices or idle_w is None:
            return
        due: list[_Span] = []
        while self._waiting and self._waiting[0].end_s <= self._slices[-1].end_s:
            due.append(self._waiting.popleft())
        if not due:
            return
        for s in reversed(self._slices):
            if s.end_s <= due[0].start_s:
                break
            _share(s, due, idle_w)
        for span in due:
            covered = min(span.covered_s, span.seconds)
            self._correct(span.joules - span.counted * covered / span.seconds)
            self._measured_s += covered
            self._modelled_s += span.seconds - covered
            if covered > 0:
                kept = 0.5 ** (covered / _LEARN_S)
                joules, seconds = self._learnt
                self._learnt = (joules * kept + span.joules, seconds * kept + covered)

    def _correct(self, more: float) -> None:
        """Count `more` joules; less than nothing is kept for later."""
        owed = more - self._ahead
        self._total += max(0.0, owed)
        self._ahead = max(0.0, -owed)


def _share(s: Slice, spans: list[_Span], idle_w: float) -> None:
    """Give each span its part of what the slice holds above idle."""
    overlaps = [span.overlap(s) for span in spans]
    worked, seconds = sum(overlaps), s.end_s - s.start_s
    # What else went on in a long slice is not known: it tells of the work if that was most of it.
    if worked <= 0 or (s.whole and worked < seconds / 2):
        return
    excess = max(0.0, s.joules - idle_w * seconds)
    for span, overlap in zip(spans, overlaps, strict=True):
        span.joules += excess * overlap / (worked if s.whole else seconds)
        span.covered_s += overlap
