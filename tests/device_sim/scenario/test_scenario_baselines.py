"""Training without communication, and losses: what is written down is what was trained."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
from tiny_scenario import line, tiny

from laconic.device_sim import Result
from laconic.device_sim.scenario import storing
from laconic.device_sim.scenario.examples import examples_of
from laconic.device_sim.scenario.running import Models, Progress, play
from laconic.device_sim.scenario.sweep import run_all
from laconic.edge_sdk.learner import Measured, OnnxLearner
from laconic.runtime import Trainer

BOTH = {"alone": True, "pooled": True}
QUIET = {"devices__phone__count": 0, "devices__pi__count": 3, "coordinator__gate": {"threshold": 0.0}}


@functools.cache
def played() -> tuple[Result, Models]:
    return play(tiny(baselines=BOTH, record__losses=True, **QUIET))


def test_every_round_has_a_row_of_each_kind() -> None:
    result, models = played()
    for kind, devices in (("alone", 3), ("pooled", 1)):
        rows = [r for r in result.baselines if r.kind == kind]
        assert [r.round for r in rows] == [0, 1, 2, 3, 4]
        assert {r.devices for r in rows} == {devices}
        for r in rows:
            assert r.accuracy_least is not None
            assert r.accuracy is not None
            assert r.accuracy_most is not None
            assert r.accuracy_least <= r.accuracy <= r.accuracy_most
            assert r.loss_least <= r.loss <= r.loss_most
    # Nothing has been trained in round 0: all begin with the model of version 0.
    begin = [r.loss for r in result.baselines if r.round == 0]
    assert begin == pytest.approx([result.rounds[0].loss] * 2, rel=1e-5)
    assert sorted(models.alone) == ["pi-0", "pi-1", "pi-2"]


def test_the_last_rows_are_the_scores_of_the_models() -> None:
    result, models = played()
    s = tiny(**QUIET).settings
    held_out = examples_of(s.data, 3, s.seed, Path()).held_out
    trainer = Trainer(models.bundle)
    assert models.pooled is not None
    pooled = trainer.evaluate(models.pooled.weights, held_out.x, held_out.y)
    assert result.baselines[-1].accuracy == pooled.accuracy
    alone = [trainer.evaluate(m.weights, held_out.x, held_out.y).loss for m in models.alone.values()]
    assert result.baselines[-2].loss == pytest.approx(np.mean(alone), rel=1e-5)
    federated = trainer.evaluate(models.federated, held_out.x, held_out.y)
    assert federated.accuracy == result.rounds[-1].accuracy


def test_one_device_alone_is_all_data_in_one_place() -> None:
    """But for the order of its examples."""
    one = QUIET | {"devices__pi__count": 1, "coordinator__rounds__min_devices": 1}
    result, _ = play(tiny(baselines=BOTH, data__samples=40, **one))
    alone, pooled = result.baselines[-2:]
    assert alone.loss == pytest.approx(pooled.loss, rel=0.02)
    assert result.rounds[-1].loss == pytest.approx(alone.loss, rel=0.05)


def test_some_devices_and_some_rounds_are_scored() -> None:
    result, models = play(tiny(baselines={"alone": True, "alone_devices": 2, "every": 3}, **QUIET))
    assert [(r.kind, r.round, r.devices) for r in result.baselines] == [("alone", n, 2) for n in (0, 3, 4)]
    assert len(models.alone) == 2
    assert models.pooled is None


def test_baselines_change_nothing_of_the_federation_and_do_not_depend_on_threads() -> None:
    again, _ = play(tiny(baselines=BOTH, record__losses=True, **QUIET), threads=3)
    assert again == played()[0]
    without, _ = play(tiny(**QUIET))
    assert without.rounds == again.rounds
    assert without.devices == again.devices
    assert (without.baselines, without.losses) == ([], [])


def test_losses_are_those_of_every_step() -> None:
    result, _ = played()
    trained = {(r.kind, r.device, r.round) for r in result.losses}
    for n in range(3):
        for kind in ("device", "alone"):
            assert {r for k, d, r in trained if (k, d) == (kind, f"pi-{n}")} == {1, 2, 3, 4}
    steps = [r.step for r in result.losses if (r.kind, r.device, r.round) == ("device", "pi-0", 2)]
    assert steps == list(range(len(steps)))
    # The model of round 0 is the same for all, and zero: the loss of ten classes is ln 10.
    first = [r.loss for r in result.losses if r.kind != "federation" and (r.round, r.step) == (1, 0)]
    assert first == pytest.approx([np.log(10)] * 6, rel=1e-5)
    federation = [r.loss for r in result.losses if r.kind == "federation"]
    assert len(federation) == len(result.rounds)
    assert federation[-1] < federation[0]


def test_work_that_a_crash_ended_has_no_losses() -> None:
    crashing = {"crash": 1.0}
    result, _ = play(tiny(record__losses=True, devices__phone__failures=crashing, end__hours=0.05))
    assert "phone" not in {r.device[:5] for r in result.losses}


def test_baselines_are_written_and_read(tmp_path: Path) -> None:
    (one,) = run_all(tiny(baselines=BOTH, record__losses=True, **QUIET), tmp_path)
    assert storing.read(tmp_path) == one.result
    assert one.result.baselines
    assert "baselines" not in (tmp_path / "run.json").read_text().split('"totals"')[1]


def test_a_baseline_that_diverges_is_written_and_read(tmp_path: Path) -> None:
    # The server's small steps hold the federation where all data in one place go astray.
    training = {"learning_rate": 2.0, "batch_size": 64}
    scenario = line(
        tmp_path,
        2,
        end={"rounds": 60},
        coordinator={"training": training, "server": {"learning_rate": 0.02}},
        baselines=BOTH,
        record={"losses": True},
    )
    (one,) = run_all(scenario, tmp_path / "out")
    last = one.result.baselines[-1]
    assert (last.kind, last.loss) == ("pooled", None)
    assert last.failed
    assert storing.read(tmp_path / "out") == one.result
    assert run_all(scenario, tmp_path / "out")[0].cached


def test_who_watches_sees_the_baselines() -> None:
    seen: list[Progress] = []
    play(tiny(baselines=BOTH, end__rounds=2, **QUIET), watch=seen.append)
    assert [p.baselines for p in seen if p.baselines is not None] == [0, 1, 2]


def test_a_device_has_scores_on_its_own_examples() -> None:
    scenario = tiny(data__own_held_out=0.25, baselines=BOTH | {"alone_devices": 2}, **QUIET)
    result, models = play(scenario)
    s = scenario.settings
    own = examples_of(s.data, 3, s.seed, Path()).own
    assert [(r.device, r.samples) for r in result.scores] == [
        (f"pi-{i}", len(part.y)) for i, part in enumerate(own)
    ]
    trainer = Trainer(models.bundle)
    for row, part in zip(result.scores, own, strict=True):
        for weights, accuracy in ((models.federated, row.federated_accuracy), (None, row.alone_accuracy)):
            if weights is None:
                there = models.alone.get(row.device)
                assert (there is None) == (accuracy is None)
                if there is None:
                    continue
                weights = there.weights
            assert accuracy == pytest.approx(trainer.evaluate(weights, part.x, part.y).accuracy)
        assert row.pooled_loss is not None
        # All of a softmax travels.
        assert row.shared_accuracy is None
    assert sum(r.alone_loss is not None for r in result.scores) == 2


def test_a_device_is_scored_with_the_layers_that_it_keeps_to_itself() -> None:
    personal = {"built_in": "mlp", "hidden": [8], "local": ["dense2.*"]}
    result, models = play(tiny(model=personal, data__own_held_out=0.25, baselines=BOTH, **QUIET))
    s = tiny(model=personal, data__own_held_out=0.25, **QUIET).settings
    own = examples_of(s.data, 3, s.seed, Path()).own
    trainer = Trainer(models.bundle)
    for row, part in zip(result.scores, own, strict=True):
        learner = OnnxLearner(trainer, (part.x, part.y))
        found = learner.measure(models.federated, models.private[row.device])
        assert isinstance(found, Measured)
        assert row.federated_loss == pytest.approx(found.loss, rel=1e-5)
        assert row.shared_loss == pytest.approx(
            trainer.evaluate(models.federated, part.x, part.y).loss, rel=1e-5
        )
    # What a device has mostly one class of, its own layer knows.
    assert sum(r.federated_loss or 0.0 for r in result.scores) < sum(
        r.shared_loss or 0.0 for r in result.scores
    )


def test_baselines_learn_and_are_scored_on_what_there_is_at_that_time() -> None:
    drift = {"kind": "classes", "classes": 2, "begin_hour": 1000.0}
    # Of the third device's class there is nothing yet.
    data = {"division": "own_class", "own_class": 1.0, "samples": 12, "held_out": 0.9, "drift": drift}
    result, models = play(tiny(data=data, baselines=BOTH, **QUIET))
    s = tiny(data=data, **QUIET).settings
    examples = examples_of(s.data, 3, s.seed, Path())
    known = examples.held_out.at(np.flatnonzero(examples.held_out.y < 2))
    assert result.baselines[0].loss == pytest.approx(result.rounds[0].loss, rel=1e-5)
    assert models.pooled is not None
    found = Trainer(models.bundle).evaluate(models.pooled.weights, known.x, known.y)
    assert result.baselines[-1].accuracy == found.accuracy
    empty = [n for n, part in enumerate(examples.devices) if not (part.y < 2).any()]
    assert empty
    for n in empty:
        assert np.array_equal(models.alone[f"pi-{n}"].weights, models.bundle.initial)
