"""How many events of devices the engine carries out in a minute, with every joule and byte accounted for."""

from __future__ import annotations

import time
from typing import Any

from _result import Bar, at_least

from _sim.chatter import Chatter, Listener
from laconic.device_sim.body import Body, build, cell
from laconic.device_sim.computing import Speed
from laconic.device_sim.energy import Part
from laconic.device_sim.links import Connection
from laconic.device_sim.radio import compiled
from laconic.device_sim.signals import Daily, Nightly
from laconic.device_sim.wire import Wire
from laconic.device_sim.world import World
from laconic.profiles import board, radio

DEVICES = 2000
SECONDS = 6000.0
LEAST = 1_000_000


def measure() -> dict[str, Any]:
    """Events a minute of wakes, jobs, messages and answers; with and without accounts."""
    return {"devices": DEVICES, "bare": rate(accounts=False), "accounted": rate(accounts=True)}


def bars(found: dict[str, Any]) -> list[Bar]:
    """A million device-events a minute: what nodes of devices are fed."""
    return [
        at_least(f"events, {kind}: device-events a minute", found[kind]["device_events_per_minute"], LEAST)
        for kind in ("bare", "accounted")
    ]


def rate(*, accounts: bool) -> dict[str, float]:
    """One run."""
    power = compiled(radio("lte_2012"))
    kind = build(board("phone_mid"), radio("lte_2012"), battery=cell(5160))
    world = World(seed=3, tracing=False)
    fed = Counter()
    world.add("ear", Listener, connection=Connection(0.01, 1e9, 1e9))
    for i in range(DEVICES):
        world.add(
            f"d{i}",
            lambda i=i: fed.counted(Chatter(f"d{i}", 100.0 + 0.01 * i, 2000)),
            connection=Connection(
                0.05, power.up_bytes_per_s, power.down_bytes_per_s, wire=Wire() if accounts else None
            ),
            speed=Speed(5.0),
            body=Body(kind, charge=0.9, charger=Nightly(10.0, i), user=Daily((0.1, 0.8, 0.8, 0.1)))
            if accounts
            else None,
        )
    # Seconds of the processor: other programs on the machine do not count.
    began = time.process_time()
    world.run(SECONDS)
    world.settle()
    seconds = time.process_time() - began
    first = world.host("d0").body
    return {
        "device_events": fed.count,
        "queue_entries": world.events,
        "cpu_seconds": seconds,
        "device_events_per_minute": 60 * fed.count / seconds,
        "joules_radio_d0": first.ledger[Part.TAIL] if first else 0.0,
    }


class Counter:
    """Counts what devices' nodes are fed."""

    def __init__(self) -> None:
        self.count = 0

    def counted(self, node: Chatter) -> Chatter:
        inner = node.handle

        def handle(event: Any, now: float) -> Any:
            self.count += 1
            return inner(event, now)

        node.handle = handle  # type: ignore[method-assign]
        return node
