"""Memory that does not suffice: a model that is too large, training that is killed for it again and again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from fleet import BUNDLE, LinearLearner

from laconic.edge_sdk.engine import MOST_ENDS, DeviceEngine, DeviceSettings
from laconic.node import Compute, Effect, Note, Received, Save, Started
from laconic.protocol import topics
from laconic.protocol.messages import Offer, encode
from laconic.storage import MemoryStore

HERE = Path(__file__).resolve().parent

KILLED = textwrap.dedent(
    """
    import os, signal, sys
    from pathlib import Path
    sys.path[:0] = sys.argv[2:]
    from fleet import LinearLearner
    from lives import Lives

    class Greedy(LinearLearner):
        def train(self, *args, **kwargs):
            print("training", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

    lives = Lives(Path(sys.argv[1]), Greedy(0))

    async def scene():
        await lives.more("skipped")
        print(*(n.fields["why"] for n in lives.heard("failed")), sep="; ")
        print(*(n.fields["why"] for n in lives.heard("skipped")))

    lives.play(scene)
    """
)


def life(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *arguments, str(HERE), str(HERE.parent / "engines")],
        capture_output=True, text=True, check=False, timeout=60,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.soak
def test_work_that_is_killed_every_time_is_not_begun_for_ever(tmp_path: Path) -> None:
    """As by the kernel when memory runs out: kill -9 in the middle of training."""
    for _ in range(MOST_ENDS):
        done = life(KILLED, str(tmp_path / "d.db"))
        assert (done.returncode, done.stdout) == (-signal.SIGKILL, "training\n"), done.stderr
    done = life(KILLED, str(tmp_path / "d.db"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{MOST_ENDS} lives have ended in this work", "failed"]


def begins(store: MemoryStore, number: int) -> tuple[bool, list[Effect]]:
    """Whether a new life begins work on a task, and all that it does when it is offered; then it ends."""
    device = DeviceEngine(DeviceSettings("d0"), LinearLearner(0))
    task = Offer(f"{number:016x}", number, device.model.name, 0, BUNDLE)
    effects: list[Effect] = []
    for event in (Started(store), Received(topics.cohort_task("default"), encode(task))):
        for effect in device.handle(event, 1.0):
            effects.append(effect)
            if isinstance(effect, Save):
                store.write(effect.entries)
    return any(isinstance(e, Compute) for e in effects), effects


def test_after_so_many_lives_a_task_is_answered_without_being_begun() -> None:
    store = MemoryStore()
    assert [begins(store, 1)[0] for _ in range(MOST_ENDS)] == [True] * MOST_ENDS
    begun, effects = begins(store, 1)
    assert not begun
    assert [e.fields["why"] for e in effects if isinstance(e, Note) and e.kind == "skipped"] == ["failed"]
    assert not begins(store, 1)[0], "it has been answered"
    assert begins(store, 2)[0], "the next task is another matter"


TOO_LARGE = textwrap.dedent(
    """
    import os, resource, sys
    from pathlib import Path
    sys.path[:0] = sys.argv[2:]
    import numpy as np
    from fleet import LinearLearner
    import lives as module
    from laconic.edge_sdk.download import Fetched

    lives = module.Lives(Path(sys.argv[1]))
    apply = Fetched.apply

    def large(self, held, schema):
        # As a model of a gigabyte would: the addition asks for more than there is.
        resource.setrlimit(resource.RLIMIT_AS, (2**29, resource.RLIM_INFINITY))
        try:
            np.ones(2**28, np.float32)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        return apply(self, held, schema)

    Fetched.apply = large

    async def scene():
        await lives.until(lambda: len(lives.heard("dropped")) > 0, "dropped")
        await lives.until(lambda: len(lives.heard("skipped")) > 0, "skipped")
        print(lives.heard("skipped")[0].fields["why"], lives.engine.model.version)
        Fetched.apply = apply
        await lives.more("model")
        print("goes on")

    lives.play(scene)
    """
)


@pytest.mark.skipif(sys.platform != "linux", reason="no limit of address space")
def test_a_model_that_does_not_fit_into_memory_leaves_the_old_one(tmp_path: Path) -> None:
    done = life(TOO_LARGE, str(tmp_path / "d.db"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["memory", "0", "goes", "on"]
