"""The buffer of examples: what goes in comes out, within its bounds, and what stays is what should."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_folder import MemoryFolder

from laconic.edge_sdk.data import ExampleBuffer, Snapshot
from laconic.edge_sdk.data.keeping import key_of
from laconic.errors import ConfigError, DataError, DiskFull, StoreLocked
from laconic.runtime import Bundle
from often import examples

NEVER = 86400.0
ROOM = 16 * (32 + 4 * 36)
"""Sixteen segments of four records."""


def buffer(folder: MemoryFolder | Path, bundle: Bundle, **settings: Any) -> ExampleBuffer:
    settings = {"max_bytes": ROOM, "flush_every_s": NEVER, "flush_every": 10**6, **settings}
    if isinstance(folder, Path):
        return ExampleBuffer(folder, bundle, **settings)
    return ExampleBuffer("memory", bundle, folder=folder, **settings)  # type: ignore[arg-type]


def example(i: int) -> tuple[list[float], int]:
    """The `i`th example; the label tells whether it is whole."""
    return [i, -i], i % 3


def numbers(snapshot: Snapshot) -> list[int]:
    """Which examples these are; each must be as it was added."""
    x, y = snapshot.x["x"], snapshot.y["target"]
    assert x.dtype == np.float32
    assert y.dtype == np.int64
    assert (x[:, 0] == -x[:, 1]).all()
    assert (x[:, 0].astype(int) % 3 == y).all()
    return [int(i) for i in x[:, 0]]


def kept(buffer: ExampleBuffer) -> list[int]:
    try:
        return numbers(buffer.snapshot())
    except DataError:
        assert buffer.samples == 0
        return []


# --- laws


@given(
    st.lists(st.one_of(st.integers(1, 30), st.sampled_from(["flush", "restart"])), max_size=12),
    st.one_of(st.none(), st.integers(1, 60)),
)
@settings(max_examples=examples(30), deadline=None)
def test_the_newest_are_kept_whole_and_in_order(
    linear: Bundle, steps: list[int | str], most: int | None
) -> None:
    folder = MemoryFolder()
    subject = buffer(folder, linear, max_examples=most)
    assert subject.capacity == min(48, most or 48)
    added = 0
    for step in steps:
        if step == "flush":
            subject.flush()
        elif step == "restart":
            subject.close()
            subject = buffer(folder, linear, max_examples=most)
        else:
            for _ in range(int(step)):
                assert subject.add(*example(added))
                added += 1
        assert subject.samples == min(added, subject.capacity)
    assert kept(subject) == list(range(max(0, added - subject.capacity), added))
    assert folder.largest <= ROOM
    assert subject.status().lost == 0


@given(st.integers(0, 2**64), st.lists(st.integers(1, 60), min_size=1, max_size=5))
@settings(max_examples=examples(25), deadline=None)
def test_the_sample_is_of_all_that_ever_came_across_restarts(
    linear: Bundle, seed: int, lives: list[int]
) -> None:
    """Those with the smallest keys, whatever happened in between."""
    folder, keys, added = MemoryFolder(), {}, 0
    for life, count in enumerate(lives, 1):
        subject = buffer(folder, linear, keep="uniform", max_examples=20, seed=seed)
        for i in range(count):
            keys[added] = key_of(seed, (life << 40) + i)
            subject.add(*example(added))
            added += 1
        found = kept(subject)
        assert found == sorted(sorted(keys, key=keys.__getitem__)[:20])
        subject.close()
    assert folder.largest <= ROOM


def test_every_example_is_as_likely_to_be_in_the_sample() -> None:
    """Of 60 are 20 kept, 2000 times: each as often but for chance, and so is every pair."""
    from laconic.edge_sdk.data.keeping import Uniform

    runs, count, capacity = 2000, 60, 20
    times, pairs = np.zeros(count), np.zeros((count, count))
    for seed in range(runs):
        keeping, here = Uniform(capacity), set[int]()
        for i in range(count):
            here.add(i)
            here.discard(-1 if (gone := keeping.offer(i, key_of(seed, i), 0)) is None else gone)
        inside = np.isin(np.arange(count), list(here))
        times += inside
        pairs += np.outer(inside, inside)
    p = capacity / count
    # Five standard deviations of a binomial.
    assert np.abs(times - runs * p).max() < 5 * math.sqrt(runs * p * (1 - p))
    both = p * (capacity - 1) / (count - 1)
    off = pairs[~np.eye(count, dtype=bool)]
    assert np.abs(off - runs * both).max() < 5 * math.sqrt(runs * both * (1 - both))


def test_each_class_has_its_share(linear: Bundle) -> None:
    folder = MemoryFolder()
    subject = buffer(folder, linear, keep="balanced", max_examples=12)
    for i in range(300):
        subject.add([i, -i], 0 if i % 30 else 1)
    subject.close()
    subject = buffer(folder, linear, keep="balanced", max_examples=12)
    labels = subject.snapshot().y["target"]
    assert np.bincount(labels, minlength=3).tolist() == [4, 4, 0]


def test_a_sample_writes_little_and_the_newest_write_each_once(linear: Bundle) -> None:
    written = {}
    for keep in ("newest", "uniform"):
        subject = buffer(MemoryFolder(), linear, keep=keep, durable=True)
        for i in range(2500):
            subject.add(*example(i))
        written[keep] = subject.status().written_bytes / (2500 * 36)
    assert 1.0 <= written["newest"] < 1.3
    assert written["uniform"] < 0.25


# --- what does not fit, what goes wrong


@pytest.mark.parametrize(
    ("x", "y", "says"),
    [
        ([1.0, math.nan], 0, "value of 'x' in the example, found nan"),
        ([1.0, 2.0], 3, "label of 'target' in the example, found 3, allowed a whole number, 0 to 2"),
        ([1.0, 2.0], -1, "found -1"),
        ([1.0, 2.0], 0.5, "found 0.5"),
        ([1.0], 0, "shape of 'x'"),
        ([[1.0, 2.0], [3.0, 4.0]], [0, 1], "samples in 'x' of the example, found 2, allowed 1"),
        (["a", "b"], 0, "dtype of 'x'"),
        (None, 0, "inputs"),
        ([1.0, 2.0], None, "targets"),
        (10**400, 0, "'x'"),
    ],
)
def test_what_does_not_fit_is_counted_and_said(linear: Bundle, x: object, y: object, says: str) -> None:
    subject = buffer(MemoryFolder(), linear)
    assert not subject.add(x, y)
    status = subject.status()
    assert (status.refused, status.samples) == (1, 0)
    assert says in status.fault
    with pytest.raises(DataError):
        buffer(MemoryFolder(), linear, strict=True).add(x, y)


@pytest.mark.parametrize("policy", ["drop_newest", "drop_oldest"])
def test_a_full_disk_costs_what_the_policy_says_and_no_more(linear: Bundle, policy: str) -> None:
    folder = MemoryFolder()
    folder.room = 500
    subject = buffer(folder, linear, durable=True, on_full_disk=policy)
    for i in range(100):
        subject.add(*example(i))
    status, found = subject.status(), kept(subject)
    assert status.lost > 0
    assert "No space left" in status.fault or policy == "drop_oldest"
    if policy == "drop_newest":
        assert found == list(range(len(found)))
    else:
        assert found == list(range(100 - len(found), 100))
    assert len(found) >= 4
    folder.room = 2**40
    assert subject.add(*example(100))
    assert kept(subject)[-1] == 100


def test_a_full_disk_takes_nothing_from_a_buffer_that_is_full_itself(linear: Bundle) -> None:
    """What had gone for an example that could not be written comes back."""
    folder = MemoryFolder()
    subject = buffer(folder, linear, max_examples=8)
    for i in range(8):
        subject.add(*example(i))
    subject.flush()
    folder.room = folder.used
    for i in range(8, 100):
        subject.add(*example(i))
        if i % 5 == 0:
            subject.flush()
    subject.flush()
    assert kept(subject) == list(range(8))
    assert subject.status().lost == 92
    assert subject.samples == 8


def test_a_strict_buffer_says_it_at_once(linear: Bundle) -> None:
    folder = MemoryFolder()
    subject = buffer(folder, linear, durable=True, strict=True)
    folder.room = folder.used
    with pytest.raises(DiskFull, match="make room"):
        subject.add(*example(0))


def test_examples_that_come_faster_than_they_are_written_are_counted(linear: Bundle) -> None:
    subject = buffer(MemoryFolder(), linear, flush_every=1)
    with subject._disk:
        taken = [subject.add(*example(i)) for i in range(10)]
    assert taken == [True] * 4 + [False] * 6
    assert subject.status().lost == 6
    assert "slower" in subject.status().fault


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_bytes": 16 * 60},
        {"max_examples": 0},
        {"flush_every": 0},
        {"flush_every_s": 0},
        {"flush_every_s": math.nan},
        {"keep": "oldest"},
    ],
)
def test_settings_that_cannot_be_are_refused(linear: Bundle, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        buffer(MemoryFolder(), linear, **wrong)


def test_narrower_bounds_hold_from_the_start(linear: Bundle) -> None:
    folder = MemoryFolder()
    subject = buffer(folder, linear)
    for i in range(200):
        subject.add(*example(i))
    subject.close()
    less = 16 * (32 + 36)
    subject = buffer(folder, linear, max_bytes=less)
    assert folder.used <= less
    for i in range(200, 300):
        subject.add(*example(i))
        subject.flush()
        assert folder.used <= less
    assert kept(subject) == list(range(300 - subject.capacity, 300))


# --- a real folder, threads, kill -9


def test_threads_may_add_while_a_training_reads(linear: Bundle, tmp_path: Path) -> None:
    with buffer(tmp_path, linear, max_bytes=2**20, flush_every=8, flush_every_s=0.01) as subject:

        def run(start: int) -> None:
            for i in range(start, start + 200):
                assert subject.add(*example(i))

        threads = [threading.Thread(target=run, args=(1000 * t,)) for t in range(4)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            kept(subject)
        assert sorted(kept(subject)) == [1000 * t + i for t in range(4) for i in range(200)]
    with buffer(tmp_path, linear, max_bytes=2**20) as subject:
        assert len(kept(subject)) == 800


def test_one_process_holds_it(linear: Bundle, tmp_path: Path) -> None:
    with buffer(tmp_path, linear), pytest.raises(StoreLocked):
        buffer(tmp_path, linear)
    buffer(tmp_path, linear).close()


def test_kill_9_loses_nothing_that_was_durable(linear_file: bytes, linear: Bundle, tmp_path: Path) -> None:
    (tmp_path / "model.bundle").write_bytes(linear_file)
    program = f"""
from laconic.edge_sdk.data import ExampleBuffer
buffer = ExampleBuffer("b", "model.bundle", max_bytes={ROOM}, durable=True)
i = 0
while True:
    buffer.add([i, -i], i % 3)
    print(i, flush=True)
    i += 1
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert process.stdout is not None
    said = [int(process.stdout.readline()) for _ in range(150)]
    os.kill(process.pid, signal.SIGKILL)
    said += [int(line) for line in process.stdout.read().splitlines()]
    process.wait(10)
    process.stdout.close()
    with buffer(tmp_path / "b", linear) as subject:
        found = kept(subject)
    assert found[-1] - said[-1] in (0, 1)
    assert found == list(range(found[-1] - 47, found[-1] + 1))
