"""What `stop` promises: no thread, file, socket, lock or task is left behind, also in the midst of training;
and what was trained till then is not lost. Over a real mosquitto, with a real coordinator."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import until
from sites import Site

from laconic.edge_sdk import Device
from laconic.edge_sdk.hooks import RoundDone
from laconic.edge_sdk.readers import Machine, Sample
from laconic.node import Note
from laconic.runtime import Bundle, Trainer
from laconic.storage import SqliteStore
from laconic.training import prepare
from laconic.training.models import digits_cnn

pytestmark = pytest.mark.broker

PATIENCE_S = 30.0
EPOCHS = 60
COHORTS = ("blocking", "threaded", "asynchronous", "resumed", "left")


@pytest.fixture(scope="module")
def trainer() -> Trainer:
    return Trainer(Bundle.read(prepare(digits_cnn(0))))


def _site(folder: Path, mosquitto_path: str, trainer: Trainer, cohorts: tuple[str, ...]) -> Site:
    folder.mkdir()
    site = Site(folder, mosquitto_path)
    site.broker()
    (folder / "digits.bundle").write_bytes(prepare(digits_cnn(0)))
    site.write(
        "".join(
            f'[[campaign]]\ncohort = "{cohort}"\nbundle = "digits.bundle"\nrounds = {{ rounds = 1 }}\n'
            f"training = {{ epochs = {EPOCHS}, batch_size = 4 }}\n"
            for cohort in cohorts
        )
    )
    site.coordinator()
    return site


@pytest.fixture(scope="module")
def sites(
    tmp_path_factory: pytest.TempPathFactory, mosquitto_path: str, trainer: Trainer
) -> Iterator[tuple[Site, Site]]:
    """Two fleets of the same name, model and round: the same task comes twice."""
    folder = tmp_path_factory.mktemp("sites")
    one = _site(folder / "one", mosquitto_path, trainer, COHORTS)
    two = _site(folder / "two", mosquitto_path, trainer, ("resumed",))
    yield one, two
    for process in (*one.running, *two.running):
        process.end()


class Meter:
    """A reader, so that there is a thread which asks it."""

    source, period_s = "the test", 0.1

    def read(self) -> Sample:
        return Sample(temperature_c=40.0)


class Watched:
    """A device of a test, and what it has said."""

    def __init__(self, site: Site, cohort: str, folder: Path, trainer: Trainer, **options: Any) -> None:
        rng = np.random.default_rng(7)
        x = rng.random((64, 1, 8, 8), np.float32)
        self.notes: list[Note] = []
        self.busy = False
        self.store = folder / "d.db"
        self.device = Device(
            f"d-{cohort}",
            broker=f"mqtt://127.0.0.1:{site.port}",
            bundle=trainer,
            data=(x, np.arange(64) % 10),
            store=self.store,
            cohort=cohort,
            busy=lambda: self.busy,
            sensors=partial(Machine, readers=[Meter()]),
            retry_s=0.5,
            on_note=self._note,
            **options,
        )
        self._stop_at = ""

    def _note(self, note: Note, now: float) -> None:
        self.notes.append(note)
        if note.kind == self._stop_at:
            self.busy = True

    def be_busy_at(self, kind: str) -> None:
        """The program wants the machine for itself from the next note of a kind on."""
        self._stop_at = kind

    def said(self, kind: str) -> bool:
        return any(note.kind == kind for note in self.notes)

    def wait_for(self, kind: str) -> None:
        until(lambda: self.said(kind), PATIENCE_S, f"{kind} among {[n.kind for n in self.notes]}")


def _threads() -> set[int]:
    return {int(task) for task in os.listdir("/proc/self/task")}


def _files() -> list[str]:
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{number}"))
        except FileNotFoundError:  # that of the listing itself
            continue
    return sorted(found)


class Before:
    """Threads and open files before a device is started."""

    def __init__(self) -> None:
        gc.collect()
        self._python, self._threads, self._files = set(threading.enumerate()), _threads(), _files()

    def is_restored(self, store: Path) -> None:
        assert set(threading.enumerate()) <= self._python
        # The kernel forgets a thread a moment after it has been waited for.
        until(lambda: _threads() <= self._threads, 5, "threads that have ended")
        assert _files() == self._files
        SqliteStore(store).close()  # nobody holds its lock


def _blocking(watched: Watched) -> Callable[[], None]:
    """`run` in a thread of the program's own; gives what stops it."""
    running = threading.Thread(target=watched.device.run)
    running.start()

    def stop() -> None:
        watched.device.stop()
        running.join()

    return stop


def _threaded(watched: Watched) -> Callable[[], None]:
    watched.device.start()
    return watched.device.stop


@pytest.mark.parametrize("form", [_blocking, _threaded])
@pytest.mark.parametrize("at", ["online", "training"])
def test_a_device_that_is_stopped_leaves_nothing(
    form: Callable[[Watched], Callable[[], None]],
    at: str,
    sites: tuple[Site, Site],
    tmp_path: Path,
    trainer: Trainer,
) -> None:
    before = Before()
    cohort = form.__name__.strip("_")
    watched = Watched(sites[0], cohort if at == "training" else "nobody", tmp_path, trainer)
    stop = form(watched)
    watched.wait_for(at)
    stop()
    assert not watched.said("sending"), "training was over before it could be stopped"
    before.is_restored(watched.store)
    watched.device.predict(np.zeros((1, 1, 8, 8), np.float32))
    before.is_restored(watched.store)


@pytest.mark.parametrize("at", ["online", "training"])
def test_on_a_programs_own_loop_too(
    at: str, sites: tuple[Site, Site], tmp_path: Path, trainer: Trainer
) -> None:
    watched = Watched(sites[0], "asynchronous" if at == "training" else "nobody", tmp_path, trainer)

    async def program() -> None:
        before, tasks = Before(), asyncio.all_tasks()
        async with asyncio.timeout(PATIENCE_S), watched.device:
            while not watched.said(at):
                await asyncio.sleep(0.01)
        assert asyncio.all_tasks() == tasks
        before.is_restored(watched.store)

    asyncio.run(program())
    assert not watched.said("sending"), "training was over before it could be stopped"


def test_stop_ends_run_async_and_not_the_task_around_it(
    sites: tuple[Site, Site], tmp_path: Path, trainer: Trainer
) -> None:
    watched = Watched(sites[0], "nobody", tmp_path, trainer)

    async def program() -> str:
        asyncio.get_running_loop().call_later(0.05, watched.device.stop)
        async with asyncio.timeout(PATIENCE_S):
            await watched.device.run_async()
        await asyncio.sleep(0.02)
        return "went on"

    assert asyncio.run(program()) == "went on"


def test_a_device_that_was_stopped_before_it_began_does_not_begin(
    sites: tuple[Site, Site], tmp_path: Path, trainer: Trainer
) -> None:
    watched = Watched(sites[0], "nobody", tmp_path, trainer)
    watched.device.stop()
    watched.device.run()
    assert not watched.notes


def test_a_hook_may_stop_its_device(sites: tuple[Site, Site], tmp_path: Path, trainer: Trainer) -> None:
    """Recorded: the device's thread waited for itself, and the program for ever."""
    watched = Watched(sites[0], "nobody", tmp_path, trainer)
    hear = watched.device._person.observe

    def stopping(note: Note, now: float) -> None:
        watched.device.stop()
        hear(note, now)

    watched.device._person.observe = stopping
    before = Before()
    watched.device.run()
    assert watched.said("online") or watched.said("offline")
    before.is_restored(watched.store)


def test_training_that_was_stopped_gives_the_update_that_it_would_have_given(
    sites: tuple[Site, Site], tmp_path: Path, trainer: Trainer
) -> None:
    """Busy, stopped, begun again by another device object: the same update as of one that was left alone."""
    done: list[list[RoundDone]] = [[], []]
    updates: list[object] = []
    for number, site in enumerate(sites):
        folder = tmp_path / str(number)
        folder.mkdir()
        if number == 0:
            first = Watched(site, "resumed", folder, trainer)
            first.be_busy_at("training")
            with first.device:
                first.wait_for("paused")
            assert not first.said("sending")
        last = Watched(site, "resumed", folder, trainer, on_round=done[number].append)
        with last.device:
            last.wait_for("committed")
            last.wait_for("model")
        assert last.said("training on") == (number == 0)
        updates += [note.fields["update"] for note in last.notes if note.kind == "committed"]
    # An update's id is a hash of its frame: docs/decisions/0012-update-ids-name-the-frame.md
    assert len(updates) == 2
    assert updates[0] == updates[1]
    assert done[0] == done[1] == [RoundDone(1, done[0][0].update_bytes, committed=True)]


def test_what_became_of_an_update_is_told_in_the_next_life_too(
    sites: tuple[Site, Site], tmp_path: Path, trainer: Trainer
) -> None:
    """Recorded: it was told of round 0, and of 0 bytes."""
    first = Watched(sites[0], "left", tmp_path, trainer)
    hear = first.device._person.observe

    def leaving(note: Note, now: float) -> None:
        hear(note, now)
        if note.kind == "sending":
            first.device.stop()

    first.device._person.observe = leaving
    first.device.run()
    sent = next(note for note in first.notes if note.kind == "sending")
    done: list[RoundDone] = []
    with Watched(sites[0], "left", tmp_path, trainer, on_round=done.append).device:
        until(lambda: bool(done), PATIENCE_S, "the word on the update")
    assert done == [RoundDone(1, int(str(sent.fields["bytes"])), committed=True)]
