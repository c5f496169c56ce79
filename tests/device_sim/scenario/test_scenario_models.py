"""A run's models are kept beside its results: what is read is what was trained, or a typed error."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_scenario import tiny

from laconic.device_sim.scenario import keeping
from laconic.device_sim.scenario.examples import examples_of
from laconic.device_sim.scenario.scenario import Scenario
from laconic.device_sim.scenario.sweep import run_all
from laconic.errors import LaconicError
from laconic.runtime import Trainer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("kept")
    run_all(scenario(), path)
    return path


def scenario() -> Scenario:
    return tiny(record__models=True, baselines__alone=True, baselines__pooled=True)


def test_the_kept_model_is_the_one_that_was_scored(folder: Path) -> None:
    [run] = run_all(scenario(), folder)
    assert run.cached
    models = keeping.read(folder)
    s = scenario().settings
    held_out = examples_of(s.data, len(run.result.devices), s.seed, Path()).held_out
    trainer = Trainer(models.bundle)
    found = trainer.evaluate(models.weights["federated"], held_out.x, held_out.y)
    assert found.loss == pytest.approx(run.result.totals.loss, rel=1e-6)
    pooled = trainer.evaluate(models.weights["pooled"], held_out.x, held_out.y)
    last = [row for row in run.result.baselines if row.kind == "pooled"][-1]
    assert pooled.loss == pytest.approx(last.loss, rel=1e-6)
    alone = {f"alone/{row.name}" for row in run.result.devices}
    assert set(models.weights) == {"federated", "pooled"} | alone


def test_the_same_run_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    keeping.write(keeping.read(folder), tmp_path)
    for name in (keeping.BUNDLE, keeping.MODELS):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_without_the_key_there_are_none(tmp_path: Path) -> None:
    run_all(tiny(), tmp_path)
    assert not (tmp_path / keeping.MODELS).exists()
    with pytest.raises(LaconicError, match="record"):
        keeping.read(tmp_path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), name=st.sampled_from([keeping.BUNDLE, keeping.MODELS]))
def test_damaged_files_are_read_right_or_refused(
    folder: Path, tmp_path: Path, data: st.DataObject, name: str
) -> None:
    for file in (keeping.BUNDLE, keeping.MODELS):
        shutil.copy(folder / file, tmp_path / file)
    raw = bytearray((folder / name).read_bytes())
    if data.draw(st.booleans()):
        del raw[data.draw(st.integers(0, len(raw) - 1)) :]
    else:
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    (tmp_path / name).write_bytes(bytes(raw))
    try:
        found = keeping.read(tmp_path)
    except LaconicError:
        return
    assert all(np.isfinite(w).all() and len(w) == found.bundle.schema.size for w in found.weights.values())
