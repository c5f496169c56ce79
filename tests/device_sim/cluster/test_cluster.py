"""Scenarios on real Ray workers: the files of a run on one machine, to the byte, whatever happens to workers.

Ray is started once for this module: two workers.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from laconic.device_sim import Scenario, run
from laconic.device_sim.cluster import Cluster, workshop_of
from laconic.device_sim.learning import Job
from laconic.device_sim.scenario import storing
from laconic.device_sim.scenario.running import Progress
from laconic.errors import ClusterError, LaconicError
from laconic.runtime import Bundle
from laconic.training import prepare
from laconic.training.models import digits_cnn, mlp

pytestmark = pytest.mark.ray

STACKED = Scenario.of(
    {
        "name": "tiny",
        "end": {"rounds": 3, "hours": 12},
        "model": {"built_in": "softmax"},
        "data": {"division": "own_class", "samples": 12, "held_out": 0.9},
        "baselines": {"alone": True, "pooled": True},
        "record": {"losses": True},
        "coordinator": {
            "rounds": {"min_devices": 2, "min_reports": 1, "deadline_s": 120.0},
            "training": {"learning_rate": 0.05},
            "gate": {"mode": "model", "threshold": 0.02},
        },
        "devices": [
            {
                "name": "phone",
                "count": 4,
                "board": "phone_mid",
                "speed": {"sample_s": 0.5, "spread": 0.3},
                "failures": {"drop_out": 0.2, "away_s": 300.0, "crash": 0.1},
            },
        ],
    }
)
THREADED = STACKED.replaced({"model.built_in": "digits_cnn", "end.rounds": 2})


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two workers of this machine, which find the functions of this module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        with Cluster(workers=2) as cluster:
            cluster.start()
            yield cluster


def files(folder: Path) -> dict[str, bytes]:
    """What is in a folder."""
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.mark.parametrize(("scenario", "way"), [(STACKED, "stacks"), (THREADED, "threads")])
def test_a_run_on_workers_leaves_the_files_of_one_on_this_machine(
    cluster: Cluster, tmp_path: Path, scenario: Scenario, way: str
) -> None:
    here, there = run(scenario, threads=2), run(scenario, engine=cluster)
    assert here.totals.way == way
    assert here.totals.committed > 0
    assert {r.kind for r in here.losses} >= {"device", "alone"}
    storing.write(here, tmp_path / "here")
    storing.write(there, tmp_path / "there")
    assert files(tmp_path / "here") == files(tmp_path / "there")


def test_a_killed_worker_changes_nothing(cluster: Cluster) -> None:
    """Between rounds, and in the middle of a call."""
    killed: list[int] = []

    def watch(progress: Progress) -> None:
        if len(killed) < progress.rounds:
            killed.append(cluster.call(os.getpid))
            os.kill(killed[-1], signal.SIGKILL)

    assert run(STACKED, engine=cluster, watch=watch) == run(STACKED)
    assert killed


def dies_once(marker: Path) -> str:
    """Ends its process the first time it is called."""
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def test_a_call_whose_worker_dies_is_done_again(cluster: Cluster, tmp_path: Path) -> None:
    assert cluster.call(dies_once, tmp_path / "marker") == "done"


def jobs_for(bundle: Bundle, shape: tuple[int, ...], rates: list[float]) -> list[Job]:
    """A job for each learning rate, with more examples from job to job."""
    jobs = []
    for i, rate in enumerate(rates):
        rng = np.random.default_rng(i)
        x = rng.random((5 + 3 * i, *shape), np.float32)
        jobs.append(Job(bundle.initial, x, rng.integers(0, 4, len(x)), 2, 4, rate, seed=i))
    return jobs


@pytest.mark.parametrize("way", ["stacks", "threads"])
def test_an_error_in_a_job_is_that_jobs_outcome(cluster: Cluster, way: str) -> None:
    """With its words; and the others are done as if there were none."""
    bundle = Bundle.read(
        prepare(mlp((8,), 4, (5,), 0, from_zero=False) if way == "stacks" else digits_cnn(0))
    )
    jobs = jobs_for(bundle, (8,) if way == "stacks" else (1, 8, 8), [0.1, 1e30, 0.1, 0.2])
    with workshop_of(bundle, threads=2, engine="local") as workshop:
        assert workshop.way == way
        here = workshop.train(jobs)
    with workshop_of(bundle, threads=2, engine=cluster) as workshop:
        there = workshop.train(jobs)
    assert [isinstance(o, LaconicError) for o in there] == [False, True, False, False]
    for a, b in zip(here, there, strict=True):
        if isinstance(a, LaconicError) or isinstance(b, LaconicError):
            assert (type(a), str(a)) == (type(b), str(b))
        else:
            assert a.weights.tobytes() == b.weights.tobytes()
            assert a.losses.tobytes() == b.losses.tobytes()


def raises() -> None:
    """What any code may do."""
    raise ZeroDivisionError("nothing to share")


def test_what_a_call_raises_is_raised_here(cluster: Cluster) -> None:
    with pytest.raises(ZeroDivisionError, match="nothing to share"):
        cluster.call(raises)
    assert cluster.call(os.path.join, "a", "b") == "a/b"


def test_results_can_be_written_to_and_outlive_the_store(cluster: Cluster) -> None:
    found = cluster.call(np.zeros, 100_000)
    found += 1
    assert found.sum() == 100_000


def dies() -> None:
    """Ends its process each time."""
    os.kill(os.getpid(), signal.SIGKILL)


def test_workers_that_die_again_and_again_end_the_run(cluster: Cluster) -> None:
    """A device would else be told that its training has failed, and the run would go on to other results."""

    def watch(progress: Progress) -> None:
        if cluster.failure is None:
            with pytest.raises(ClusterError):
                cluster.call(dies)

    with pytest.raises(ClusterError, match="lost"):
        run(STACKED, engine=cluster, watch=watch)
    with pytest.raises(ClusterError):
        cluster.call(os.getpid)
    # It starts anew for whoever comes next, in whatever order.
    cluster.close()
