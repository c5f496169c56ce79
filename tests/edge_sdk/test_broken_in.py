"""A device that is used wrongly: told to end twice, from within, in a fork; begun where it cannot be."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from laconic.edge_sdk import Device, Limits
from laconic.edge_sdk.engine import DeviceEngine, DeviceSettings
from laconic.edge_sdk.guard import Guard
from laconic.edge_sdk.learner import OnnxLearner
from laconic.edge_sdk.sensors import NoSensors
from laconic.errors import LocalProtocolError
from laconic.node import Compute, Computed, Effect, Event, Note, Received, Started
from laconic.protocol import topics
from laconic.protocol.messages import Offer, encode
from laconic.runtime import Bundle, Trainer
from laconic.storage import MemoryStore
from laconic.training import prepare
from laconic.training.models import digits_cnn
from laconic.transport.driver import Driver
from laconic.transport.memory import MemoryHub, MemoryLink

PATIENCE_S = 10.0
UNREADABLE_TEXT = b"\x84" + b"".join(
    bytes([0xA0 + len(name)]) + name + b"\xa1\xff" for name in (b"task", b"update", b"answered", b"begun")
)
"""A map of which the fields that are text in one record or another are not UTF-8."""


@pytest.fixture(scope="module")
def trainer() -> Trainer:
    return Trainer(Bundle.read(prepare(digits_cnn(0))))


@pytest.fixture
def settings(tmp_path: Path, trainer: Trainer) -> dict[str, Any]:
    x = np.random.default_rng(0).random((12, 1, 8, 8), np.float32)
    data = (x, np.arange(12) % 10)
    return {"broker": "mqtt://127.0.0.1:9", "bundle": trainer, "data": data, "store": tmp_path / "d.db"}


def test_many_threads_may_stop_it(settings: dict[str, Any]) -> None:
    """Recorded: the second `stop` raised `CancelledError`, and cut short what was to be written down."""
    raised: list[BaseException] = []
    device = Device("d", **settings)
    device.start()

    def stop() -> None:
        try:
            device.stop()
        except BaseException as e:
            raised.append(e)

    stopping = [threading.Thread(target=stop) for _ in range(4)]
    for thread in stopping:
        thread.start()
    for thread in stopping:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    assert not raised


def test_it_may_be_stopped_twice_on_a_programs_own_loop(settings: dict[str, Any]) -> None:
    """Recorded: the program was cancelled with its device."""

    async def program() -> None:
        async with Device("d", **settings) as device:
            device.stop()
            device.stop()
        running = asyncio.ensure_future(Device("d", **settings).run_async())
        await asyncio.sleep(0.05)
        for _ in range(3):
            running.cancel()
            await asyncio.sleep(0.001)
        with pytest.raises(asyncio.CancelledError):
            await running
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(program())


def test_the_thread_that_works_may_stop_it(settings: dict[str, Any]) -> None:
    """Recorded: `busy`, or the function that gives the data, waited for itself."""
    with Device("d", **settings) as device:
        work = device._life._work
        assert work is not None
        work.submit(device.stop).result(PATIENCE_S)


def test_a_thread_that_cannot_be_started(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Recorded: `stop` then waited for ever."""

    def none_left(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    device = Device("d", **settings)
    with monkeypatch.context() as m:
        m.setattr(threading.Thread, "start", none_left)
        with pytest.raises(RuntimeError, match="new thread"):
            device.start()
    device.stop()


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_is_not_held_up(settings: dict[str, Any]) -> None:
    """Recorded: a child that left the `with` block waited for a thread that only its parent has."""
    with Device("d", **settings) as device:
        child = os.fork()
        if not child:
            device.stop()
            os._exit(0)
        until = time.monotonic() + PATIENCE_S
        while not (ended := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < until:
            time.sleep(0.01)
        if not ended[0]:
            os.kill(child, 9)
            os.waitpid(child, 0)
        assert ended == (child, 0)
        assert len(device.predict(settings["data"][0])) == 12


FORGETFUL = """
import sys, threading
import numpy as np
from laconic.edge_sdk import Device, Limits
from laconic.edge_sdk.engine import DeviceEngine, DeviceSettings
from laconic.edge_sdk.guard import Guard
from laconic.edge_sdk.learner import OnnxLearner
from laconic.edge_sdk.sensors import NoSensors

begun, ended = threading.Event(), []
bundle, store = sys.argv[1:]
data = np.zeros((4, 1, 8, 8), np.float32), np.zeros(4, np.int64)
device = Device("d", broker="mqtt://127.0.0.1:9", bundle=bundle, data=data, store=store, checkpoint_s=86400)
device.start()
guard = device._life.guard

def work():  # looks up as training does
    guard.begin()
    begun.set()
    while not guard.should_yield():
        threading.Event().wait(0.01)
    print("yielded", flush=True)

device._life._work.submit(work)
begun.wait()
"""


def test_a_program_that_forgets_it_ends(trainer: Trainer, tmp_path: Path) -> None:
    """Recorded: the interpreter waited for training, which nobody had told to yield, for its whole slice."""
    bundle = tmp_path / "digits.bundle"
    bundle.write_bytes(prepare(digits_cnn(0)))
    command = [sys.executable, "-c", FORGETFUL, str(bundle), str(tmp_path / "d.db")]
    ended = subprocess.run(command, timeout=30, capture_output=True, text=True, check=True)
    assert ended.stdout == "yielded\n"


def test_it_takes_part_once_at_a_time(settings: dict[str, Any]) -> None:
    """Recorded: the first could not be stopped any more."""

    async def program() -> None:
        device = Device("d", **settings)
        running = asyncio.ensure_future(device.run_async())
        await asyncio.sleep(0)
        with pytest.raises(LocalProtocolError, match="already"):
            await device.run_async()
        device.stop()
        async with asyncio.timeout(PATIENCE_S):
            await running

    asyncio.run(program())


@pytest.mark.parametrize("kind", [ValueError, asyncio.CancelledError])
def test_callbacks_may_raise_anything(settings: dict[str, Any], kind: type[BaseException]) -> None:
    """Recorded: a hook that raised `CancelledError`, which is no `Exception`, ended the device."""
    heard = threading.Event()

    def fail(*_: object) -> Any:
        heard.set()
        raise kind

    with Device("d", on_note=fail, busy=fail, **settings) as device:
        assert heard.wait(PATIENCE_S)
        assert device._life.guard.read(0.0).busy
        time.sleep(0.05)
        assert device._thread is not None
        assert device._thread.is_alive()


def test_a_program_that_is_busy_by_turns_counts_as_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recorded: work that had just yielded went on at once, and wrote a checkpoint ten times a second."""
    now, turns = [0.0], itertools.cycle((True, False, False, False))
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    guard = Guard(NoSensors(), Limits(), "UTC", busy=lambda: next(turns))
    found = []
    for _ in range(8):
        found.append(guard.read(0.0).busy)
        now[0] += 0.1
    assert found == [True] * 8
    monkeypatch.setattr(guard, "_busy", lambda: False)
    now[0] += 1.0
    assert not guard.read(0.0).busy


def test_whether_it_is_busy_may_depend_on_its_totals(settings: dict[str, Any]) -> None:
    """Recorded: each asked the other, and the program was busy for ever."""
    device = Device("d", busy=lambda: device.totals()["charge"] == 0.0, **settings)
    with device:
        assert not device._life.guard.read(time.time()).busy


class Asking:
    """A node that has something computed at once."""

    will = wake_at = None

    def __init__(self) -> None:
        self.result: object = None

    def handle(self, event: Event, now: float) -> list[Effect]:
        if isinstance(event, Computed):
            self.result = event.result
        return [Compute("train", lambda: 1)] if isinstance(event, Started) else []


def test_work_that_no_thread_takes_comes_to_an_end() -> None:
    """Recorded: `run` in a thread that outlived the main one waited for ever for training never begun."""

    async def program() -> None:
        over, node = ThreadPoolExecutor(1), Asking()
        over.shutdown()
        driver = Driver(node, MemoryLink(MemoryHub(), "n"), MemoryStore(), executor=over)
        driving = asyncio.ensure_future(driver.run())
        async with asyncio.timeout(PATIENCE_S):
            while node.result is None:
                await asyncio.sleep(0.001)
        driving.cancel()
        assert isinstance(node.result, RuntimeError)

    asyncio.run(program())


def test_codec_settings_in_a_thousand_lists_are_dropped(trainer: Trainer, settings: dict[str, Any]) -> None:
    """Recorded: a retained offer with them ended each device that heard it, in every life."""
    engine = DeviceEngine(DeviceSettings("d"), OnnxLearner(trainer, settings["data"]))
    engine.handle(Started(MemoryStore()), 0.0)
    offer = Offer("a" * 16, 1, engine.model.name, 0, "b" * 16, codec=b"\x91" * 1024)
    (said,) = engine.handle(Received(topics.cohort_task("default"), encode(offer)), 1.0)
    assert isinstance(said, Note)
    assert (said.kind, said.fields["error"]) == ("dropped", "Malformed")


@pytest.mark.parametrize("key", ["diary", "outbox", "checkpoint", "booked", "model", "echo", "private"])
@pytest.mark.parametrize("content", [b"\x91" * 3000, b"", b"\xff" * 40, UNREADABLE_TEXT], ids=range(4))
def test_whatever_lies_in_a_store_a_device_begins(
    trainer: Trainer, settings: dict[str, Any], key: str, content: bytes
) -> None:
    """Recorded: text that is none, from before there were checksums, was no damage but the device's end."""
    store = MemoryStore()
    store.write({key: content})
    engine = DeviceEngine(DeviceSettings("d"), OnnxLearner(trainer, settings["data"]))
    assert engine.handle(Started(store), 0.0)
    assert engine.model.version == 0
