"""Versions that are refused, tried and taken back, by themselves and by hand; devices follow; crashes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import msgspec
import numpy as np
import pytest
from chronicle import LoggedWorld, logged, settle, verify
from fleet import Fleet, LinearLearner, distance

from laconic.compression import PRESETS
from laconic.coordinator.campaign import Campaign
from laconic.coordinator.engine import CoordinatorEngine
from laconic.coordinator.orders import Pin, Rollback
from laconic.coordinator.records import ModelRecord, Refusal, Status
from laconic.coordinator.verdict import ModelSettings
from laconic.device_sim.world import Connection, Speed
from laconic.edge_sdk.engine import DeviceEngine
from laconic.edge_sdk.learner import Trained
from laconic.errors import ConfigError
from laconic.node import Ordered
from laconic.protocol.messages import Training
from laconic.schema import Vector

JUDGED = ModelSettings(margin_loss=1.0, min_reports=3, significance=0.125)
DECAY = 0.999
HOSTS = ("coordinator", "d0", "d1", "d2")


@dataclass
class Saboteur(LinearLearner):
    """Learns, but in some rounds the opposite: it knows the round by its learning rate."""

    bad: frozenset[int] = frozenset()

    def train(
        self, weights: Vector, training: Training, seed: int, private: bytes, checkpoint: bytes = b""
    ) -> Trained:
        trained = super().train(weights, training, seed, private)
        number = 1 + round(math.log(training.learning_rate / 0.2) / math.log(DECAY))
        if number not in self.bad:
            return trained
        away = weights - 3 * (trained.weights - weights)
        return replace(trained, weights=away.astype(np.float32))


@dataclass
class Judged(Fleet):
    """A fleet whose devices all go wrong in `bad` rounds."""

    bad: frozenset[int] = frozenset()

    def campaign(self) -> Campaign:
        return replace(super().campaign(), learning_rate_decay=DECAY)


def begin(fleet: Judged, **options: object) -> LoggedWorld:
    world = logged(fleet, **options)
    make = fleet.learner
    fleet.learner = lambda i: replace_inner(make(i), Saboteur(i, bad=fleet.bad))
    return world


def replace_inner(learner: object, inner: Saboteur) -> object:
    learner.inner = inner  # type: ignore[attr-defined]
    return learner


def blind(weights: Vector) -> None:
    """No held-out data."""


def records(world: LoggedWorld) -> list[ModelRecord]:
    """The registry, as it is on the coordinator's disk."""
    store = world.stores["coordinator"]
    found = [store.get(key) for key in store.keys("c/default/model/")]
    return [msgspec.msgpack.decode(blob, type=ModelRecord) for blob in found if blob is not None]


def model_of(world: LoggedWorld, name: str) -> Vector:
    engine = world.node(name)
    assert isinstance(engine, DeviceEngine)
    return engine.model.weights


def order(world: LoggedWorld, what: object) -> None:
    """Give the coordinator an order now."""
    world._feed(world._hosts["coordinator"], Ordered(what))


def roll_back_at(world: LoggedWorld, when: float, version: int) -> None:
    """A person who asks for a rollback, and asks again until it is written down."""

    def ask() -> None:
        done = any(r.rollback_of is not None and r.why == "by hand" for r in records(world))
        request = world.stores["coordinator"].get("c/default/rollback")
        node = world.node("coordinator")
        if done or (request is not None and b"by hand" in request):
            return
        if isinstance(node, CoordinatorEngine) and node.courses:
            order(world, Rollback("default", version))
        world.at(world.now + 2.0, ask)

    world.at(when, ask)


def test_a_rollback_by_hand_is_a_new_version_that_devices_follow_back() -> None:
    fleet = Judged(rounds=6, interval_s=10.0)
    world = begin(fleet)
    world.run(25.0)
    before = records(world)
    assert [r.version for r in before] == [0, 1, 2, 3]
    old = world.stores["coordinator"].get("c/default/weights/00000001")
    order(world, Rollback("default", 1))
    world.run(29.0)
    last = records(world)[-1]
    assert last.rollback_of == 1
    assert last.why == "by hand"
    assert last.weights == before[1].weights
    assert {r.status for r in records(world)[2:4]} == {Status.TAKEN_BACK}
    assert old is not None
    settle(fleet, world)
    assert verify(fleet, world) == 18
    after = records(world)
    assert [r.version for r in after] == list(range(len(after)))
    assert after[last.version + 1].parent == last.name


def test_after_the_last_round_a_rollback_is_followed_too() -> None:
    fleet = Judged(rounds=3)
    world = begin(fleet)
    settle(fleet, world)
    good = records(world)[2].weights
    order(world, Rollback("default", 2))
    assert not world.node("coordinator").finished  # type: ignore[union-attr]
    settle(fleet, world)
    assert verify(fleet, world) == 9
    assert records(world)[-1].weights == good
    assert records(world)[-1].rollback_of == 2


def test_in_an_open_round_the_updates_so_far_are_dropped_and_others_stay_on_their_devices() -> None:
    fleet = Judged(rounds=4, sample_s=lambda i: (1e-3, 1e-2, 1e-1)[i], deadline_s=600.0)
    world = begin(fleet)
    # d2 takes 36 s for a round: d0 and d1 have been committed when the order comes.
    world.run(80.0)
    course = world.node("coordinator").courses["default"]  # type: ignore[union-attr]
    assert course.collecting
    assert len(course.book.committed) == 2
    order(world, Rollback("default", 0))
    settle(fleet, world)
    dropped = [n.fields["dropped"] for _, _, n in world.notes if n.kind == "rolled back"]
    assert dropped == [2]
    # d2 hears of the next round while it trains: what it learnt goes along with its next update.
    assert verify(fleet, world) == 9


def test_after_a_rollback_in_a_round_that_nobody_had_answered_the_next_one_comes_at_its_time() -> None:
    fleet = Judged(rounds=3, interval_s=10.0, sample_s=lambda i: 1e-2)
    world = begin(fleet)
    world.run(12.0)
    course = world.node("coordinator").courses["default"]  # type: ignore[union-attr]
    assert course.collecting
    assert not course.book.committed
    order(world, Rollback("default", 0))
    world.run(22.0)
    assert course.collecting, "a round in which nobody worked is followed by a pause, this one is not"
    settle(fleet, world)
    verify(fleet, world)


def test_a_rollback_takes_what_is_kept_and_pinned_versions_are() -> None:
    fleet = Judged(rounds=8, keep_versions=3)
    world = begin(fleet)
    world.run(4.0, stop=lambda: len(records(world)) > 1)
    order(world, Pin("default", 1))
    settle(fleet, world)
    with pytest.raises(ConfigError, match=r"version of the model, found 2, allowed .* 1, 6, 7, 8"):
        order(world, Rollback("default", 2))
    with pytest.raises(ConfigError, match="other weights than the newest"):
        order(world, Rollback("default", 8))
    order(world, Rollback("default", 1))
    settle(fleet, world)
    assert verify(fleet, world) == 24
    assert records(world)[-1].rollback_of == 1
    order(world, Pin("default", 1, pinned=False))
    assert world.stores["coordinator"].get("c/default/weights/00000001") is None


def test_what_held_out_data_shows_to_be_worse_is_not_published() -> None:
    fleet = Judged(rounds=5, bad=frozenset({3}), models=replace(JUDGED, margin_loss=0.05))
    world = begin(fleet)
    settle(fleet, world)
    assert [n.fields["round"] for _, _, n in world.notes if n.kind == "refused"] == [3]
    assert verify(fleet, world) == 12
    assert [r.round for r in records(world)] == [0, 1, 2, 4, 5]
    blob = world.stores["coordinator"].get("c/default/refused/00000003")
    assert blob is not None
    refusal = msgspec.msgpack.decode(blob, type=Refusal)
    assert refusal.parent == records(world)[2].name
    assert (refusal.updates, refusal.round) == (3, 3)
    assert all(refusal.weights != r.weights for r in records(world))
    losses = [r.loss for r in records(world)]
    assert losses == sorted(losses, reverse=True)


def test_with_patience_a_worse_version_is_published_and_the_second_leads_back_to_the_best() -> None:
    settings = replace(JUDGED, margin_loss=0.05, patience=2)
    fleet = Judged(rounds=6, bad=frozenset({3, 4}), models=settings)
    world = begin(fleet)
    settle(fleet, world)
    found = {r.version: r for r in records(world)}
    assert found[3].worse == 1
    assert found[3].status is Status.TAKEN_BACK
    assert [n.fields["round"] for _, _, n in world.notes if n.kind == "refused"] == [4]
    back = next(r for r in found.values() if r.rollback_of is not None)
    assert back.rollback_of == 2
    assert back.weights == found[2].weights
    verify(fleet, world)


def test_what_devices_find_worse_is_taken_back() -> None:
    fleet = Judged(rounds=6, bad=frozenset({3}), models=JUDGED, evaluate=blind)
    world = begin(fleet)
    settle(fleet, world)
    found = records(world)
    bad = found[3]
    assert (bad.round, bad.status) == (3, Status.TAKEN_BACK)
    back = next(r for r in found if r.rollback_of is not None)
    assert back.rollback_of == 2
    assert back.round == 4
    assert "3 of 3 devices" in back.why
    assert sum(r.rollback_of is not None for r in found) == 1
    measured = [r.fleet for r in found[:4]]
    assert all(f is not None and f.reports == 3 and f.samples == 360 for f in measured)
    assert measured[3].loss_median > measured[2].loss_median + 1  # type: ignore[union-attr,operator]
    # Round 3 made the bad version, round 4 found it out: the updates of round 4 are dropped.
    assert verify(fleet, world) == 15
    assert distance(model_of(world, "d0")) < 0.8


def test_devices_that_look_away_see_nothing_and_a_few_liars_decide_nothing() -> None:
    """One of three lies about a good model: no rollback. The test needs all three."""
    fleet = Judged(rounds=4, models=JUDGED, evaluate=blind)
    world = begin(fleet)
    make = fleet.learner

    def learner(i: int) -> object:
        made = make(i)
        if i == 0:
            honest, calls = made.measure, iter(range(99))
            made.measure = lambda w, p: replace(honest(w, p), loss=10.0 ** next(calls))  # type: ignore[method-assign]
        return made

    fleet.learner = learner  # type: ignore[assignment]
    settle(fleet, world)
    assert all(r.rollback_of is None for r in records(world))
    assert verify(fleet, world) == 12


def canaried(**changes: object) -> Judged:
    settings = replace(JUDGED, canary_share=0.3, canary_reports=3, canary_deadline_s=30.0)
    options = {"devices": 6, "rounds": 4, "models": settings, "evaluate": blind, **changes}
    return Judged(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("targeted", [False, True], ids=["cohort", "targeted"])
def test_a_version_is_tried_by_some_before_the_rest_hears_of_it(targeted: bool) -> None:
    fleet = canaried(bad=frozenset({2}), targeted=targeted)
    world = begin(fleet)
    settle(fleet, world)
    found = records(world)
    assert found[2].status is Status.TAKEN_BACK
    assert next(r.rollback_of for r in found if r.rollback_of is not None) == 1
    held = {
        (host, n.fields["version"])
        for _, host, n in world.notes
        if n.kind == "model" and host != "coordinator"
    }
    tried = {host for host, version in held if version == 2}
    assert 3 <= len(tried) < 6, "the bad version reached those who tried it, and nobody else"
    states = [n.fields["state"] for _, _, n in world.notes if n.kind == "trial"]
    assert states == ["begun", "passed", "begun", "begun", "passed", "begun", "passed"]
    assert all(r.status in (Status.PUBLISHED, Status.PASSAGE) for r in found if r.version != 2)
    # Those who try a version do not train on it: all that is committed is of rounds, six in each.
    assert verify(fleet, world) == 24


def test_a_trial_waits_for_enough_reports_and_asks_more() -> None:
    fleet = canaried(rounds=2)
    world = begin(fleet)
    chosen: list[str] = []

    def watch(delivery: object) -> bool:
        client, topic = delivery.client, delivery.topic  # type: ignore[attr-defined]
        if topic.endswith("/dn/task") and len(chosen) < 2 and client not in chosen:
            chosen.append(client)
            world.at(world.now, lambda: world.crash(client))
        return client in chosen[:2] and topic.endswith("/dn/task")

    world.lose = watch
    settle(fleet, world)
    states = [n.fields["state"] for _, _, n in world.notes if n.kind == "trial"]
    assert "extended" in states
    assert states.count("passed") == 2
    assert verify(fleet, world) >= 10


def crash_fleet() -> Judged:
    return Judged(
        rounds=4,
        bad=frozenset({2}),
        models=JUDGED,
        evaluate=blind,
        codec=PRESETS["dense8"],
        delta_codec=PRESETS["dense8"],
        chunk_bytes=96,
        deadline_s=20.0,
        min_reports=2,
        interval_s=3.0,
    )


def live(host: str, crash: int | None, *, survives: bool, canary: bool = False) -> LoggedWorld:
    """One automatic rollback and one by hand."""
    fleet = crash_fleet()
    if canary:
        fleet.models = replace(JUDGED, canary_share=0.9, canary_reports=3, canary_deadline_s=9.0)
    world = begin(fleet, survives=survives)
    roll_back_at(world, 8.0, 0)
    if crash is not None:
        world.crash_at_effect(host, crash)
    settle(fleet, world)
    try:
        verify(fleet, world)
    except AssertionError as e:
        raise AssertionError(f"crash of {host} before its effect {crash}: {e}") from e
    found = records(world)
    assert sum(r.rollback_of is not None and r.why == "by hand" for r in found) == 1, crash
    assert world.stores["coordinator"].get("c/default/rollback") is None
    assert world.stores["coordinator"].get("c/default/canary") is None
    return world


def test_an_undisturbed_run_has_one_rollback_of_each_kind() -> None:
    for canary in (False, True):
        found = records(live("d0", None, survives=False, canary=canary))
        assert [r.why == "by hand" for r in found if r.rollback_of is not None] == [False, True]


def crash_everywhere(host: str, *, canary: bool, start: int, stride: int) -> None:
    total = live("d0", None, survives=False, canary=canary).effects_of(host)
    assert total > 30
    for k in range(start, total, stride):
        live(host, k, survives=k % 2 == 0, canary=canary)


@pytest.mark.parametrize("canary", [False, True], ids=["untried", "tried"])
@pytest.mark.parametrize("host", HOSTS)
def test_a_crash_leaves_every_version_what_it_was(host: str, canary: bool) -> None:
    """Before some of the effects, all over the run; the test after this takes them all."""
    crash_everywhere(host, canary=canary, start=5 if canary else 0, stride=43)


@pytest.mark.soak
@pytest.mark.parametrize("canary", [False, True], ids=["untried", "tried"])
@pytest.mark.parametrize("host", HOSTS)
def test_a_crash_before_any_effect_does_too(host: str, canary: bool) -> None:
    crash_everywhere(host, canary=canary, start=0, stride=1)


@pytest.mark.parametrize("targeted", [False, True], ids=["cohort", "targeted"])
@pytest.mark.parametrize("when", [1.5, 24.0, 900.0], ids=["in a round", "between rounds", "at the end"])
def test_a_new_device_finds_the_newest_model_when_there_is_no_coordinator(
    when: float, targeted: bool
) -> None:
    fleet = Judged(rounds=4, interval_s=20.0, targeted=targeted)
    world = begin(fleet)
    world.run(when)
    newest = records(world)[-1]
    world._restart_s = 1e9
    world.crash("coordinator")
    wire = Connection(0.02, 1e5, 2e5)
    world.add("d9", lambda: fleet.device(9), connection=wire, speed=Speed(0.1), start_s=when + 5)
    world.run(when + 60)
    assert world.node("coordinator") is None
    engine = world.node("d9")
    assert isinstance(engine, DeviceEngine)
    assert engine.model.name == newest.name
    assert newest.version > 0
    assert world.stores["d9"].get("model") is not None
    topic = "laconic/v1/g/default/model"
    assert [f for _, host, f in world.asked if host == "d9"].count(topic) == 1
