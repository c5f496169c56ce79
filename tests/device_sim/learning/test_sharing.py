"""Sums of fetched models that several devices ask for are computed once, and equal ones only."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from laconic.compression import PRESETS, encode
from laconic.device_sim.learning.sharing import Sharing
from laconic.edge_sdk.download import Fetched, Sum, Whole
from laconic.edge_sdk.records import Held
from laconic.errors import ChecksumMismatch
from laconic.protocol.identity import weights_hash
from laconic.protocol.messages import Manifest
from laconic.schema import Schema, TensorSpec, Vector

SCHEMA = Schema((TensorSpec("w", (4, 3)),))
OLD = np.arange(SCHEMA.size, dtype=np.float32)
CHANGE = np.full(SCHEMA.size, 0.5, np.float32)


def sums(change: Vector) -> Sum:
    """A device's own: nothing in it is the same object as another's."""
    frame = encode(change, SCHEMA, PRESETS["exact"], np.random.default_rng(0)).frame
    promised = weights_hash(OLD + change, SCHEMA)
    held = Held(0, weights_hash(OLD, SCHEMA), OLD.copy())
    return Sum(Fetched(Manifest(1, promised, "b" * 16, "", None, None, 0), (frame,), False), held, SCHEMA)


def test_equal_sums_are_done_once_and_give_one_array() -> None:
    with ThreadPoolExecutor(2) as pool:
        sharing = Sharing(pool)
        results = [sharing.submit(lambda run: run(), sums(CHANGE)).result() for _ in range(3)]
        assert len({id(r) for r in results}) == 1
        whole = results[0]
        assert isinstance(whole, Whole)
        assert whole.held.weights.tobytes() == (OLD + CHANGE).tobytes()
        assert sharing.submit(lambda run: run(), sums(2 * CHANGE)).result() is not whole
        assert sharing.submit(lambda run: run(), sums(CHANGE)).result() is whole
        with pytest.raises(ValueError, match="read-only"):
            whole.held.weights += 1


def test_a_sum_of_other_summands_is_another_whatever_it_promises() -> None:
    right, other = sums(CHANGE), sums(2 * CHANGE)
    lying = replace(other, fetched=replace(other.fetched, manifest=right.fetched.manifest))
    elsewhere = replace(right, held=Held(0, weights_hash(CHANGE, SCHEMA), CHANGE))
    with ThreadPoolExecutor(1) as pool:
        sharing = Sharing(pool)
        assert isinstance(sharing.submit(lambda run: run(), right).result(), Whole)
        for wrong in (lying, elsewhere):
            with pytest.raises(ChecksumMismatch):
                sharing.submit(lambda run: run(), wrong).result()
