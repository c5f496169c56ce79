"""A fleet with an echo: the books hold through crashes, losses and late updates; devices fall silent."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np
import pytest
from chronicle import LoggedWorld, logged, settle, verify
from fleet import BUNDLE, SCHEMA, SIZE, Fleet, LinearLearner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from laconic.compression import PRESETS
from laconic.compression.echo import EchoSettings
from laconic.coordinator.aggregation.echo import SavedEcho
from laconic.coordinator.aggregation.settings import AggregationSettings
from laconic.coordinator.engine import CoordinatorEngine
from laconic.coordinator.rounds import EVERYBODY
from laconic.coordinator.staleness import Lateness
from laconic.edge_sdk.learner import Trained
from laconic.edge_sdk.records import restore
from laconic.errors import ConfigError
from laconic.node import Started
from laconic.protocol.messages import Gate, Training
from laconic.schema import Vector
from laconic.storage import MemoryStore
from often import examples

HOSTS = ("coordinator", "d0", "d1", "d2")
LOUD = EchoSettings(0.2, 0.9)
QUIET = settings(
    max_examples=examples(15), deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)


def echoing_fleet(**changes: Any) -> Fleet:
    """Three devices that are silent now and then, five rounds, several chunks both ways."""
    fleet = Fleet(
        rounds=5,
        codec=PRESETS["dense8"],
        delta_codec=PRESETS["dense8"],
        chunk_bytes=48,
        deadline_s=20.0,
        min_reports=2,
        gate=Gate("running", 1.0, 2),
        echo=LOUD,
    )
    return replace(fleet, **changes)


def late_fleet(**changes: Any) -> Fleet:
    """Two fast devices, and one that takes several rounds of theirs."""
    return echoing_fleet(
        rounds=7,
        target_reports=2,
        over_selection=EVERYBODY,
        lateness=Lateness(max_staleness=20),
        sample_s=lambda i: 1.2e-2 if i == 2 else 1e-3,
        gate=Gate(),
        **changes,
    )


def saved(world: LoggedWorld) -> SavedEcho:
    return msgspec.msgpack.decode(
        world.stores["coordinator"].get("c/default/server-echo") or b"", type=SavedEcho
    )


def crash(host: str, *, targeted: bool, effects: range) -> None:
    """Crash before some effects; half of the time, what was sent before the kill still arrives."""
    for k in effects:
        fleet = echoing_fleet(targeted=targeted)
        world = logged(fleet, survives=k % 4 < 2)
        world.crash_at_effect(host, k)
        settle(fleet, world)
        try:
            verify(fleet, world)
        except AssertionError as e:
            raise AssertionError(f"crash of {host} before its effect {k}: {e}") from e


def effects_of(host: str, *, targeted: bool) -> int:
    fleet = echoing_fleet(targeted=targeted)
    world = logged(fleet)
    settle(fleet, world)
    assert 6 <= verify(fleet, world) < 15, "some are silent"
    return world.effects_of(host)


@pytest.mark.parametrize("host", HOSTS)
def test_a_crash_before_an_effect_leaves_the_books_right(host: str) -> None:
    start, total = HOSTS.index(host), effects_of(host, targeted=False)
    crash(host, targeted=False, effects=range(start, total, 9))


@pytest.mark.soak
@pytest.mark.parametrize("targeted", [False, True], ids=["cohort", "targeted"])
@pytest.mark.parametrize("host", HOSTS)
def test_the_same_before_any_effect(host: str, targeted: bool) -> None:
    crash(host, targeted=targeted, effects=range(effects_of(host, targeted=targeted)))


@QUIET
@given(
    late=st.booleans(),
    cuts=st.lists(st.tuples(st.sampled_from(HOSTS), st.floats(0.0, 8.0), st.floats(0.1, 30.0)), max_size=6),
    repeat=st.sampled_from([0.0, 0.2, 0.7]),
    seed=st.integers(0, 1000),
    crashes=st.dictionaries(st.sampled_from(HOSTS), st.integers(0, 100), max_size=2),
)
def test_links_that_break_crashes_and_messages_that_come_twice(
    late: bool,
    cuts: list[tuple[str, float, float]],
    repeat: float,
    seed: int,
    crashes: dict[str, int],
) -> None:
    fleet = late_fleet() if late else echoing_fleet()
    world = logged(fleet, repeat=repeat, seed=seed, survives=True)
    for host, when, length in cuts:
        world.at(when, lambda host=host, length=length: world.cut(host, length))
    for host, k in crashes.items():
        world.crash_at_effect(host, k)
    settle(fleet, world)
    verify(fleet, world)


def test_late_updates_sound_from_the_step_that_they_are_folded_into() -> None:
    fleet = late_fleet()
    world = logged(fleet)
    settle(fleet, world)
    assert verify(fleet, world) >= 14
    committed = [n.fields for _, who, n in world.notes if who == "coordinator" and n.kind == "committed"]
    assert any(n["device"] == "d2" and n["discount"] < 1 for n in committed)
    assert saved(world).tick == world.node("d0").model.version  # type: ignore[attr-defined]


@dataclass
class Pulled(LinearLearner):
    """Its own optimum is not the fleet's: at the fleet's best it learns the same step in every round."""

    def train(
        self, weights: Vector, training: Training, seed: int, private: bytes, checkpoint: bytes = b""
    ) -> Trained:
        rng = np.random.default_rng(100 + self.seed // 2)
        own = rng.normal(size=SIZE) * (1 if self.seed % 2 else -1)
        step = 0.1 * (own - weights)
        noise = 0.01 * np.random.default_rng(seed).normal(size=SIZE)
        return Trained((weights + step + noise).astype(np.float32), self.rows, 1.0, 1.0)


def sends(world: LoggedWorld) -> list[int]:
    """Rounds in which an update was committed, one entry for each."""
    return [n.fields["round"] for _, who, n in world.notes if who == "coordinator" and n.kind == "committed"]


@pytest.mark.parametrize("codec", ["exact", pytest.param("small", marks=pytest.mark.soak)])
def test_devices_whose_change_is_what_it_was_fall_silent(codec: str) -> None:
    """Each pulls its own way, all in balance: with an echo they say so a few times, without one for ever."""
    late = {}
    for name, echo in (("without", EchoSettings()), ("with", EchoSettings(0.05, 0.995))):
        fleet = Fleet(
            devices=4,
            rounds=100,
            codec=PRESETS[codec],
            delta_codec=PRESETS[codec],
            gate=Gate("absolute", 4.0, 10**6),
            echo=echo,
            learner=Pulled,
        )
        world = LoggedWorld()
        fleet.world(world)
        settle(fleet, world)
        late[name] = sum(n > 60 for n in sends(world)) / (4 * 40)
    assert late["without"] > 0.15
    assert late["with"] < 0.4 * late["without"]


def test_a_round_of_silence_makes_a_version_while_there_is_an_echo() -> None:
    fleet = echoing_fleet(rounds=6, gate=Gate("running", 1e6, 10**6))
    world = logged(fleet)
    settle(fleet, world)
    assert verify(fleet, world) == 3, "nobody speaks after the first round"
    assert saved(world).tick == 6
    counts = [
        n.fields["updates"] for _, who, n in world.notes if who == "coordinator" and n.kind == "version"
    ]
    assert counts == [0, 3, 0, 0, 0, 0, 0], "version 0 has none either"


def test_without_an_echo_a_round_of_silence_makes_none() -> None:
    fleet = echoing_fleet(rounds=6, gate=Gate("running", 1e6, 10**6), echo=EchoSettings())
    world = logged(fleet)
    settle(fleet, world)
    assert verify(fleet, world) == 3
    assert world.stores["coordinator"].get("c/default/server-echo") is None
    assert all(world.stores[f"d{i}"].get("echo") is None for i in range(3))


def echo_after(store: MemoryStore, fleet: Fleet) -> Any:
    engine = fleet.coordinator()
    engine.handle(Started(store), 1e6)
    course = engine.courses["default"]
    return course.server.fleet_echo, course.server.echo_on_offer(course.round.number)


def test_it_begins_anew_with_other_settings_or_another_newest_version() -> None:
    fleet = echoing_fleet()
    world = logged(fleet)
    settle(fleet, world)
    store, more = world.stores["coordinator"], replace(fleet, rounds=9)
    kept, told = echo_after(store, more)
    assert (kept.tick, kept.began) == (5, 1)
    disk = restore(world.stores["d0"], SCHEMA, bundle=BUNDLE, initial=np.zeros(SIZE, np.float32))
    assert told.source == disk.echo.source
    assert disk.echo.at(told.source, told.tick, LOUD)[0].values is not None
    for other, echo in ((store, EchoSettings(0.2, 0.8)), (MemoryStore(), LOUD)):
        if other is not store:
            entries = {k: store.get(k) for k in store.keys("")}
            record = msgspec.structs.replace(saved(world), version="0" * 16)
            other.write(entries | {"c/default/server-echo": msgspec.msgpack.encode(record)})
        new, offered = echo_after(other, replace(more, echo=echo))
        assert (new.values, new.tick) == (None, 0)
        assert offered.source != told.source
        assert disk.echo.at(offered.source, offered.tick, echo) == (
            replace(disk.echo, values=None, tick=0, source=offered.source, settings=echo),
            None,
        )


def test_an_echo_needs_the_plain_mean() -> None:
    for rule in (AggregationSettings("median"), AggregationSettings("norm_bound", norm_limit=1.0),
                 AggregationSettings(bucket_size=2)):  # fmt: skip
        fleet = echoing_fleet(aggregation=rule, min_reports=3)
        engine = CoordinatorEngine([(fleet.campaign(), fleet.subject())])
        with pytest.raises(ConfigError, match=r"gate\.echo_gain"):
            engine.handle(Started(MemoryStore()), 0.0)
