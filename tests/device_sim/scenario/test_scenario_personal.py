"""Layers that stay on their device: in a world with production engines, where each person's sensors sit
differently."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
from msgspec.structs import replace

from laconic.coordinator.configuration import CampaignSection, CoordinatorConfig, ModelsSection, campaign_of
from laconic.coordinator.daemon import subject_of
from laconic.device_sim import Result, Scenario
from laconic.device_sim.scenario.running import Models, play
from laconic.edge_sdk.learner import OnnxLearner
from laconic.errors import ConfigError, LaconicError
from laconic.runtime import Trainer
from laconic.training import prepare
from laconic.training.models import digits_cnn

PEOPLE, SAMPLES, CHANNELS, CLASSES = 4, 48, 4, 3
FIRST = ["dense1.*"]


def write(path: Path) -> None:
    """What a class is shows in one channel, and which that is depends on the person."""
    rng = np.random.default_rng(0)
    y = np.tile(np.arange(CLASSES), (PEOPLE + 1) * SAMPLES // CLASSES)
    group = np.repeat([*range(PEOPLE), -1], SAMPLES)
    where = (y + np.maximum(group, 0)) % CHANNELS
    x = 0.3 * rng.standard_normal((len(y), CHANNELS)) + 2 * np.eye(CHANNELS)[where]
    np.savez(path, x=x.astype(np.float32), y=y.astype(np.int64), group=group)


@functools.cache
def played(local: bool, crash: float = 0.0) -> tuple[Result, Models]:
    phone = {
        "name": "phone",
        "count": PEOPLE,
        "board": "phone_mid",
        "speed": {"sample_s": 0.01},
        "failures": {"crash": crash},
    }
    table = {
        "name": "personal",
        "end": {"rounds": 12, "hours": 12},
        "model": {"built_in": "mlp", "hidden": [8], "local": FIRST if local else []},
        "data": {"source": "npz", "path": "people.npz", "division": "group", "own_held_out": 0.25},
        "coordinator": {
            "rounds": {"min_devices": PEOPLE, "min_reports": 1, "deadline_s": 60.0},
            "training": {"epochs": 4, "batch_size": 8, "learning_rate": 0.1},
        },
        "devices": [phone],
    }
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "people.npz")
        return play(Scenario.of(table, Path(folder)))


def locals_of(models: Models) -> list[bytes]:
    trainer = Trainer(models.bundle)
    nothing = np.zeros((1, CHANNELS), np.float32), np.zeros(1, np.int64)
    return [OnnxLearner(trainer, nothing).local(p).tobytes() for p in models.private.values()]


def own(result: Result) -> float:
    return fmean(s.federated_accuracy or 0.0 for s in result.scores)


def test_what_stays_is_neither_sent_nor_told() -> None:
    (mine, models), (every, _) = played(True), played(False)
    layer = CHANNELS * 8 + 8
    assert models.bundle.local_schema.size == layer
    assert mine.totals.parameters == every.totals.parameters - layer == len(models.federated)
    assert mine.totals.bytes_up < every.totals.bytes_up
    assert mine.totals.bytes_down < every.totals.bytes_down


def test_each_device_has_its_own() -> None:
    models = played(True)[1]
    found = locals_of(models)
    assert len({*found, models.bundle.initial_local.tobytes()}) == PEOPLE + 1


def test_it_serves_where_one_model_for_all_cannot() -> None:
    assert own(played(True)[0]) > 0.95
    assert own(played(False)[0]) < 0.75
    # Without their own layer what they have learnt together is worth little.
    assert fmean(s.shared_accuracy or 0.0 for s in played(True)[0].scores) < 0.75


def test_it_outlives_processes_that_are_killed() -> None:
    result, models = played(True, 0.3)
    assert max(d.lives for d in result.devices) > 1
    assert len({*locals_of(models), models.bundle.initial_local.tobytes()}) == PEOPLE + 1
    assert own(result) > 0.95


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ({"built_in": "softmax", "local": ["dense7.*"]}, "dense7"),
        ({"built_in": "softmax", "local": ["*"]}, "local"),
    ],
)
def test_layers_that_cannot_stay_are_refused(model: dict[str, object], told: str) -> None:
    table = {"name": "n", "model": model, "devices": [{"name": "d", "count": 1, "speed": {"sample_s": 0.1}}]}
    with pytest.raises(LaconicError, match=told):
        play(Scenario.of(table))


def test_a_bundle_says_itself_what_stays() -> None:
    table = {"name": "n", "model": {"bundle": "b", "local": FIRST}, "devices": []}
    with pytest.raises(ConfigError, match=r"model\.local"):
        Scenario.of(table)


def test_held_out_data_judges_no_version_without_what_belongs_to_it(tmp_path: Path) -> None:
    table = {
        "name": "n",
        "model": {"built_in": "softmax", "local": ["dense1.bias"]},
        "coordinator": {"models": {"margin_accuracy": 0.1}},
        "devices": [{"name": "d", "count": 1, "speed": {"sample_s": 0.1}}],
    }
    with pytest.raises(ConfigError, match="10 local weights"):
        play(Scenario.of(table))
    (tmp_path / "model").write_bytes(prepare(digits_cnn(), local=["dense2.*"]))
    section = CampaignSection(bundle="model", models=ModelsSection(margin_loss=0.1))
    campaign = campaign_of(CoordinatorConfig(bundle="model", models=section.models), tmp_path)
    assert subject_of(campaign, section, tmp_path).schema.size
    with pytest.raises(ConfigError, match="devices judge with weights of their own"):
        subject_of(campaign, replace(section, held_out="data.npz"), tmp_path)
