"""A connection is kept alive by as few pings and wake-ups as it takes, and given up when nobody answers."""

from __future__ import annotations

import asyncio
import itertools
import selectors
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.transport import packets
from laconic.transport.connection import Connection
from laconic.transport.mqtt import Address, MqttLink
from often import examples

KEEP_ALIVE_S = 60
WELCOME, PONG = bytes([0x20, 2, 0, 0]), bytes([0xD0, 0])
HOURS_S = 2 * 3600.0


class _Jump(selectors.SelectSelector):
    """Waits by setting the clock forward."""

    now = 0.0
    waits = 0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout:
            self.now += timeout
            self.waits += 1
        return super().select(0)


class _Wire(asyncio.Transport):
    """The other side: a broker that answers pings until it falls silent."""

    def __init__(self, loop: asyncio.AbstractEventLoop, silent_from_s: float) -> None:
        super().__init__()
        self._loop, self._silent_from_s = loop, silent_from_s
        self.connection: Connection | None = None
        self.spoken: list[float] = []
        self.pings = 0
        self.ended: float | None = None

    def write(self, data: Any) -> None:
        assert self.connection is not None
        self.spoken.append(self._loop.time())
        self.pings += data == packets.PING
        if self._loop.time() < self._silent_from_s and data == packets.PING:
            self._loop.call_later(0.1, self.connection.data_received, PONG)

    def abort(self) -> None:
        assert self.connection is not None
        self.ended = self._loop.time()
        self._loop.call_soon(self.connection.connection_lost, None)

    def is_closing(self) -> bool:
        return self.ended is not None


def watched(
    heard: list[float], spoken: list[float], silent_from_s: float, until_s: float
) -> tuple[_Wire, _Jump]:
    """A link's watch over a connection on which something comes and goes at the times given, seconds."""
    clock = _Jump()
    loop = asyncio.SelectorEventLoop(clock)
    loop.time = lambda: clock.now  # type: ignore[method-assign]
    wire = _Wire(loop, silent_from_s)

    async def run() -> None:
        link = MqttLink(Address("127.0.0.1", keep_alive_s=KEEP_ALIVE_S), "d")
        connection, _ = link._new_connection()
        wire.connection = connection
        connection.connection_made(wire)
        connection.data_received(WELCOME)
        for at in heard:
            if at < silent_from_s:
                loop.call_at(at, connection.data_received, PONG)
        for at in spoken:
            loop.call_at(at, lambda: connection.publish("t", b"", qos=0, retain=False))
        watch = asyncio.ensure_future(link._watch(connection))
        await asyncio.wait((watch,), timeout=until_s)
        watch.cancel()

    try:
        loop.run_until_complete(run())
    finally:
        loop.close()
    return wire, clock


times = st.lists(st.floats(0.0, 1800.0, allow_subnormal=False), max_size=20)


@given(times, times, st.one_of(st.just(1e9), st.floats(0.0, 1800.0)))
@settings(max_examples=examples(60), deadline=None)
def test_the_broker_hears_from_us_in_time_and_a_silent_one_is_left_in_time(
    heard: list[float], spoken: list[float], silent_from_s: float
) -> None:
    until_s = 2400.0
    wire, _ = watched(heard, spoken, silent_from_s, until_s)
    told = [*wire.spoken, until_s if wire.ended is None else wire.ended]
    # A broker waits one and a half times as long as it was told (MQTT 3.1.1, section 3.1.2.10).
    assert all(b - a <= KEEP_ALIVE_S for a, b in itertools.pairwise(told))
    if silent_from_s > until_s:
        assert wire.ended is None
    else:
        assert wire.ended is not None
        last = [0.0, *(at for at in heard if at < min(silent_from_s, wire.ended))]
        quiet_s = wire.ended - max(last)
        # A pong may have come later than anything that was scripted.
        assert quiet_s >= 1.5 * KEEP_ALIVE_S - 0.001
        assert wire.ended <= silent_from_s + 0.1 + 1.5 * KEEP_ALIVE_S + 0.02


def test_an_idle_link_wakes_for_its_pings_and_for_nothing_else() -> None:
    wire, clock = watched([], [], 1e9, HOURS_S)
    due = HOURS_S / (KEEP_ALIVE_S * 3 / 4)
    assert due - 2 <= wire.pings <= due
    # Once to ping and once for the answer.
    assert clock.waits <= 2 * due + 5
