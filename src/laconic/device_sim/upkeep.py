"""Whether a host runs: its battery, its owner, and what may go wrong with a job."""

from __future__ import annotations

from math import inf
from typing import Final, Protocol

from laconic.device_sim import chance
from laconic.device_sim.clock import Clock
from laconic.device_sim.host import Host
from laconic.device_sim.signals import DAY_S

_NEAR_S: Final = 600.0
"""A battery that may not last so long is followed exactly."""
_HORIZON_S: Final = 7 * DAY_S
"""How far ahead it is looked when an empty one will be charged."""
_LATER_S: Final = 1e-6
"""A look comes a little after what it looks for, so that rounding cannot put it before."""
_FAILS: Final = 3


class Fates(Protocol):
    """What a world does to a host."""

    def start(self, host: Host) -> None:
        """Start its process, unless it runs or may not."""
        ...

    def end(self, host: Host, why: str, back_s: float | None) -> None:
        """End its process, if it runs; it starts again after `back_s`, or when somebody starts it."""
        ...


class Upkeep:
    """Watches hosts with the fewest events there can be."""

    def __init__(self, clock: Clock, fates: Fates) -> None:
        self._clock, self._fates = clock, fates

    def began(self, host: Host) -> None:
        """Something that takes power has begun: the battery may be empty sooner than was foreseen."""
        body = host.body
        if body is None or body.build.cell is None:
            return
        if not body.on:
            self._look_at(host, self._clock.now)
            return
        lasts = self._clock.now + body.lasts_s()
        if host.watched_at is not None and host.watched_at <= lasts:
            return
        self._look_at(host, self._next_look(host))

    def follow(self, host: Host) -> None:
        """Begin with a host: its battery and its owner's comings and goings."""
        if host.body is not None and host.body.build.cell is not None:
            self._look(host)
        if host.presence is not None:
            _, until = host.presence.at(self._clock.now)
            self._turn_at(host, until)

    def present(self, host: Host) -> bool:
        """Whether its owner lets it run now."""
        return host.presence is None or host.presence.at(self._clock.now)[0] > 0

    def fails(self, host: Host, seconds: float) -> None:
        """Draw whether the job that begins now, of so many seconds, ends well."""
        failures = host.failures
        if failures is None or not (failures.drop_out or failures.crash):
            return
        key = chance.key(host.key, _FAILS)
        u = chance.uniform(key, 2 * host.jobs)
        if u >= failures.drop_out + failures.crash:
            return
        vanishes, life = u < failures.drop_out, host.life

        def fail() -> None:
            if host.life == life:
                why, back = ("vanished", failures.away_s) if vanishes else ("crashed", 0.0)
                self._fates.end(host, why, back)

        self._clock.at(self._clock.now + seconds * chance.uniform(key, 2 * host.jobs + 1), fail)

    def _turn_at(self, host: Host, when: float) -> None:
        if when < inf:
            self._clock.at(when, lambda: self._turn(host))

    def _turn(self, host: Host) -> None:
        """Its owner comes or goes."""
        assert host.presence is not None
        value, until = host.presence.at(self._clock.now)
        if value > 0:
            self._fates.start(host)
        else:
            self._fates.end(host, "left", None)
        self._turn_at(host, until)

    def _next_look(self, host: Host) -> float:
        body, now = host.body, self._clock.now
        assert body is not None
        body.advance(now)
        lasts = body.lasts_s()
        if lasts > _NEAR_S:
            return now + lasts
        return min(body.empty_at(now + _NEAR_S), now + _NEAR_S) + _LATER_S

    def _look_at(self, host: Host, when: float) -> None:
        if when == inf:
            return
        host.watched_at = when

        def look() -> None:
            if host.watched_at == when:
                host.watched_at = None
                self._look(host)

        self._clock.at(when, look)

    def _look(self, host: Host) -> None:
        body, now = host.body, self._clock.now
        assert body is not None
        body.advance(now)
        if not body.on:
            self._fates.end(host, "empty", None)
            back = body.charged_at(now + _HORIZON_S)
            if back > now:
                self._look_at(host, min(back, now + _HORIZON_S) + _LATER_S)
                return
            body.switch_on()
            self._fates.start(host)
        self._look_at(host, self._next_look(host))
