"""Laws of the compiled loops of sparse updates: the same positions, values, sums and refusals as NumPy's."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.compression import PRESETS, Given, encode, native, pieces
from laconic.compression.bits import Codes, packed_size, unpack
from laconic.compression.positions.gaps import GapPositions
from laconic.compression.quantisers.ladder import Ladder, LadderValues
from laconic.coordinator.fold import Fold
from laconic.errors import WireError
from laconic.schema import Schema, TensorSpec
from often import examples

T = TypeVar("T")
NUMBERS = st.integers(0, 2**32 - 1)


def same(work: Callable[[], T]) -> T | tuple[type[Exception], str]:
    """What work returns, or the error it raises: the same with the kernels as without."""
    found: list[Any] = []
    for natively in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(native, "ready", lambda symbols, n=natively, **_: n)
            try:
                found.append(work())
            except WireError as error:
                found.append((type(error), str(error)))
    assert found[1] == found[0]
    outcome: T | tuple[type[Exception], str] = found[0]
    return outcome


@dataclass(frozen=True)
class Codes8:
    """Codes that need no decoding."""

    given: Codes
    coder: str = "none"

    def codes(self) -> Codes:
        return self.given


@given(st.binary(min_size=0, max_size=300), st.integers(1, 8), st.data())
@settings(deadline=None, max_examples=examples(150))
def test_codes_of_any_width(raw: bytes, width: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, 8 * len(raw) // width))
    raw = raw[: packed_size(count, width)]
    same(lambda: unpack(raw, count, width).tolist())


@given(st.lists(st.sampled_from([0, 1, 7, 254, 255]), min_size=1, max_size=60), st.integers(-3, 3), NUMBERS)
@settings(deadline=None, max_examples=examples(300))
def test_positions_and_refusals_of_any_gaps(codes: list[int], more: int, values: int) -> None:
    kept = max(1, sum(c != 255 for c in codes) + more)
    part = GapPositions(Codes8(np.array(codes, np.uint8)), values % 4000 + 1, kept)
    same(lambda: part.positions().tolist())


@given(NUMBERS, st.integers(1, 255), st.integers(0, 300), st.integers(0, 3), st.floats(1e-30, 3e38))
@settings(deadline=None, max_examples=examples(200))
def test_values_and_refusals_of_any_rungs(seed: int, rungs: int, count: int, over: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    listed = tuple(sorted(rng.choice(np.arange(1, 60_000), min(rungs, 8), replace=False).tolist()))
    levels = rng.integers(0, min(rungs + over, 256), count).astype(np.uint8)
    signs = rng.integers(0, 2, count).astype(np.uint8)
    part = LadderValues(Ladder(listed, rungs, float(np.float32(scale))), Codes8(signs), Codes8(levels), count)
    same(lambda: [block.tolist() for block in part.blocks()])


@given(NUMBERS, st.integers(0, 500), st.sampled_from([1e-9, 1e-3, 0.9]), st.integers(1, 60))
@settings(deadline=None, max_examples=examples(150))
def test_sums(seed: int, kept: int, scale: float, weight: int) -> None:
    def sums() -> bytes:
        fold, rng = Fold(1000), np.random.default_rng(seed)
        for _ in range(3):
            where = np.sort(rng.choice(1000, kept, replace=False)).astype(np.int64)
            values = np.clip(rng.standard_normal(kept) * scale, -1, 1).astype(np.float32)
            # Halves of a quantum are ties.
            values[::7] = np.float32(2.0**-43)
            fold.add((Given(where, values),), weight)
        return fold.mean().tobytes() + fold._fine.tobytes()

    same(sums)


@given(NUMBERS, st.sampled_from(["fast", "small", "tiny"]), st.data())
@settings(deadline=None, max_examples=examples(40))
def test_whole_frames_and_damaged_ones(seed: int, preset: str, data: st.DataObject) -> None:
    schema = Schema((TensorSpec("a", (70, 60)), TensorSpec("b", (9,)), TensorSpec("c", (1500,))))
    rng = np.random.default_rng(seed)
    update = rng.laplace(size=schema.size).astype(np.float32)
    frame = bytearray(encode(update, schema, PRESETS[preset], rng).frame)
    for _ in range(data.draw(st.integers(0, 2))):
        frame[data.draw(st.integers(14, len(frame) - 5))] ^= data.draw(st.integers(1, 255))

    def read() -> list[tuple[Any, list[float]]]:
        whole = bytes(frame[:-4]) + zlib.crc32(frame[:-4]).to_bytes(4, "little")
        return [
            (
                [str(w) for w in where] if not isinstance(where, np.ndarray) else where.tolist(),
                values.tolist(),
            )
            for piece in pieces(whole, schema, limit_bytes=10**6)
            for where, values in piece.blocks()
        ]

    same(read)
