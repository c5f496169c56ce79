"""Robust rules and server optimizers in a running fleet: what they are given, and that nothing is lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pytest
from chronicle import LoggedWorld, settle
from fleet import SCHEMA, SIZE, Fleet, LinearLearner, distance

from laconic.compression import PRESETS, Given, decode
from laconic.coordinator.aggregation.optimizers import NO_MOMENTS, ServerSettings, step
from laconic.coordinator.aggregation.plausible import NormHistory
from laconic.coordinator.aggregation.settings import PRESETS as RULES
from laconic.coordinator.aggregation.settings import AggregationSettings
from laconic.coordinator.campaign import Committed
from laconic.coordinator.engine import CoordinatorEngine
from laconic.coordinator.open_round import OpenRound
from laconic.edge_sdk.learner import Trained
from laconic.errors import ConfigError, LimitExceeded
from laconic.protocol.messages import Gate, Training
from laconic.schema import Vector
from often import points

ROBUST = RULES["robust"]
ADAM = ServerSettings("fedadam", learning_rate=0.1)


@dataclass
class HostileLearner(LinearLearner):
    """Sends its update times `factor`, from its `since`-th training on."""

    factor: float = -10.0
    since: int = 1
    trained: int = 0

    def train(
        self, weights: Vector, training: Training, seed: int, private: bytes, checkpoint: bytes = b""
    ) -> Trained:
        honest = super().train(weights, training, seed, private)
        self.trained += 1
        if self.trained < self.since:
            return honest
        turned = weights + np.float32(self.factor) * (honest.weights - weights)
        return Trained(turned.astype(np.float32), honest.samples, honest.loss_before, honest.loss_after)


def a_fleet(**options: Any) -> Fleet:
    given: dict[str, Any] = {
        "devices": 4, "rounds": 3, "min_reports": 4, "deadline_s": 600.0, "codec": PRESETS["dense8"],
        "delta_codec": PRESETS["dense8"], "aggregation": ROBUST, "server": ADAM,
    }  # fmt: skip
    return Fleet(**(given | options))


def settled(fleet: Fleet, crash_at: int | None = None) -> LoggedWorld:
    world = LoggedWorld(survives=True)
    fleet.world(world)
    if crash_at is not None:
        world.crash_at_effect("coordinator", crash_at)
    settle(fleet, world)
    return world


def engine(world: LoggedWorld) -> CoordinatorEngine:
    node = world.node("coordinator")
    assert isinstance(node, CoordinatorEngine)
    return node


def kept(world: LoggedWorld) -> dict[str, bytes | None]:
    """What the coordinator has on disk of its models and their making."""
    store = world.stores["coordinator"]
    prefixes = ("weights/", "delta/", "server-", "norms")
    return {k: store.get(k) for p in prefixes for k in store.keys(f"c/default/{p}")}


def test_a_version_is_the_optimizers_step_along_the_median_of_what_was_committed() -> None:
    """An oracle that reads what was saved and knows numpy's median; one device is always silent."""
    fleet = a_fleet(
        aggregation=AggregationSettings("median"), codec=PRESETS["exact"], delta_codec=PRESETS["exact"],
        server=ServerSettings("fedavgm", learning_rate=0.7, momentum=0.5), gate=Gate("absolute", 0.1, 99),
        learner=lambda i: HostileLearner(i, factor=1e-3) if i == 0 else LinearLearner(i),
    )  # fmt: skip
    world = settled(fleet)
    weights, moments, rows, made = np.zeros(SIZE, np.float32), NO_MOMENTS, {}, 0
    for host, entries in world.chronicle.saves:
        for key, blob in entries.items() if host == "coordinator" else ():
            if key.startswith("c/default/update/") and blob is not None:
                c = msgspec.msgpack.decode(blob, type=Committed)
                rows[c.device] = decode(c.frame, SCHEMA, limit_bytes=4 * SIZE)
            if key.startswith("c/default/weights/") and blob is not None and not key.endswith("0000"):
                assert set(rows) == {"d1", "d2", "d3"}
                whole = [*rows.values(), np.zeros(SIZE, np.float32)]
                moments, change = step(fleet.server, moments, np.median(whole, axis=0).astype(np.float32))
                weights, made = weights + change, made + 1
                np.testing.assert_allclose(np.frombuffer(blob, "<f4"), weights, rtol=1e-5, atol=1e-6)
                rows.clear()
    assert made == 3


@pytest.mark.thinned
@pytest.mark.parametrize(
    "rule", [ROBUST, AggregationSettings("norm_bound", norm_limit=0.5)], ids=["held", "streamed"]
)
def test_a_crash_before_an_effect_changes_no_bit(rule: AggregationSettings) -> None:
    fleet = a_fleet(aggregation=rule, devices=3, min_reports=3)
    calm = settled(fleet)
    expected, total = kept(calm), calm.effects_of("coordinator")
    assert {"c/default/server-optimizer", "c/default/norms", "c/default/weights/00000003"} <= set(expected)
    assert total > 40
    for k in points(0, total, stride=5):
        assert kept(settled(fleet, crash_at=k)) == expected, k


def test_a_memory_is_of_its_version_alone() -> None:
    """With the newest version another one, as after a rollback, the optimizer begins anew."""
    world = settled(a_fleet())
    course = engine(world).courses["default"]
    assert set(course.server.moments().vectors) == {"m", "v"}
    record = course.registry.current
    course.registry._records[record.version] = msgspec.structs.replace(record, weights=b"\x01" * 32)
    assert course.server.moments() is NO_MOMENTS


@pytest.mark.parametrize("hostile", [-10.0, 20.0])
def test_a_hostile_device_ruins_the_mean_and_not_a_robust_rule(hostile: float) -> None:
    def learner(i: int) -> LinearLearner:
        return HostileLearner(i, factor=hostile) if i == 2 else LinearLearner(i)

    off = {}
    for name, rule in (("mean", AggregationSettings()), ("robust", ROBUST)):
        fleet = a_fleet(
            devices=6, rounds=4, min_reports=6, aggregation=rule, server=ServerSettings(), learner=learner
        )
        off[name] = distance(engine(settled(fleet)).courses["default"].registry.weights)
    assert off["robust"] < 0.4
    assert off["mean"] > 2 * off["robust"]


def test_an_absurd_update_is_refused_before_it_is_saved_and_its_sender_marked() -> None:
    def learner(i: int) -> LinearLearner:
        return HostileLearner(i, factor=-1e3, since=3) if i == 1 else LinearLearner(i)

    fleet = a_fleet(
        devices=5, rounds=4, min_reports=4, deadline_s=20.0, aggregation=AggregationSettings(),
        server=ServerSettings(), learner=learner,
    )  # fmt: skip
    world = settled(fleet)
    records = {r.name: r for r in engine(world)._ledger}
    assert records["d1"].rejected >= 1
    assert records["d1"].committed == 2
    assert all(records[f"d{i}"].rejected == 0 and records[f"d{i}"].committed == 4 for i in (0, 2, 3, 4))
    refused = [n for _, host, n in world.notes if (host, n.kind) == ("coordinator", "rejected")]
    assert {(n.fields["device"], n.fields["error"]) for n in refused} == {("d1", "LimitExceeded")}
    assert "times the usual" in str(refused[0].fields["why"])
    norms = world.stores["coordinator"].get("c/default/norms")
    assert norms is not None
    assert msgspec.msgpack.decode(norms, type=NormHistory).counts == [5, 5, 5, 5]


def test_more_updates_than_a_rule_can_hold_are_refused() -> None:
    size = 3 * 2**20
    rule = AggregationSettings("median", memory_bytes=2**20)
    assert rule.most_updates(size) == 1
    book, update = OpenRound(size, (), rule), (Given(slice(0, 1), np.ones(1, np.float32)),)
    book.check("a", update, 1)
    book.commit("a", "u", update, 1)
    with pytest.raises(LimitExceeded, match="updates in one round"):
        book.check("b", update, 1)


def test_a_round_too_small_to_tell_is_refused_when_the_coordinator_starts() -> None:
    with pytest.raises(ConfigError, match="min_reports"):
        settled(a_fleet(min_reports=2))
