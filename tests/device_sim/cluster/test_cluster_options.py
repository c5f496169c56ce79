"""What is said to who asks for a cluster that cannot be had: no Ray is needed, or started, for these."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from laconic import cli
from laconic.device_sim.cluster import Cluster, workshop_of
from laconic.errors import ConfigError
from laconic.exit_codes import CONFIGURATION
from laconic.runtime import Bundle
from laconic.training import prepare
from laconic.training.models import mlp

SCENARIO = """
name = "s"
model.built_in = "softmax"

[[devices]]
name = "d"
count = 2
speed.sample_s = 1.0
"""


def test_without_ray_the_way_to_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'laconic\[ray\]'"), Cluster() as cluster:
        cluster.start()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--workers", "2"], "only with --engine ray"),
        (["--address", "127.0.0.1:1"], "only with --engine ray"),
        (["--engine", "ray", "--workers", "0"], "1 or more"),
        (["--engine", "ray", "--address", "ray://127.0.0.1:10001"], "HOST:PORT"),
    ],
)
def test_options_that_make_no_sense_are_refused_before_anything_starts(
    options: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario, out = tmp_path / "s.toml", tmp_path / "out"
    scenario.write_text(SCENARIO)
    assert cli.main(["sim", "run", str(scenario), "--output", str(out), *options]) == CONFIGURATION
    assert told in capsys.readouterr().err
    assert not out.exists()


def test_an_engine_that_there_is_not_is_refused() -> None:
    bundle = Bundle.read(prepare(mlp((2,), 2, (), 0, from_zero=False)))
    with (
        pytest.raises(ConfigError, match="engine"),
        workshop_of(bundle, threads=1, engine="spark"),  # type: ignore[arg-type]
    ):
        pass


@pytest.mark.ray
def test_a_cluster_that_is_not_there_is_said_so_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(ConfigError, match="Ray cluster"), Cluster(address=f"127.0.0.1:{port}") as cluster:
        cluster.start()
    assert cluster.failure is None
