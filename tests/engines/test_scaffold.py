"""SCAFFOLD in a running fleet: the joint optimum where averaging is biased, and no change of a control
variate lost or counted twice."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from chronicle import LoggedWorld, settle
from fleet import Fleet
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from laconic.compression import PRESETS, CodecSettings
from laconic.compression.echo import EchoSettings
from laconic.coordinator import scaffold
from laconic.coordinator.advance import Score
from laconic.coordinator.aggregation.optimizers import ServerSettings
from laconic.coordinator.aggregation.settings import AggregationSettings
from laconic.coordinator.campaign import Campaign, Subject
from laconic.coordinator.engine import CoordinatorEngine
from laconic.coordinator.staleness import Lateness
from laconic.coordinator.verdict import ModelSettings
from laconic.edge_sdk.learner import OnnxLearner
from laconic.edge_sdk.records import restore
from laconic.errors import ConfigError, StorageError
from laconic.protocol.messages import Feedback, Gate, Training
from laconic.runtime import Bundle, Trainer
from laconic.schema import Schema, TensorSpec, Vector
from laconic.training import prepare
from often import points

FEATURES = 4
TRAINING = Training(epochs=15, batch_size=64, learning_rate=0.05)
EXACT = PRESETS["lossless"]
Rows = tuple[NDArray[np.float32], NDArray[np.float32]]


@functools.cache
def trainer(scaffold: bool) -> Trainer:
    """Of least squares on one number: y = x W + b."""
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "W", "b"], ["y"])],
        "line",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", FEATURES])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1])],
        initializer=[
            numpy_helper.from_array(np.zeros((FEATURES, 1), np.float32), "W"),
            numpy_helper.from_array(np.zeros(1, np.float32), "b"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return Trainer(Bundle.read(prepare(model.SerializeToString(), loss="mse", scaffold=scaffold)))


@functools.cache
def rows(device: int) -> Rows:
    """A device's own: other features matter, other answers, another number of samples."""
    rng = np.random.default_rng(device)
    x = rng.standard_normal((20 + 10 * device, FEATURES)) * rng.uniform(0.2, 1.5, FEATURES)
    y = x @ rng.normal(size=(FEATURES, 1)) + rng.normal()
    return x.astype(np.float32), y.astype(np.float32)


def optimum(devices: int) -> NDArray[np.float64]:
    """What least squares over all rows of all devices gives."""
    x, y = (np.concatenate([rows(i)[j] for i in range(devices)]).astype(np.float64) for j in (0, 1))
    solution, *_ = np.linalg.lstsq(np.hstack([x, np.ones((len(x), 1))]), y, rcond=None)
    return solution.ravel()


@dataclass
class LineFleet(Fleet):
    """Devices with other data each, on real bundles."""

    devices: int = 4
    rounds: int = 20
    codec: CodecSettings = EXACT
    delta_codec: CodecSettings = EXACT
    scaffold: bool = True
    spoilt: frozenset[int] = frozenset()
    """Computed versions that held-out data is said to speak against, by their order."""

    def __post_init__(self) -> None:
        self.learner = lambda i: OnnxLearner(trainer(self.scaffold), rows(i))
        self._computed = 0

    def campaign(self) -> Campaign:
        return replace(super().campaign(), training=TRAINING)

    def subject(self) -> Subject:
        bundle = trainer(self.scaffold).bundle
        return Subject(bundle.hash[:16], bundle.schema, bundle.initial, self.score)

    def score(self, weights: Vector) -> Score:
        """By the distance from the joint optimum."""
        self._computed += 1
        return Score(100.0 if self._computed in self.spoilt else self.error(weights), None)

    def error(self, weights: Vector) -> float:
        """How far the model is from the joint optimum, relative to where it began."""
        due = optimum(self.devices)
        return float(np.linalg.norm(weights[: FEATURES + 1] - due) / np.linalg.norm(due))


def settled(fleet: LineFleet, crash: tuple[str, int] | None = None, **options: Any) -> LoggedWorld:
    world = LoggedWorld(**options)
    fleet.world(world)
    if crash is not None:
        world.crash_at_effect(*crash)
    settle(fleet, world)
    return world


def model(world: LoggedWorld) -> Vector:
    node = world.node("coordinator")
    assert isinstance(node, CoordinatorEngine)
    return node.courses["default"].registry.weights


def verify(fleet: LineFleet, world: LoggedWorld) -> None:
    """The coordinator's sum is that of samples x (c_i less what is still in the residual), over all disks."""
    bundle = trainer(True).bundle
    controls = bundle.schema.controls
    due, largest = np.zeros(FEATURES + 1), 0.0
    for i in range(fleet.devices):
        store = world.stores[f"d{i}"]
        disk = restore(store, bundle.schema, bundle=bundle.hash[:16], initial=bundle.initial)
        assert not disk.damaged
        assert disk.outbox is None
        own, behind = OnnxLearner(trainer(True), rows(i))._recalled_control(disk.private)
        if own is not None:
            assert behind == len(rows(i)[0])
            largest = max(largest, float(np.abs(own).max()))
            due += behind * (own.astype(np.float64) - disk.residual.values[controls])
    saved = scaffold.restore(world.stores["coordinator"].get("c/default/control"), bundle.schema)
    assert largest > 0.1
    np.testing.assert_allclose(saved, due, rtol=1e-4, atol=2e-3)


def test_it_reaches_the_joint_optimum_where_averaging_does_not() -> None:
    controlled, averaged = LineFleet(), LineFleet(scaffold=False)
    world = settled(controlled)
    verify(controlled, world)
    error, bias = controlled.error(model(world)), averaged.error(model(settled(averaged)))
    assert bias > 0.2
    assert error < bias / 200


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"codec": PRESETS["dense8"], "delta_codec": PRESETS["dense8"]}, id="lossy codecs"),
        pytest.param({"share": 0.5, "min_reports": 1}, id="a part of the fleet"),
        pytest.param({"gate": Gate("absolute", 0.05)}, id="silent devices"),
        pytest.param({"lateness": Lateness(5, 0.0), "target_reports": 3, "rounds": 25}, id="late updates"),
        pytest.param({"server": ServerSettings("fedavgm", 0.5, momentum=0.5)}, id="momentum"),
    ],
)
def test_it_does_so_whatever_reaches_the_coordinator_when(options: dict[str, Any]) -> None:
    # What is forgotten of old residuals must not touch control variates.
    fleet = LineFleet(feedback=Feedback(decay=0.5, stale_after=3), **options)
    world = settled(fleet)
    verify(fleet, world)
    assert fleet.error(model(world)) < 0.02


@pytest.mark.parametrize("host", ["coordinator", "d0"])
def test_a_crash_before_an_effect_loses_and_repeats_no_change(host: str) -> None:
    def run(crash: int | None) -> tuple[bytes, int]:
        fleet = LineFleet(devices=3, rounds=3, deadline_s=20.0, min_reports=2, codec=PRESETS["dense8"])
        world = settled(fleet, None if crash is None else (host, crash), survives=bool(crash and crash % 2))
        verify(fleet, world)
        return world.stores["coordinator"].get("c/default/control") or b"", world.effects_of(host)

    whole, effects = run(None)
    alike = [run(crash)[0] == whole for crash in points(0, effects, stride=7)]
    # A coordinator that crashes has all of it again; a device may have missed a round.
    assert all(alike) or host == "d0"
    assert any(alike)


@pytest.mark.parametrize("patience", [1, 2], ids=["refused", "taken back"])
def test_versions_that_are_refused_or_taken_back_leave_the_sum_what_devices_make_it(patience: int) -> None:
    judged = ModelSettings(margin_loss=5.0, patience=patience)
    fleet = LineFleet(models=judged, spoilt=frozenset({4, 5}))
    world = settled(fleet)
    kinds = {note.kind for _, host, note in world.notes if host == "coordinator"}
    assert ("refused" if patience == 1 else "rolled back") in kinds
    verify(fleet, world)
    assert fleet.error(model(world)) < 0.02


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"aggregation": AggregationSettings("median"), "min_reports": 3}, "aggregation.rule"),
        ({"aggregation": AggregationSettings("norm_bound", norm_limit=1.0), "min_reports": 3}, "rule"),
        ({"lateness": Lateness(3, 0.5)}, "staleness_exponent"),
        ({"echo": EchoSettings(0.5)}, "echo_gain"),
    ],
)
def test_what_would_break_the_sum_is_refused(options: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        settled(LineFleet(rounds=1, **options))
    settled(LineFleet(rounds=1, scaffold=False, **options))


def test_a_damaged_record_is_named() -> None:
    schema = Schema((TensorSpec("w", (3,)), TensorSpec("control/w", (3,), statistic=True, control=True)))
    assert not scaffold.restore(None, schema).any()
    total = np.array([1.0, -2.5, 1e9])
    saved = scaffold.save(total)["control"]
    assert saved is not None
    assert np.array_equal(scaffold.restore(saved, schema), total)
    for wrong in (saved[1:], b"", np.array([1.0, np.inf, 0.0]).tobytes()):
        with pytest.raises(StorageError, match="record control"):
            scaffold.restore(wrong, schema)


def test_a_device_with_more_samples_than_before_has_told_no_more_than_its_sum() -> None:
    bundle, (x, y) = trainer(True).bundle, rows(3)
    few = OnnxLearner(trainer(True), (x[:10], y[:10]))
    first = few.train(bundle.initial, TRAINING, 1, b"")
    more = OnnxLearner(trainer(True), (x, y))
    start = bundle.initial.copy()
    start[bundle.schema.controls] = 0.5
    second = more.train(start, TRAINING, 2, first.private)
    told = 10 * (first.weights - bundle.initial) + len(x) * (second.weights - start)
    own, behind = more._recalled_control(second.private)
    assert own is not None
    assert behind == len(x) > 10
    np.testing.assert_allclose(told[bundle.schema.controls], behind * own, rtol=1e-5, atol=1e-4)
