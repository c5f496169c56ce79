"""kill -9 anywhere, nothing lost, nothing counted twice: crashes at every effect, cut links, duplicates."""

from __future__ import annotations

import random

import pytest
from chronicle import LoggedWorld, logged, settle, verify
from fleet import Fleet
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from laconic.compression import PRESETS
from laconic.protocol import topics
from laconic.protocol.messages import Ack, Fate, decode
from laconic.transport.broker import Delivery
from often import examples, points

HOSTS = ("coordinator", "d0", "d1", "d2")
QUIET = settings(
    max_examples=examples(60), deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)


def small_fleet(*, targeted: bool) -> Fleet:
    """Three devices, three rounds, several chunks both ways; one device sends its updates in one message."""
    return Fleet(
        codec=PRESETS["dense8"],
        delta_codec=PRESETS["dense8"],
        chunk_bytes=48,
        own_chunk_bytes=lambda i: 48 if i else 4096,
        targeted=targeted,
        deadline_s=20.0,
        min_reports=2,
    )


def effects_of(*, targeted: bool) -> dict[str, int]:
    """How many effects each host carries out in an undisturbed run."""
    fleet = small_fleet(targeted=targeted)
    world = logged(fleet)
    settle(fleet, world)
    assert verify(fleet, world) == 9
    return {name: world.effects_of(name) for name in HOSTS}


def crash_everywhere(host: str, *, targeted: bool, parity: int) -> None:
    """Crash before every effect; at every second one, what was sent before the kill still arrives."""
    total = effects_of(targeted=targeted)[host]
    assert total > 40
    for k in points(0, total, stride=3):
        fleet = small_fleet(targeted=targeted)
        world = logged(fleet, survives=k % 2 == parity)
        world.crash_at_effect(host, k)
        settle(fleet, world)
        assert crashes(world) == [host], k
        try:
            committed = verify(fleet, world)
        except AssertionError as e:
            raise AssertionError(f"crash of {host} before its effect {k}: {e}") from e
        assert committed >= 6, k


def crashes(world: LoggedWorld) -> list[str]:
    """Who has crashed, in order."""
    return [line.split()[1] for line in world.trace if line.endswith(" crashed")]


@pytest.mark.thinned
@pytest.mark.parametrize("targeted", [False, True], ids=["cohort", "targeted"])
@pytest.mark.parametrize("host", HOSTS)
def test_a_crash_before_any_effect_loses_nothing_and_counts_nothing_twice(host: str, targeted: bool) -> None:
    crash_everywhere(host, targeted=targeted, parity=0)


@pytest.mark.soak
@pytest.mark.parametrize("targeted", [False, True], ids=["cohort", "targeted"])
@pytest.mark.parametrize("host", HOSTS)
def test_the_same_with_the_other_half_of_the_fates(host: str, targeted: bool) -> None:
    crash_everywhere(host, targeted=targeted, parity=1)


@QUIET
@given(
    targeted=st.booleans(),
    survives=st.booleans(),
    blows=st.lists(st.tuples(st.sampled_from(HOSTS), st.floats(0.0, 6.0)), min_size=2, max_size=6),
    effects=st.dictionaries(st.sampled_from(HOSTS), st.integers(0, 80), max_size=3),
)
def test_crashes_upon_crashes(
    targeted: bool, survives: bool, blows: list[tuple[str, float]], effects: dict[str, int]
) -> None:
    fleet = small_fleet(targeted=targeted)
    world = logged(fleet, survives=survives)
    for host, when in blows:
        world.at(when, lambda host=host: world.crash(host))
    for host, k in effects.items():
        world.crash_at_effect(host, k)
    settle(fleet, world)
    assert len(crashes(world)) >= 1
    assert verify(fleet, world) >= 6


@QUIET
@given(
    targeted=st.booleans(),
    cuts=st.lists(
        st.tuples(st.sampled_from(HOSTS), st.floats(0.0, 8.0), st.floats(0.1, 30.0)), min_size=1, max_size=8
    ),
    repeat=st.sampled_from([0.0, 0.2, 0.7]),
    seed=st.integers(0, 1000),
    crash=st.none() | st.tuples(st.sampled_from(HOSTS), st.integers(0, 80)),
)
def test_links_that_break_and_messages_that_come_twice(
    targeted: bool,
    cuts: list[tuple[str, float, float]],
    repeat: float,
    seed: int,
    crash: tuple[str, int] | None,
) -> None:
    fleet = small_fleet(targeted=targeted)
    world = logged(fleet, repeat=repeat, seed=seed, survives=True)
    for host, when, length in cuts:
        world.at(when, lambda host=host, length=length: world.cut(host, length))
    if crash is not None:
        world.crash_at_effect(*crash)
    settle(fleet, world)
    assert verify(fleet, world) >= 6


def test_an_answer_lost_for_rounds_is_given_again_and_the_update_counted_once() -> None:
    """The device hears nothing after its update was committed, and asks again rounds later."""
    fleet = small_fleet(targeted=False)
    fleet.rounds, fleet.deadline_s, fleet.min_devices = 6, 4.0, 2
    world = logged(fleet)
    deaf_from: list[float] = []

    def watch(d: Delivery) -> bool:
        """Lose the first `committed` on its way to d0, and the link with it."""
        if d.client != "d0" or d.topic != topics.ack("d0"):
            return False
        if decode(Ack, d.payload).fate is not Fate.COMMITTED or deaf_from:
            return False
        deaf_from.append(world.now)
        world.cut("d0", 4.0)
        return True

    world.lose = watch
    settle(fleet, world)
    assert deaf_from
    assert verify(fleet, world) >= 14
    opened = [t for t, _, n in world.notes if n.kind == "opened"]
    assert sum(deaf_from[0] < t < deaf_from[0] + 4.0 for t in opened) >= 3, "rounds went by meanwhile"
    again = [n for t, _, n in world.notes if n.kind == "duplicate" and n.fields["device"] == "d0"]
    assert again


@pytest.mark.soak
@pytest.mark.parametrize("block", range(4))
def test_random_lives(block: int) -> None:
    """Cuts, crashes and duplicates as chance has them: a thousand runs in all."""
    for seed in range(250 * block, 250 * (block + 1)):
        live_by_chance(seed)


def live_by_chance(seed: int) -> None:
    """One run."""
    chance = random.Random(seed)
    fleet = small_fleet(targeted=chance.random() < 0.5)
    world = logged(fleet, repeat=chance.choice([0.0, 0.3, 0.7]), seed=seed, survives=True)
    hosts = ["coordinator", "d0", "d1", "d2"]
    for _ in range(chance.randint(0, 6)):
        host, when = chance.choice(hosts), chance.uniform(0, 9)
        length = chance.choice([0.55, 0.7, chance.uniform(0.5, 30)])
        world.at(when, lambda host=host, length=length: world.cut(host, length))
    for _ in range(chance.randint(0, 3)):
        host, when = chance.choice(hosts), chance.uniform(0, 12)
        world.at(when, lambda host=host: world.crash(host))
    if chance.random() < 0.5:
        world.crash_at_effect(chance.choice(hosts), chance.randint(0, 120))
    settle(fleet, world)
    assert verify(fleet, world) >= 6, seed
