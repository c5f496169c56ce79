"""The gate and the owner's limits: what is not worth its bytes does not travel."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from chronicle import LoggedWorld, logged, settle, verify
from fleet import BUNDLE, SCHEMA, SIZE, TRUTH, Fleet, LinearLearner
from hypothesis import given
from hypothesis import strategies as st

from laconic.compression import PRESETS
from laconic.coordinator.budgets import Budget
from laconic.edge_sdk.engine import DeviceEngine, DeviceSettings
from laconic.edge_sdk.learner import Trained
from laconic.edge_sdk.policy import Limits, refusal
from laconic.edge_sdk.records import restore
from laconic.edge_sdk.sensors import Readings
from laconic.node import Compute, Computed, Connected, Received, Save, Started
from laconic.protocol import messages as m
from laconic.protocol import topics
from laconic.protocol.messages import Eligibility, Gate, Offer, Training
from laconic.schema import Vector
from laconic.storage import MemoryStore

# --- gate --------------------------------------------------------------------------------------------------


def fading(call: int) -> float:
    """How far towards the truth a learner goes at its n-th call."""
    return max(0.5 ** (2 * call), 0.004)


@dataclass
class FadingLearner(LinearLearner):
    """Changes less and less, and in the end very little, whatever the model."""

    calls: list[int] = field(default_factory=list)

    def train(
        self, weights: Vector, training: Training, seed: int, private: bytes, checkpoint: bytes = b""
    ) -> Trained:
        self.calls.append(1)
        step = TRUTH * np.float32(fading(len(self.calls)))
        return Trained(weights + step, self.rows, 1.0, 0.5)


def test_a_fleet_that_stops_changing_falls_silent_and_keeps_what_it_did_not_send() -> None:
    learners = [FadingLearner(i) for i in range(3)]
    fleet = Fleet(rounds=10, gate=Gate("absolute", 1.0, 10**6), codec=PRESETS["exact"])
    world = logged(fleet)
    fleet.learner = lambda i: learners[i]
    made: dict[str, Vector] = {f"d{i}": np.zeros(SIZE, np.float32) for i in range(3)}
    settle(fleet, world)

    by_round: dict[int, set[str]] = {}
    for _, host, n in world.notes:
        if host == "coordinator" and n.kind in ("committed", "skipped"):
            by_round.setdefault(int(str(n.fields["round"])), set()).add(n.kind)
    assert by_round[1] == {"committed"}
    assert by_round[10] == {"skipped"}
    order = ["skipped" in by_round[r] for r in range(1, 11)]
    assert order == sorted(order), "once silent, silent for good"

    skips = [n.fields for _, h, n in world.notes if h == "coordinator" and n.kind == "skipped"]
    for s in skips:
        assert s["why"] == "gate"
        assert s["weight"] == 120, "a silent device weighs as much as one that speaks"
        assert float(str(s["norm"])) < float(str(s["threshold"])) == 1.0
    assert all(len(learner.calls) == 10 for learner in learners)
    for i, name in enumerate(made):
        disk = restore(world.stores[name], SCHEMA, bundle=BUNDLE, initial=np.zeros(SIZE, np.float32))
        sent = by_round_count(world, name)
        kept = sum(fading(k) for k in range(sent + 1, len(learners[i].calls) + 1))
        np.testing.assert_allclose(disk.residual.values, TRUTH * np.float32(kept), rtol=1e-3, atol=1e-4)
        assert np.linalg.norm(disk.residual.values) > 0.1
    sent_bytes = sum(
        len(m.decode(m.Fin, p).frame) if t.endswith("/fin") else len(p)
        for t, p in world.published
        if "/up/u/" in t
    )
    assert sent_bytes == sum(int(str(n.fields["frame_bytes"])) for _, _, n in world.notes
                             if n.kind == "committed" and "frame_bytes" in n.fields)  # fmt: skip


def by_round_count(world: LoggedWorld, device: str) -> int:
    return sum(
        n.kind == "committed" and n.fields.get("device") == device
        for _, host, n in world.notes
        if host == "coordinator"
    )


def test_silence_counts_with_its_weight_in_the_mean() -> None:
    """Two devices, one silent: the model moves half as far as the one that speaks wants."""
    fleet = Fleet(devices=2, rounds=1, gate=Gate("absolute", 1.0, 10), codec=PRESETS["exact"],
                  delta_codec=PRESETS["exact"])  # fmt: skip
    world = logged(fleet)
    loud, quiet = FadingLearner(0), FadingLearner(1, calls=[1] * 5)
    fleet.learner = lambda i: (loud, quiet)[i]
    settle(fleet, world)
    weights = np.frombuffer(world.stores["coordinator"].get("c/default/weights/00000001") or b"", "<f4")
    np.testing.assert_allclose(weights, 0.5 * 0.25 * TRUTH, rtol=1e-5)


def test_a_forced_update_says_what_silence_has_gathered() -> None:
    fleet = Fleet(rounds=9, gate=Gate("absolute", 1e9, 3))
    world = logged(fleet)
    settle(fleet, world)
    committed = [n.fields["round"] for _, h, n in world.notes if h == "coordinator" and n.kind == "committed"]
    assert sorted(set(committed)) == [4, 8]
    assert verify(fleet, world) == 6


def test_a_running_gate_sends_first_and_adapts() -> None:
    fleet = Fleet(rounds=10, gate=Gate("running", 0.9, 4))
    world = logged(fleet)
    settle(fleet, world)
    assert 3 <= verify(fleet, world) < 30
    first = [n for _, h, n in world.notes if h == "coordinator" and n.kind == "committed"][:3]
    assert {n.fields["round"] for n in first} == {1}


def test_a_steered_gate_tells_its_rate_beside_its_target() -> None:
    fleet = Fleet(rounds=60, gate=Gate("steered", 0.0, 10**6, 0.25), codec=PRESETS["exact"])
    world = logged(fleet)
    settle(fleet, world)
    told = [
        n.fields
        for _, h, n in world.notes
        if h == "coordinator" and n.kind in ("committed", "skipped") and n.fields["device"] == "d0"
    ]
    assert {f["target"] for f in told} == {0.25}
    assert abs(float(str(told[-1]["rate"])) - 0.25) <= 0.05
    assert sum("update" in f for f in told) in range(13, 18)
    assert verify(fleet, world) < 3 * 20


def test_a_gate_is_steered_to_bytes_a_day_over_restarts() -> None:
    """Frames of 356 bytes or so, a round every 100 s: 864 rounds a day, of which every fourth is paid for."""
    fleet = Fleet(
        devices=1,
        rounds=60,
        interval_s=100.0,
        gate=Gate("steered", 0.0, 10**6, 0.0, 864 * 90.0),
        codec=PRESETS["exact"],
    )
    world = fleet.world()
    world.run(2000.0)
    world.crash("d0")
    fleet.run(world, 20_000.0)
    said = [n for _, h, n in world.notes if h == "coordinator" and n.kind in ("committed", "skipped")]
    targets = [float(str(n.fields["target"])) for n in said]
    assert targets[0] == 1.0, "what a frame costs is not known yet"
    assert 0.2 < targets[-1] < 0.3
    assert sum(n.kind == "committed" for n in said) in range(11, 20)


# --- limits ------------------------------------------------------------------------------------------------


@dataclass
class Gauge:
    """Sensors that show what a test wants."""

    readings: Readings = field(default_factory=Readings)

    def read(self, now: float) -> Readings:
        return self.readings

    def worked(self, seconds: float) -> None:
        return None


CASES: dict[str, tuple[Limits, Eligibility, Readings]] = {
    "battery": (Limits(min_charge=0.5), Eligibility(), Readings(charge=0.49)),
    "battery by the task": (Limits(), Eligibility(min_charge=0.5), Readings(charge=0.49)),
    "charging": (Limits(only_charging=True), Eligibility(), Readings(charge=1.0)),
    "charging by the task": (Limits(), Eligibility(only_charging=True), Readings(charge=1.0)),
    "metered": (Limits(only_unmetered=True), Eligibility(), Readings(metered=True)),
    "metered by the task": (Limits(), Eligibility(only_unmetered=True), Readings(metered=True)),
    "budget": (Limits(max_bytes_per_day=10_000), Eligibility(), Readings(bytes_up=6000, bytes_down=2000)),
}


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_a_limit_is_kept_before_a_byte_of_model_or_update_travels(case: str, targeted: bool) -> None:
    limits, eligibility, readings = CASES[case]
    fine = Readings(charge=1.0, charging=True)
    fleet = Fleet(
        rounds=2, targeted=targeted, eligibility=eligibility, deadline_s=5.0, min_devices=3,
        sensors=lambda i: Gauge(readings if i == 0 else fine),
    )  # fmt: skip
    world = logged(fleet)
    device = fleet.device
    fleet.device = lambda i: (  # type: ignore[method-assign]
        DeviceEngine(DeviceSettings("d0", limits=limits), fleet.learner(0), Gauge(readings))
        if i == 0
        else device(i)
    )
    settle(fleet, world)
    why = case.split()[0]
    reasons = {n.fields["why"] for _, h, n in world.notes if h == "d0" and n.kind == "skipped"}
    asked = not (targeted and "by the task" in case)
    assert reasons == ({why} if asked else set()), "the ledger knows the task's terms and does not even ask"
    said = [t for t, _ in world.published if t.startswith(topics.state("d0").removesuffix("state"))]
    assert not [t for t in said if "/u/" in t]
    assert [f for _, host, f in world.asked if host == "d0" and "/m/" in f] == []
    skips = [n.fields for _, h, n in world.notes if h == "coordinator" and n.kind == "skipped"]
    if asked:
        assert {s["why"] for s in skips} == {why}
    assert not [n for _, h, n in world.notes if h == "d0" and n.kind == "training"]
    versions = [n.fields for _, _, n in world.notes if n.kind == "version"]
    # Whose budget is spent is not heard of again that day.
    expected = [1, 0] if case == "budget" else [1, 1] if asked else [0, 0]
    assert [v["silent"] for v in versions[1:]] == expected
    assert [v["updates"] for v in versions[1:]] == [2, 2]


@given(
    st.none() | st.floats(0, 1), st.booleans(), st.booleans(), st.floats(0, 1), st.floats(0, 1),
    st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans()),
)  # fmt: skip
def test_the_owner_and_the_task_must_both_agree(
    charge: float | None, charging: bool, metered: bool, floor: float, terms_floor: float,
    flags: tuple[bool, bool, bool, bool],
) -> None:  # fmt: skip
    limits = Limits(min_charge=floor, only_charging=flags[0], only_unmetered=flags[1])
    terms = Eligibility(min_charge=terms_floor, only_charging=flags[2], only_unmetered=flags[3])
    readings = Readings(charge=charge, charging=charging, metered=metered)
    both = refusal(limits, terms, readings)
    owner, task = refusal(limits, Eligibility(), readings), refusal(Limits(), terms, readings)
    assert (both is None) == (owner is None and task is None)
    assert both in (None, owner, task)


def test_a_budget_of_a_day_is_new_the_next_day_and_outlives_a_restart() -> None:
    gauge = Gauge()
    limits = Limits(max_bytes_per_day=100_000)
    store = MemoryStore()

    def life() -> DeviceEngine:
        device = DeviceEngine(DeviceSettings("d0", limits=limits), LinearLearner(0), gauge)
        apply(store, device.handle(Started(store), now))
        apply(store, device.handle(Connected(), now))
        return device

    def offered(device: DeviceEngine, round_number: int) -> str:
        held = device.model.name
        offer = Offer(f"{round_number:016x}", round_number, held, 0, BUNDLE)
        effects = device.handle(Received(topics.cohort_task("default"), m.encode(offer)), now)
        apply(store, effects)
        return "works" if any(isinstance(e, Compute) for e in effects) else "skips"

    now = 10.5 * 86_400
    device = life()
    assert offered(device, 1) == "works"
    apply(store, device.handle(Computed("train", RuntimeError("over")), now))
    gauge.readings = Readings(bytes_up=60_000, bytes_down=39_900)
    assert offered(device, 2) == "skips"
    gauge.readings = Readings()  # a process counts from nothing; the diary knows the rest of the day
    device = life()
    assert offered(device, 3) == "skips"
    now += 86_400
    assert offered(device, 4) == "works"


def apply(store: MemoryStore, effects: Any) -> None:
    for e in effects:
        if isinstance(e, Save):
            store.write(e.entries)


def test_who_has_spent_the_coordinators_budget_is_asked_no_more() -> None:
    fleet = Fleet(devices=3, rounds=6, targeted=True, deadline_s=5.0, min_devices=1,
                  sensors=lambda i: Gauge(Readings(bytes_up=98_500 if i == 0 else 10)))  # fmt: skip
    campaign = fleet.campaign
    fleet.campaign = lambda: replace(campaign(), budget=Budget(max_bytes=100_000))  # type: ignore[method-assign]
    world = logged(fleet)
    settle(fleet, world)
    asked = {
        h: [n.fields["round"] for _, g, n in world.notes if g == h and n.kind == "training"]
        for h in ("d0", "d1")
    }
    assert asked["d0"] == [], "it counts for itself, before the ledger has heard of it"
    skips = [n.fields for _, h, n in world.notes if h == "coordinator" and n.kind == "skipped"]
    assert [(s["device"], s["why"]) for s in skips] == [("d0", "budget")], "and is not asked again"
    assert asked["d1"] == [1, 2, 3, 4, 5, 6]
