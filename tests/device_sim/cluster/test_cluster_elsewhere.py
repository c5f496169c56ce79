"""A cluster that somebody else has started: used if its laconic is this one, refused if not."""

from __future__ import annotations

import os
import signal
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from laconic.device_sim.cluster import Cluster
from laconic.errors import ConfigError

pytestmark = [pytest.mark.ray, pytest.mark.soak]

PORT = 26379
"""Outside of the ports that Ray gives its workers."""


@contextmanager
def head(**environment: str) -> Iterator[str]:
    """A cluster of one worker, and its address."""
    with tempfile.TemporaryDirectory(prefix="lr", dir="/tmp") as folder:
        command = [
            str(Path(sysconfig.get_path("scripts")) / "ray"),
            "start",
            "--head",
            "--block",
            "--num-cpus=1",
        ]
        command += [f"--port={PORT}", "--node-ip-address=127.0.0.1", "--include-dashboard=false"]
        process = subprocess.Popen(
            [*command, f"--temp-dir={folder}"],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            assert process.stdout is not None
            assert any("Ray runtime started" in line for line in process.stdout)
            yield f"127.0.0.1:{PORT}"
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)


@pytest.fixture(autouse=True)
def _token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both sides have one that is nobody else's."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "only-for-this-test-0123456789abcdef")


def test_a_cluster_is_used_and_left_as_it_was() -> None:
    with head() as address:
        for _ in range(2):
            with Cluster(address=address) as cluster:
                assert cluster.call(len, [1, 2, 3]) == 3
                assert cluster.workers == 1


def test_a_cluster_with_another_laconic_is_refused(tmp_path: Path) -> None:
    (tmp_path / "laconic").mkdir()
    (tmp_path / "laconic" / "__init__.py").write_text('__version__ = "0.0.1"\n')
    with head(PYTHONPATH=str(tmp_path)) as address, Cluster(address=address) as cluster:
        with pytest.raises(ConfigError) as refused:
            cluster.start()
        assert refused.value.value == "0.0.1"
        assert refused.value.thing.startswith("laconic on ")
