"""Training in slices: however it is cut, by limits, slices or crashes, what comes of it is the same."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
import numpy as np
import pytest
from chronicle import LoggedWorld, logged, settle, verify
from fleet import Fleet, LinearLearner
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.coordinator.engine import CoordinatorEngine
from laconic.edge_sdk.engine import DeviceEngine, Phase
from laconic.edge_sdk.learner import Interrupted, Measured, Trained
from laconic.edge_sdk.policy import Limits
from laconic.edge_sdk.sensors import Readings
from laconic.protocol.messages import Training
from laconic.schema import Vector
from often import examples, points


class Halfway(msgspec.Struct):
    epoch: int
    weights: list[float]
    losses: list[float]


@dataclass
class Sliced(LinearLearner):
    """Yields after every `slice_epochs` epochs, and tells when it trained."""

    slice_epochs: int = 1
    begun: list[int] = field(default_factory=list)
    """The epoch at which each piece of work began."""
    measured: int = 0

    def train(
        self, weights: Vector, training: Training, seed: int, private: bytes, checkpoint: bytes = b""
    ) -> Trained | Interrupted:
        at = Halfway(0, weights.astype(np.float64).tolist(), [])
        if checkpoint:
            at = msgspec.msgpack.decode(checkpoint, type=Halfway)
        self.begun.append(at.epoch)
        w, last = np.array(at.weights), min(training.epochs, at.epoch + self.slice_epochs)
        for _ in range(at.epoch, last):
            error = self._x @ w - self._y
            at.losses.append(float(np.mean(error**2)))
            w = w - training.learning_rate * self._x.T @ error / self.rows
        if last < training.epochs:
            return Interrupted(msgspec.msgpack.encode(Halfway(last, w.tolist(), at.losses)))
        return Trained(w.astype(np.float32), self.rows, at.losses[0], at.losses[-1])

    def measure(self, weights: Vector, private: bytes) -> Measured | Interrupted:
        self.measured += 1
        return super().measure(weights, private)


@dataclass
class Owner:
    """Sensors whose owner wants the machine at times."""

    wanted: tuple[tuple[float, float], ...]

    def read(self, now: float) -> Readings:
        return Readings(busy=any(start <= now < end for start, end in self.wanted))

    def worked(self, seconds: float) -> None:
        """Nothing is counted."""


def run(fleet: Fleet, slices: dict[int, int], **options: object) -> tuple[LoggedWorld, dict[int, Sliced]]:
    """A settled run in which device i trains `slices[i]` epochs at a time."""
    world = logged(fleet, **options)
    make, made = fleet.learner, {i: Sliced(i, slice_epochs=slices.get(i, 99)) for i in range(fleet.devices)}

    def learner(i: int) -> object:
        logged_learner = make(i)
        logged_learner.inner = made[i]  # type: ignore[attr-defined]
        return logged_learner

    fleet.learner = learner  # type: ignore[assignment]
    settle(fleet, world)
    return world, made


def outcome(world: LoggedWorld) -> bytes:
    engine = world.node("coordinator")
    assert isinstance(engine, CoordinatorEngine)
    return engine.courses["default"].registry.weights.tobytes()


def noted(world: LoggedWorld, kind: str, who: str = "d0") -> list[float]:
    return [at for at, name, note in world.notes if (name, note.kind) == (who, kind)]


@settings(max_examples=examples(20), deadline=None, derandomize=True)
@given(st.dictionaries(st.integers(0, 2), st.integers(1, 3)))
def test_slices_change_nothing(slices: dict[int, int]) -> None:
    plain, _ = run(Fleet(), {})
    cut, made = run(Fleet(), slices)
    assert verify(Fleet(), cut) == 9
    assert outcome(cut) == outcome(plain)
    assert all(made[i].begun == [*range(0, 3, n)] * 3 for i, n in slices.items())


@pytest.mark.parametrize("parity", [0, 1])
def test_a_crash_between_or_in_slices_loses_nothing(parity: int) -> None:
    fleet = Fleet(min_reports=2, deadline_s=20.0)
    world, _ = run(fleet, {0: 1, 1: 2})
    total = world.effects_of("d0")
    for k in points(0, total, stride=3):
        fleet = Fleet(min_reports=2, deadline_s=20.0)
        world = logged(fleet, survives=k % 2 == parity)
        make = fleet.learner

        def learner(i: int, make=make) -> object:  # type: ignore[no-untyped-def]
            made = make(i)
            made.inner = Sliced(i, slice_epochs=1)
            return made

        fleet.learner = learner  # type: ignore[assignment]
        world.crash_at_effect("d0", k)
        settle(fleet, world)
        verify(fleet, world)


def test_after_a_crash_training_goes_on_where_it_was_written_down() -> None:
    fleet = Fleet(devices=1, rounds=1, sample_s=lambda i: 0.1)
    world = logged(fleet)
    lives: list[Sliced] = []
    make = fleet.learner

    def learner(i: int) -> object:
        made = make(i)
        made.inner = Sliced(i, slice_epochs=1)  # type: ignore[attr-defined]
        lives.append(made.inner)  # type: ignore[attr-defined]
        return made

    fleet.learner = learner  # type: ignore[assignment]
    world.run(50.0)
    # 36 s a slice: the first is over, the second under way.
    assert lives[0].begun == [0, 1]
    world.crash("d0")
    settle(fleet, world)
    assert [life.begun for life in lives] == [[0, 1], [1, 2]]
    assert verify(fleet, world) == 1


def test_a_busy_owner_is_given_way_and_the_work_goes_on() -> None:
    fleet = Fleet(
        rounds=1, sample_s=lambda i: 0.02, sensors=lambda i: Owner(((5.0, 40.0),)) if i == 0 else None
    )
    world, made = run(fleet, {0: 1})
    assert made[0].begun == [0, 1, 2]
    (paused,), (first, *_) = noted(world, "paused"), noted(world, "training on")
    assert 5.0 < paused < 40.0 <= first <= 42.1
    assert verify(fleet, world) == 3
    plain, _ = run(Fleet(rounds=1), {})
    assert outcome(world) == outcome(plain)


def test_whoever_is_held_up_for_long_says_so_and_holds_no_round() -> None:
    fleet = Fleet(
        rounds=1,
        deadline_s=1000.0,
        sample_s=lambda i: 0.02,
        sensors=lambda i: Owner(((5.0, 5000.0),)) if i == 0 else None,
    )
    world, made = run(fleet, {0: 1})
    assert made[0].begun == [0]
    assert verify(fleet, world, everyone=False) == 2
    said = [n.fields for _, name, n in world.notes if (name, n.kind) == ("d0", "skipped")]
    assert [f["why"] for f in said] == ["busy"]
    closed = next(at for at, name, n in world.notes if (name, n.kind) == ("coordinator", "closed"))
    assert closed < 80.0
    assert world.stores["d0"].get("checkpoint") is None


def test_a_new_round_overtakes_what_is_held_up() -> None:
    fleet = Fleet(
        rounds=5,
        min_reports=2,
        deadline_s=15.0,
        interval_s=15.0,
        sample_s=lambda i: 0.01,
        sensors=lambda i: Owner(((3.0, 20.0),)) if i == 0 else None,
    )
    world, made = run(fleet, {0: 1})
    assert made[0].begun[:2] == [0, 0], "the first round's work was given up"
    verify(fleet, world)


def test_limits_of_heat_and_load_hold_too() -> None:
    class Hot:
        def read(self, now: float) -> Readings:
            return Readings(temperature_c=85.0 if now < 30 else 50.0, cpu_load=0.5)

        def worked(self, seconds: float) -> None:
            """Nothing is counted."""

    fleet = Fleet(
        devices=1, rounds=1, limits=Limits(max_temperature_c=80.0, max_cpu_load=0.9), sensors=lambda i: Hot()
    )
    world = logged(fleet)
    world.run(10.0)
    assert [n.fields["why"] for _, name, n in world.notes if n.kind == "skipped" and name == "d0"] == ["hot"]
    engine = world.node("d0")
    assert isinstance(engine, DeviceEngine)
    assert engine.phase is Phase.IDLE
