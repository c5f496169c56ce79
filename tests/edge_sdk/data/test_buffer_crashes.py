"""The buffer on a disk that is cut, damaged or left in the middle of an operation."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_folder import Crash, MemoryFolder
from test_example_buffer import ROOM, buffer, example, kept

from laconic.edge_sdk.data.keeping import key_of
from laconic.runtime import Bundle
from often import examples, points

RECORD, HEADER = 36, 32


@pytest.fixture(scope="module")
def few(linear: Bundle) -> dict[str, bytes]:
    """Files with 14 examples: three whole segments and one of two."""
    folder = MemoryFolder()
    subject = buffer(folder, linear)
    for i in range(14):
        subject.add(*example(i))
    subject.close()
    assert [len(c) for c in folder.files.values()] == [HEADER + 4 * RECORD] * 3 + [HEADER + 2 * RECORD]
    return folder.files


def cuts(files: dict[str, bytes]) -> Iterator[tuple[str, int]]:
    for name, content in files.items():
        for at in range(len(content)):
            yield name, at


def test_a_file_cut_at_any_byte_leaves_its_whole_examples(linear: Bundle, few: dict[str, bytes]) -> None:
    names = sorted(few)
    for name, at in cuts(few):
        folder = MemoryFolder({**few, name: few[name][:at]})
        subject = buffer(folder, linear)
        first, whole = 4 * names.index(name), max(0, at - HEADER) // RECORD
        here = range(first, min(first + 4, 14))
        assert kept(subject) == [i for i in range(14) if i not in here[whole:]], (name, at)
        assert subject.add(*example(14))
        subject.close()
        assert folder.used <= ROOM


def test_any_changed_byte_loses_one_example_and_alters_none(linear: Bundle, few: dict[str, bytes]) -> None:
    rng = np.random.default_rng(0)
    for name, at in cuts(few):
        content = bytearray(few[name])
        content[at] ^= int(rng.integers(1, 256))
        subject = buffer(MemoryFolder({**few, name: bytes(content)}), linear)
        lost = {14} if at < HEADER else {4 * sorted(few).index(name) + (at - HEADER) // RECORD}
        assert kept(subject) == [i for i in range(14) if i not in lost], (name, at)


def test_what_changes_while_the_buffer_is_open_is_left_out_too(linear: Bundle) -> None:
    folder = MemoryFolder()
    subject = buffer(folder, linear)
    for i in range(8):
        subject.add(*example(i))
    subject.flush()
    content = bytearray(folder.files["00000001.seg"])
    content[HEADER + RECORD + 20] ^= 1
    folder.files["00000001.seg"] = bytes(content)
    assert kept(subject) == [0, *range(2, 8)]
    assert (subject.status().damaged, subject.status().lost, subject.samples) == (1, 1, 7)


@given(st.dictionaries(st.sampled_from(["00000001.seg", "00000002.seg", "x", "00000003.aside"]), st.binary()))
@settings(max_examples=examples(50), deadline=None)
def test_a_folder_of_anything_is_no_obstacle(linear: Bundle, files: dict[str, bytes]) -> None:
    folder = MemoryFolder(files)
    subject = buffer(folder, linear)
    assert kept(subject) == []
    for i in range(100):
        assert subject.add(*example(i))
        subject.flush()
    assert kept(subject) == list(range(52, 100))
    assert folder.used - len(files.get("x", b"")) <= ROOM


def test_a_record_in_another_place_is_not_taken(linear: Bundle, few: dict[str, bytes]) -> None:
    """A whole file under another's name, two records changed about: right bytes at the wrong place."""
    first, second, *_ = sorted(few)
    content = few[first]
    swapped = (
        content[:HEADER] + content[HEADER + RECORD : HEADER + 2 * RECORD] + content[HEADER : HEADER + RECORD]
    )
    for files in ({**few, second: few[first]}, {**few, first: swapped + content[HEADER + 2 * RECORD :]}):
        found = kept(buffer(MemoryFolder(files), linear))
        assert set(found) < set(range(14))
        assert len(found) == len(set(found)) < 14


LIFE = 33
NARROW = 16 * (HEADER + 2 * RECORD)
"""Sixteen segments of two records."""


@pytest.mark.parametrize("keep", ["newest", "uniform"])
@pytest.mark.parametrize("part", [0.0, 0.6])
def test_a_crash_between_any_two_operations_loses_nothing_that_was_durable(
    linear: Bundle, keep: str, part: float
) -> None:
    """Two lives of the buffer, in which segments are moved and removed, cut short at every operation."""
    for crash_at in points(0, 1000, stride=3):
        folder, taken = MemoryFolder(), 0
        folder.crash_at, folder.part = crash_at, part
        unhurt = True
        try:
            for _ in (1, 2):
                subject = buffer(folder, linear, keep=keep, max_bytes=NARROW, durable=True)
                for _ in range(LIFE):
                    subject.add(*example(taken))
                    taken += 1
                folder.held = False
        except Crash:
            unhurt = False
        assert folder.used <= NARROW
        again = MemoryFolder(folder.files)
        subject = buffer(again, linear, keep=keep, max_bytes=NARROW)
        # The one that was being added may be there or not.
        assert kept(subject) in (due(keep, taken), due(keep, taken + 1)), crash_at
        for i in range(5):
            subject.add(*example(1000 + i))
        subject.flush()
        assert again.used <= NARROW
        if unhurt:
            break
    assert unhurt
    assert crash_at > LIFE


def due(keep: str, taken: int) -> list[int]:
    """What is kept of the first `taken` examples."""
    if keep == "newest":
        return list(range(max(0, taken - 24), taken))
    keys = {i: key_of(0, (1 + i // LIFE << 40) + i % LIFE) for i in range(taken)}
    return sorted(sorted(keys, key=keys.__getitem__)[:18])
