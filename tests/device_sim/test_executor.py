"""Computations that go on in threads: what happens in the world is the same."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from small import finished, fleet

from laconic.device_sim.computing import Failures
from laconic.device_sim.world import World


def played(threads: int) -> World:
    """Four devices, of whose jobs some are never finished."""
    with ThreadPoolExecutor(threads or 1) as pool:
        world = World(seed=3, executor=pool if threads else None)
        fleet(world, devices=4, rounds=4, failures=Failures(drop_out=0.1, crash=0.1, away_s=5.0))
        world.run(20_000.0, stop=lambda: finished(world))
    return world


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_leave_the_trace_as_it_is(threads: int) -> None:
    alone, together = played(0), played(threads)
    assert finished(alone)
    assert together.trace == alone.trace
    assert [(t, h, str(n)) for t, h, n in together.notes] == [(t, h, str(n)) for t, h, n in alone.notes]
