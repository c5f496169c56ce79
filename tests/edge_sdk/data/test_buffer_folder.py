"""The folder of a buffer that another process fills: what it has there is seen, and nothing is changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from laconic.edge_sdk.data import BufferFolder, ExampleBuffer, Signature
from laconic.edge_sdk.data.signature import Field
from laconic.errors import ConfigError, DataError
from often import examples

SIGNATURE = Signature(
    (Field("x", np.dtype(np.float32), (2,)),), (Field("y", np.dtype(np.int64), (), classes=3),)
)
SMALL: dict[str, Any] = {"max_bytes": 4096}


def content(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@hypothesis_settings(max_examples=examples(60), deadline=None)
@given(
    keep=st.sampled_from(["newest", "uniform", "balanced"]),
    labels=st.lists(st.integers(0, 2), min_size=1, max_size=300),
    most=st.none() | st.integers(1, 40),
    at_end=st.booleans(),
)
def test_it_sees_what_the_owner_keeps_and_leaves_every_byte(
    keep: Any, labels: list[int], most: int | None, at_end: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("buffer")
    with ExampleBuffer(folder, SIGNATURE, keep=keep, max_examples=most, **SMALL) as owner:
        source = BufferFolder(folder, keep=keep, max_examples=most, **SMALL).bind(SIGNATURE)
        for part in (labels, labels[: len(labels) // 2]):
            for i, label in enumerate(part):
                owner.add(np.array([i, label], np.float32), label)
            owner.flush()
        if at_end:
            owner.close()
            due = ExampleBuffer(folder, SIGNATURE, keep=keep, max_examples=most, **SMALL)
            expected, before = due.snapshot(), content(folder)
            due.close()
        else:
            expected, before = owner.snapshot(), content(folder)
        assert source.snapshot().tag == expected.tag
        assert source.samples == expected.samples
        assert content(folder) == before


def test_what_is_added_later_is_seen_by_the_next_training(tmp_path: Path) -> None:
    source = BufferFolder(tmp_path / "later").bind(SIGNATURE)
    assert source.samples == 1, "there may be some when the task comes"
    with pytest.raises(DataError, match="is empty"):
        source.snapshot()
    with ExampleBuffer(tmp_path / "later", SIGNATURE) as owner:
        for count in (1, 2):
            owner.add(np.zeros(2, np.float32), 1)
            owner.flush()
            assert source.snapshot().samples == count
            assert source.snapshot() is source.snapshot(), "not read again"


def test_bounds_that_cannot_be_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="max_bytes"):
        BufferFolder(tmp_path, max_bytes=10).bind(SIGNATURE)
