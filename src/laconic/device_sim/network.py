"""Carries messages between hosts and the broker: when they arrive, what they weigh, what the radio does."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Final

from laconic.device_sim import chance
from laconic.device_sim.clock import Action, Clock
from laconic.device_sim.host import Host
from laconic.device_sim.links import Lane
from laconic.device_sim.medium import Share
from laconic.device_sim.wire import Bytes, on_ip
from laconic.transport.link import PING_SHARE

_UP: Final = 1
_DOWN: Final = 2


class Network:
    """All links of a world. `began` is told of a host whose radio has been given something to do."""

    def __init__(self, clock: Clock, began: Callable[[Host], None]) -> None:
        self._clock, self._began = clock, began

    def connect(self, host: Host, size: Bytes | None, then: Action) -> None:
        """The handshakes; `then` comes when they are over, at once for a link whose wire is not modelled."""
        now, wire = self._clock.now, host.connection.wire
        host.up_free_at = host.down_free_at = host.heard_at = now
        for lane in (host.up, host.down):
            if lane is not None:
                lane.renew()
        if wire is None or size is None:
            then()
            return
        c = host.connection
        seconds = 2 * c.latency_s * wire.round_trips()
        seconds += size.forth / c.up_bytes_per_s + size.back / c.down_bytes_per_s
        begin = self._awake(host, now)
        self._weigh(host, size.forth, size.back)
        self._radio(host, begin, begin + seconds, on_ip(size.forth), on_ip(size.back))
        self._clock.at(begin + seconds, then)

    def up(self, host: Host, size: Bytes, arrive: Action) -> None:
        """A message to the broker, after those before it; `size.back` comes back for it."""
        c = host.connection
        self._weigh(host, size.forth, size.back)
        if c.medium:
            self._share(host, c.medium.up, size, up=True, arrive=arrive)
            return
        if host.up is None:
            host.up = Lane(chance.key(host.key, _UP))
        begin = self._awake(host, max(self._clock.now, host.up_free_at))
        passage = host.up.carry(c, size.forth, begin, c.up_bytes_per_s, c.up_trace)
        host.bytes_up += passage.again
        host.up_free_at = passage.passed
        self._radio(host, begin, passage.passed, on_ip(size.forth + passage.again), on_ip(size.back))
        self._clock.at(passage.arrives, arrive)

    def down(self, host: Host, size: Bytes, arrive: Action) -> None:
        """A message from the broker, after those before it; `size.back` goes back for it."""
        c = host.connection
        self._weigh(host, size.back, size.forth)
        if c.medium:
            self._share(host, c.medium.down, size, up=False, arrive=arrive)
            return
        if host.down is None:
            host.down = Lane(chance.key(host.key, _DOWN))
        begin = self._awake(host, max(self._clock.now, host.down_free_at))
        passage = host.down.carry(c, size.forth, begin, c.down_bytes_per_s, c.down_trace)
        host.down_free_at = passage.passed
        self._radio(host, begin, passage.passed, on_ip(size.back), on_ip(size.forth))
        self._clock.at(passage.arrives, arrive)

    def keep_alive(self, host: Host) -> None:
        """Ping whenever nothing has passed for long enough, for as long as this connection lasts."""
        wire = host.connection.wire
        if wire is None or wire.keep_alive_s is None:
            return
        wait_s, size, link = wire.keep_alive_s * PING_SHARE, wire.ping(), host.link

        def look() -> None:
            if host.link != link or not host.linked:
                return
            if self._clock.now >= host.heard_at + wait_s:
                self.up(host, size, lambda: None)
            self._clock.at(host.heard_at + wait_s, look)

        self._clock.at(host.heard_at + wait_s, look)

    def broken(self, host: Host) -> None:
        """The link is gone: what is under way is not sent to its end."""
        now, medium = self._clock.now, host.connection.medium
        if medium:
            for share in (medium.up, medium.down):
                share.leave(host.name, now)
                self._watch(share)
        if host.body and host.body.radio:
            host.body.advance(now)
            host.body.radio.cut(now)

    def _weigh(self, host: Host, up: int, down: int) -> None:
        host.bytes_up += up
        host.bytes_down += down
        host.heard_at = self._clock.now

    def _awake(self, host: Host, wanted: float) -> float:
        """When the radio can begin."""
        body = host.body
        if body is None or body.radio is None:
            return wanted
        body.advance(self._clock.now)
        return body.radio.ready(wanted)

    def _radio(
        self, host: Host, begin: float, end: float, up: tuple[int, int], down: tuple[int, int]
    ) -> None:
        """Bytes of writes each way and of TCP's acknowledgements of them pass from `begin` to `end`."""
        up_bytes, down_bytes = up[0] + down[1], down[0] + up[1]
        host.ip_bytes_up += up_bytes
        host.ip_bytes_down += down_bytes
        body = host.body
        if body and body.radio:
            body.radio.transfer(begin, end, up_bytes=up_bytes, down_bytes=down_bytes)
            self._began(host)

    def _share(self, host: Host, share: Share, size: Bytes, *, up: bool, arrive: Action) -> None:
        """Through a medium: when it ends depends on what others begin meanwhile."""
        now, c = self._clock.now, host.connection
        forth, acks = on_ip(size.forth)
        back, back_acks = on_ip(size.back)
        way, other = (forth + back_acks, back + acks), (back + acks, forth + back_acks)
        up_bytes, down_bytes = way if up else other
        host.ip_bytes_up += up_bytes
        host.ip_bytes_down += down_bytes
        begin = self._awake(host, now)
        if host.body and host.body.radio:
            host.body.radio.open(begin)
            self._began(host)

        def passed() -> None:
            if host.body and host.body.radio:
                host.body.advance(self._clock.now)
                # Empty at this very moment, its radio is another one, and its process is about to end.
                if host.body.on:
                    host.body.close_transfer(up_bytes, down_bytes)
                self._began(host)
            self._clock.at(self._clock.now + c.latency_s, arrive)
            self._watch(share)

        link = host.link

        def enter() -> None:
            if host.link == link:
                share.enter(host.name, forth, passed, self._clock.now)
                self._watch(share)

        self._clock.at(begin, enter)

    def _watch(self, share: Share) -> None:
        if (due := share.next_at()) < inf:
            self._clock.at(due, lambda: share.finish(self._clock.now))
