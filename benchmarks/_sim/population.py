"""A hundred thousand devices: a month without training, and what they cost in a world where few take part."""

from __future__ import annotations

import multiprocessing
import resource
import time
from typing import Any

from _result import Bar, at_most

from _sim.chatter import Chatter, Listener
from _sim.memory import peak_bytes
from laconic.device_sim.body import Body, build, cell
from laconic.device_sim.population import Fleet, lived
from laconic.device_sim.signals import DAY_S, Daily, Nightly
from laconic.device_sim.wire import Wire
from laconic.device_sim.world import Connection, World
from laconic.profiles import board, radio

DEVICES = 100_000
AT_WORK = 100
DAYS = 30
_USER = (0.1,) * 7 + (0.8,) * 10 + (1.8,) * 6 + (0.1,)


def measure() -> dict[str, Any]:
    """Each in a process of its own: memory is counted from its beginning."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1, maxtasksperchild=1) as pool:
        return {
            "devices": DEVICES,
            "month": pool.apply(month),
            "world": pool.apply(sparse),
            "at_work": AT_WORK,
        }


def bars(found: dict[str, Any]) -> list[Bar]:
    """Five minutes and 2 GB for the month; a record, not an engine, for a device that sleeps."""
    month, world = found["month"], found["world"]
    return [
        at_most("population, 100,000 devices x 30 days: seconds", month["seconds"], 300.0),
        at_most("population, 100,000 devices x 30 days: GB", month["peak_gb"], 2.0),
        at_most(
            "population, 100,000 devices x 30 days: joules not accounted for, relative",
            month["imbalance"],
            1e-9,
        ),
        at_most(
            "population, 100,000 devices of which 100 work: bytes for each that sleeps",
            world["bytes_asleep"],
            4096,
        ),
    ]


def month() -> dict[str, float]:
    """Availability and batteries of a fleet of phones."""
    fleet = Fleet(build(board("phone_mid"), battery=cell(5160)), DEVICES, 1, _USER)
    began = time.perf_counter()
    found = lived(fleet, DAYS * DAY_S)
    day = found.available[24 * 7 : 24 * 8]
    return {
        "seconds": time.perf_counter() - began,
        "peak_gb": peak_bytes() / 1e9,
        "imbalance": found.imbalance,
        "pieces": found.pieces,
        "swing": float(day.max() / day.min()),
        "ran_empty": int(found.deaths.sum()),
    }


def sparse() -> dict[str, float]:
    """A world of hosts of which a hundred run; memory before and after the others are added."""
    kind = build(board("phone_mid"), radio("lte_2012"), battery=cell(5160))
    world = World(seed=1, tracing=False)
    world.add("ear", Listener)
    user = Daily(_USER)

    def add(i: int, start_s: float) -> None:
        world.add(
            f"d{i}",
            lambda: Chatter(f"d{i}", 60.0, 2000),
            connection=connection,
            start_s=start_s,
            body=Body(kind, charger=Nightly(10.0, i), user=user),
        )

    connection = Connection(wire=Wire())
    for i in range(AT_WORK):
        add(i, 0.0)
    world.run(600.0)
    before = _now_bytes()
    for i in range(AT_WORK, DEVICES):
        add(i, 365 * DAY_S)
    began = time.perf_counter()
    world.run(3600.0)
    seconds = time.perf_counter() - began
    return {
        "bytes_asleep": (_now_bytes() - before) / (DEVICES - AT_WORK),
        "seconds": seconds,
        "gb": _now_bytes() / 1e9,
    }


def _now_bytes() -> float:
    with open("/proc/self/statm") as f:
        return float(f.read().split()[1]) * resource.getpagesize()
