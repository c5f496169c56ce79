"""What a learner keeps for itself: durable with the training that made it, and never on the wire."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from chronicle import logged, settle
from fleet import Fleet, LinearLearner

from laconic.edge_sdk.learner import Trained
from laconic.edge_sdk.records import save_private
from laconic.protocol.messages import Training
from laconic.schema import Vector
from often import points

SECRET = b"stays here"
ROUNDS = 3


@dataclass
class DiaryLearner(LinearLearner):
    """Writes one line in its private notes at every training."""

    def train(
        self, weights: Vector, training: Training, seed: int, private: bytes, checkpoint: bytes = b""
    ) -> Trained:
        trained = super().train(weights, training, seed, private)
        return Trained(
            trained.weights, trained.samples, trained.loss_before, trained.loss_after, private + SECRET
        )


def diaries(fleet: Fleet) -> Fleet:
    fleet.learner = DiaryLearner
    return fleet


def test_every_training_sees_what_the_one_before_left() -> None:
    fleet = Fleet(rounds=ROUNDS)
    world = logged(fleet)
    diaries(fleet)
    settle(fleet, world)
    for name in ("d0", "d1", "d2"):
        assert world.stores[name].get("private") == save_private(SECRET * ROUNDS)


def test_it_never_leaves_the_device() -> None:
    fleet = Fleet(rounds=ROUNDS)
    world = logged(fleet)
    diaries(fleet)
    settle(fleet, world)
    assert world.stores["coordinator"].keys("")
    for key in world.stores["coordinator"].keys(""):
        assert SECRET not in (world.stores["coordinator"].get(key) or b"")


@pytest.mark.thinned
@pytest.mark.parametrize("survives", [False, True])
def test_a_crash_before_any_effect_neither_loses_nor_repeats_a_line(survives: bool) -> None:
    def run(crash: int | None) -> tuple[bytes, int, int]:
        fleet = Fleet(rounds=ROUNDS, deadline_s=20.0)
        world = logged(fleet, survives=survives)
        diaries(fleet)
        if crash is not None:
            world.crash_at_effect("d0", crash)
        settle(fleet, world)
        kept = (world.stores["d0"].get("private") or b"")[32:]
        committed = [n for _, host, n in world.notes if (host, n.kind) == ("coordinator", "committed")]
        return kept, sum(n.fields["device"] == "d0" for n in committed), world.effects_of("d0")

    kept, committed, effects = run(None)
    assert (kept, committed) == (SECRET * ROUNDS, ROUNDS)
    for crash in points(0, effects, stride=3):
        # Who crashes may miss a round, or be late with what it trained; no round counts twice.
        kept, committed, _ = run(crash)
        lines, rest = divmod(len(kept), len(SECRET))
        assert kept == SECRET * lines, crash
        assert not rest
        assert ROUNDS - 1 <= committed <= lines <= ROUNDS, crash


def test_a_damaged_one_is_named_and_begun_anew() -> None:
    fleet = Fleet(rounds=ROUNDS)
    world = logged(fleet)
    diaries(fleet)
    settle(fleet, world)
    world.stores["d0"].write({"private": b"\0" + (world.stores["d0"].get("private") or b"")[1:]})
    world.crash("d0")
    world.run(world.now + 60)
    damaged = [
        note.fields["what"] for _, host, note in world.notes if host == "d0" and note.kind == "damaged"
    ]
    assert damaged == [["private"]]
