"""Who trains gives way; who predicts does not."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from laconic.runtime import Bundle, Trainer
from laconic.runtime.priority import NICENESS, lower_priority

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="niceness belongs to a thread on Linux alone")
X = np.zeros((30, 4), np.float32)
Y = np.arange(30) % 3


def niceness() -> dict[int, int]:
    """Niceness of this process's threads (proc_pid_stat(5), field 19)."""
    found = {}
    for task in Path("/proc/self/task").iterdir():
        # A thread of the test before may be ending at this moment.
        with suppress(FileNotFoundError, ProcessLookupError):
            found[int(task.name)] = int((task / "stat").read_text().rpartition(")")[2].split()[16])
    return found


def test_a_thread_is_nice_and_those_that_it_starts_and_nobody_else(bundle: Bundle) -> None:
    trainer = Trainer(bundle, threads=2)
    trainer.predict(bundle.initial, X)
    before = niceness()
    with ThreadPoolExecutor(1, initializer=lower_priority) as pool:
        pool.submit(
            trainer.train, bundle.initial, X, Y, epochs=1, batch_size=8, learning_rate=0.1, seed=0
        ).result()
        worker = pool.submit(threading.get_native_id).result()
        after = niceness()
    started = after.keys() - before.keys()
    # The executor's thread, and one that onnxruntime keeps for the second half of a step.
    assert worker in started
    assert len(started) == 2
    assert {after[task] for task in started} == {NICENESS}
    assert {task: after[task] for task in before} == before


def test_a_thread_that_is_nicer_stays_so() -> None:
    def nicer() -> tuple[bool, int]:
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, NICENESS + 5)
        return lower_priority(), os.getpriority(os.PRIO_PROCESS, thread)

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(nicer).result() == (True, NICENESS + 5)


def test_what_is_forbidden_or_unknown_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise PermissionError

    with monkeypatch.context() as patched:
        patched.setattr(os, "setpriority", forbidden)
        assert not lower_priority()
        patched.setattr(sys, "platform", "darwin")
        assert not lower_priority()
    assert niceness()[threading.get_native_id()] < NICENESS
