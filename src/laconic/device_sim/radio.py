"""A radio's joules: idle, promotion, active, tail.

Power is piecewise constant: a promotion before a transfer that finds the radio idle, alpha_up x Mbit/s up +
alpha_down x Mbit/s down + beta in transfer, and the stages of the tail until the next transfer begins (Huang
et al., "A Close Examination of Performance and Power Characteristics of 4G LTE Networks", MobiSys 2012,
section 4). Within a stage the cycles of discontinuous reception (3GPP TS 36.321, section 5.7) count with
their mean power.
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass
from enum import IntEnum
from math import inf
from typing import Final

from laconic.errors import LocalProtocolError
from laconic.profiles import LinearRadio, Origin, worst
from laconic.profiles import Radio as Profile

_SHORTEST_S: Final = 1e-9


class State(IntEnum):
    """What a radio is doing."""

    IDLE = 0
    PROMOTION = 1
    ACTIVE = 2
    TAIL = 3


@dataclass(frozen=True, slots=True)
class RadioPower:
    """A profile in watts and joules."""

    promotion_s: float
    promotion_w: float
    active_w: float
    up_j_per_byte: float
    down_j_per_byte: float
    tail: tuple[tuple[float, float], ...]
    """Of each stage: seconds from the transfer to its end, watts."""
    idle_w: float
    up_bytes_per_s: float
    down_bytes_per_s: float
    origins: tuple[Origin, Origin, Origin, Origin]
    """How well the power of each `State` is known."""

    @property
    def tail_s(self) -> float:
        """How long the tail is."""
        return self.tail[-1][0] if self.tail else 0.0

    @property
    def most_w(self) -> float:
        """No state takes more while both ways run at the radio's own rates."""
        busy = self.up_bytes_per_s * self.up_j_per_byte + self.down_bytes_per_s * self.down_j_per_byte
        return max(self.promotion_w, self.active_w + busy, self.idle_w, *(w for _, w in self.tail))


def compiled(profile: Profile) -> RadioPower:
    """The profile as the state machine wants it.

    A radio of which sending and receiving are known takes the power of receiving, or of its tail if that is
    less, while a transfer is open, and the difference while bytes pass at its own rate.
    """
    tail, ends = [], 0.0
    for stage in profile.tail:
        ends += stage.time_s.value
        tail.append((ends, stage.mean_w))
    up_mbps, down_mbps = profile.up_mbps.value, profile.down_mbps.value
    if isinstance(profile, LinearRadio):
        up, down, base = profile.alpha_up.value, profile.alpha_down.value, profile.beta_mw.value
        active = worst(profile.alpha_up.origin, profile.alpha_down.origin, profile.beta_mw.origin)
    else:
        tx, rx = profile.tx_mw.value, profile.rx_mw.value
        base = min(rx, *(1e3 * w for _, w in tail), tx)
        up, down = (tx - base) / up_mbps, (rx - base) / down_mbps
        # What a byte costs depends on the rate at which it passes.
        active = worst(
            profile.tx_mw.origin, profile.rx_mw.origin, profile.up_mbps.origin, profile.down_mbps.origin
        )
    return RadioPower(
        promotion_s=profile.promotion_s.value,
        promotion_w=profile.promotion_mw.value * 1e-3,
        active_w=base * 1e-3,
        up_j_per_byte=up * 8e-9,
        down_j_per_byte=down * 8e-9,
        tail=tuple(tail),
        idle_w=profile.idle.mean_w,
        up_bytes_per_s=up_mbps * 125_000,
        down_bytes_per_s=down_mbps * 125_000,
        origins=(
            profile.idle.power_mw.origin,
            worst(profile.promotion_s.origin, profile.promotion_mw.origin),
            active,
            worst(*(q for s in profile.tail for q in (s.time_s.origin, s.power_mw.origin))),
        ),
    )


class Radio:
    """The transfers of one radio, and its power at any moment from the last `forget` on."""

    __slots__ = ("_last_end", "_spans", "_tail_s", "power")

    def __init__(self, power: RadioPower) -> None:
        self.power, self._tail_s = power, power.tail_s
        self._spans: list[tuple[float, float, float]] = []
        """Begin, end, watts, in order: of thousands that wait on a slow link the first few matter now."""
        self._last_end = -inf

    def ready(self, wanted: float) -> float:
        """When bytes can pass that are wanted at `wanted`: later only if the radio must be promoted."""
        if self._spans:
            # A large update is a hundred transfers, each told as soon as the one before it is.
            begin, end, _ = self._spans[-1]
            if begin <= wanted < end + self._tail_s:
                return wanted
        state, _, until = self.at(wanted)
        if state is State.IDLE:
            return wanted + self.power.promotion_s
        return until if state is State.PROMOTION else wanted

    def transfer(self, begin: float, end: float, *, up_bytes: float = 0.0, down_bytes: float = 0.0) -> None:
        """Bytes pass evenly from `begin` to `end`; a promotion, if it takes one, is over at `begin`.

        Raises `LocalProtocolError` for a transfer that ends before it begins.
        """
        if end < begin:
            raise LocalProtocolError("end of a transfer", value=end, limit=f"from {begin} on")
        end = max(end, begin + _SHORTEST_S * max(1.0, abs(begin)))
        joules = up_bytes * self.power.up_j_per_byte + down_bytes * self.power.down_j_per_byte
        insort(self._spans, (begin, end, joules / (end - begin)))

    def open(self, begin: float) -> None:
        """A transfer begins whose end nobody knows yet; whoever closes it books what its bytes take."""
        insort(self._spans, (begin, inf, 0.0))

    def close(self, t: float) -> None:
        """The first of those that are open ends. Raises `LocalProtocolError` if none is."""
        for i, (begin, end, watts) in enumerate(self._spans):
            if end == inf:
                self._spans[i] = (begin, max(t, begin), watts)
                return
        raise LocalProtocolError("open transfers", value=0, limit="at least 1")

    def at(self, t: float) -> tuple[State, float, float]:
        """The state at `t`, its watts, and until when both hold: later than `t`."""
        last, following, until, watts, active = self._last_end, inf, inf, 0.0, False
        for begin, end, w in self._spans:
            if begin > t:
                following = begin
                break
            if t < end:
                active, watts, until = True, watts + w, end if end < until else until
            elif end > last:
                last = end
        if active:
            return State.ACTIVE, self.power.active_w + watts, until if until < following else following
        for seconds, w in self.power.tail:
            until = last + seconds
            if t < until:
                return State.TAIL, w, until if until < following else following
        promoted = following - self.power.promotion_s
        if t >= promoted:
            return State.PROMOTION, self.power.promotion_w, following
        return State.IDLE, self.power.idle_w, promoted

    def rests(self, t: float) -> bool:
        """Whether it idles at `t`, and from then on as long as nothing is begun."""
        return not self._spans and self._last_end + self._tail_s <= t

    def cut(self, t: float) -> None:
        """The link is gone: nothing passes after `t`."""
        self._spans = [(b, min(e, t), w) for b, e, w in self._spans if b < t]

    def forget(self, t: float) -> None:
        """Nobody will ask for a moment before `t` again."""
        begun, kept = 0, []
        for span in self._spans:
            if span[0] > t:
                break
            begun += 1
            if span[1] > t:
                kept.append(span)
            elif span[1] > self._last_end:
                self._last_end = span[1]
        if begun == len(self._spans):
            self._spans = kept
        elif len(kept) < begun:
            self._spans[:begun] = kept

    def joules(self, since: float, until: float) -> tuple[float, float, float, float]:
        """The energy between two moments, by `State`."""
        spent, t = [0.0, 0.0, 0.0, 0.0], since
        while t < until:
            state, watts, end = self.at(t)
            end = min(end, until)
            spent[state] += watts * (end - t)
            t = end
        return spent[0], spent[1], spent[2], spent[3]
