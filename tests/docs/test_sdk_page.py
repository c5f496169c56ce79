"""docs/sdk.md: its snippets, run one after the other with a real broker and coordinator."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from laconic.edge_sdk import Device
from laconic.training import prepare
from laconic.training.models import digits_cnn

PAGE = (Path(__file__).parents[2] / "docs" / "sdk.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
PATIENCE_S = 30.0


class World:
    """What the snippets take for granted: a sensor, and somebody who acts on what is predicted."""

    def __init__(self) -> None:
        self.acted: list[int] = []
        self.made: list[Device] = []
        self._rng = np.random.default_rng(0)

    def reading(self) -> np.ndarray:
        return self._rng.random((1, 8, 8), np.float32)

    def enough(self) -> bool:
        """Whether the device that a snippet has made has another model than its first."""
        return self.made[-1].version > 0

    def sensor(self) -> Iterator[np.ndarray]:
        until = time.monotonic() + PATIENCE_S
        while not self.enough():
            assert time.monotonic() < until, "no model has come"
            time.sleep(0.01)
            yield self.reading()

    async def readings_to_come(self) -> AsyncIterator[np.ndarray]:
        import asyncio

        until = time.monotonic() + PATIENCE_S
        while not self.enough():
            assert time.monotonic() < until, "no model has come"
            await asyncio.sleep(0.01)
            yield self.reading()

    def act_on(self, prediction: Any) -> None:
        self.acted.append(int(np.argmax(prediction)))


@pytest.mark.broker
def test_the_snippets_run(
    tmp_path: Path,
    mosquitto_path: str,
    free_port: int,
    start: Callable[..., subprocess.Popen[str]],
    answers: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(1)
    Path("model.bundle").write_bytes(prepare(digits_cnn(0)))
    np.savez("readings.npz", x=rng.random((32, 1, 8, 8), np.float32), y=np.arange(32) % 10)
    Path("device.toml").write_text('name = "greenhouse-8"\nbundle = "model.bundle"\n')
    Path("coordinator.toml").write_text(
        f'bundle = "model.bundle"\n[broker]\nurl = "mqtt://127.0.0.1:{free_port}"\n[rounds]\nrounds = 1000\n'
    )
    start(mosquitto_path, "-p", str(free_port))
    answers(free_port)
    start(sys.executable, "-m", "laconic.cli", "coordinator", "--config", "coordinator.toml")

    world = World()
    begun = Device.__init__

    def noted(self: Device, *arguments: Any, **options: Any) -> None:
        # On a build machine everything else may well take all the cores; and the test is run at night too.
        options.pop("limits", None)
        begun(self, *arguments, **options)
        world.made.append(self)

    monkeypatch.setattr(Device, "__init__", noted)
    scope: dict[str, Any] = {
        "__name__": "sdk.md",
        "sensor": world.sensor,
        "readings_to_come": world.readings_to_come,
        "act_on": world.act_on,
        "label_of": lambda reading: int(reading.sum()) % 10,
    }
    threads = set(threading.enumerate())
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        for code in BLOCKS:
            before = len(world.acted)
            exec(compile(code.replace("hub.local", f"127.0.0.1:{free_port}"), "sdk.md", "exec"), scope)
            assert len(world.acted) > before or "device_from_file(" in code
    assert [d.name for d in world.made] == [f"greenhouse-{i}" for i in (3, 4, 8, 5, 6, 7)]
    assert re.search(r"^version \d+ \([0-9a-f]{16}\)$", out.getvalue(), re.MULTILINE)
    assert set(threading.enumerate()) == threads
    assert scope["examples"].status().refused == 0
