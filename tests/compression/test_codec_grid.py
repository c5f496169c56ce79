"""The grid transform: round trips of levels, sizes against entropy, choice of levels, hostile bytes."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spec_decoder import Frame
from test_codec_hostile import mutated

from laconic.compression.transforms.grid import GRID, Kept, Steps, quantise
from laconic.compression.transforms.grid.dealing import deal, gather
from laconic.compression.transforms.grid.gaps import (
    ALPHABET,
    BASE,
    EXTRA,
    WidthReader,
    alphabet_of,
    pack_widths,
    symbols_of,
)
from laconic.compression.transforms.grid.layout import most_kept
from laconic.compression.transforms.grid.steps import grid_step
from laconic.compression.wire import Reader
from laconic.errors import Malformed, NonFinite, WireError
from often import examples

SCRATCH_BYTES = 2 << 20


def written(kept: Kept, columns: int, steps: Steps) -> bytes:
    part = GRID.write(kept, columns, steps)
    assert part is not None
    return part


def read(part: bytes, values: int):
    reader = Reader(memoryview(part))
    assert reader.byte("transform") == GRID.number
    decoded = GRID.read(reader, values)
    if reader.left:
        raise Malformed("rest", value=reader.left)
    return decoded


def filled(part: bytes, values: int) -> np.ndarray:
    out = np.zeros(values, np.float32)
    read(part, values).fill(out)
    return out


def expected(kept: Kept, steps: Steps) -> np.ndarray:
    out = np.zeros(kept.values, np.float32)
    out[kept.positions] = steps.values(kept.levels)
    return out


def structured(rows: int, columns: int, density: float, rng: np.random.Generator) -> np.ndarray:
    """Levels as training makes them: some rows and columns keep much, some nothing; rows agree in sign."""
    row, column = rng.gamma(0.4, size=(rows, 1)), rng.gamma(0.4, size=(1, columns))
    share = np.minimum(row * column / (row * column).mean() * density, 0.9)
    level = np.where(rng.random((rows, columns)) < share, rng.geometric(0.7, (rows, columns)), 0)
    sign = np.where(rng.random((rows, columns)) < 0.05, -1, 1) * rng.choice([-1, 1], (rows, 1))
    return np.minimum(level, 255) * sign


def order_0_bits(levels: np.ndarray) -> float:
    """Of positions, signs and levels."""
    kept = levels[levels != 0]
    share = kept.size / levels.size
    bits = 0.0
    for p in (share, 1 - share):
        bits -= levels.size * p * np.log2(p) if p else 0
    counts = np.unique(np.abs(kept), return_counts=True)[1]
    return bits + kept.size - float((counts * np.log2(counts / kept.size)).sum())


@st.composite
def grids(draw: st.DrawFn) -> tuple[Kept, int, Steps]:
    rows, columns = draw(st.integers(1, 40)), draw(st.integers(1, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["structured", "flat", "full", "one"]))
    if kind == "structured":
        levels = structured(rows, columns, draw(st.floats(0.01, 0.5)), rng).ravel()
    elif kind == "flat":
        levels = (rng.random(rows * columns) < draw(st.floats(0, 1))) * rng.integers(
            -255, 256, rows * columns
        )
    else:
        levels = np.full(rows * columns, draw(st.integers(-255, 255)))
        if kind == "one":
            levels[1:] = 0
    if not levels.any():
        levels[rng.integers(levels.size)] = -1
    top = int(np.abs(levels).max())
    rungs = draw(st.integers(top, 255))
    offsets = draw(st.lists(st.integers(0, 255), max_size=min(rungs, 4)))
    scale = grid_step(draw(st.floats(1e-30, 1e30)))
    assert scale is not None
    return Kept.of(levels), columns, Steps(scale / 128, rungs, tuple(offsets))


@given(grids())
@settings(max_examples=examples(150), deadline=None)
def test_levels_come_back_bit_for_bit(case):
    kept, columns, steps = case
    part = written(kept, columns, steps)
    same = expected(kept, steps)
    assert filled(part, kept.values).tobytes() == same.tobytes()
    positions, values = read(part, kept.values).entries()
    assert positions.dtype == np.int64
    assert np.array_equal(positions, kept.positions)
    assert values.tobytes() == same[kept.positions].tobytes()
    assert np.array_equal(kept.dense()[kept.positions], kept.levels)


@given(grids())
@settings(max_examples=examples(60), deadline=None)
def test_the_page_alone_decodes_a_grid(case):
    kept, columns, steps = case
    part = written(kept, columns, steps)
    frame = Frame(part)
    assert frame.tensor(kept.values) == expected(kept, steps).tolist()
    assert frame.at == len(part)


@given(st.integers(0, 2**32 - 1), st.booleans())
@settings(max_examples=examples(150), deadline=None)
def test_mutated_grids_raise_wire_errors_only(seed, behind_header):
    rng = np.random.default_rng(seed)
    levels = structured(30, 40, 0.2, rng).ravel()
    levels[5] = 3
    part = written(Kept.of(levels), 40, Steps(2.0**-10, 255, (60, 90)))
    cut = 20 if behind_header else 1
    for _ in range(10):
        try:
            out = filled(part[:cut] + mutated(part[cut:], rng), levels.size)
        except WireError:
            continue
        assert np.isfinite(out).all()


@pytest.mark.parametrize("columns", [1, 8, 1000])
@pytest.mark.parametrize("density", [0.02, 0.5])
def test_scratch_memory_is_bounded_by_the_tensor(columns, density):
    values = 1_000_000
    rng = np.random.default_rng(3)
    levels = structured(values // columns, columns, density, rng).ravel()
    levels[np.flatnonzero(levels)[most_kept(values) :]] = 0
    part = written(Kept.of(levels), columns, Steps(2.0**-10, int(np.abs(levels).max()), ()))
    out = np.zeros(values, np.float32)
    tracemalloc.start()
    read(part, values).fill(out)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * values + SCRATCH_BYTES


def test_more_than_a_grid_may_keep_is_not_written_and_not_read():
    values = 1 << 19
    levels = np.ones(values, np.int16)
    assert GRID.write(Kept.of(levels), 512, Steps(1.0, 1, ())) is None
    some = np.random.default_rng(4).permutation(values)[: most_kept(values)]
    levels = np.zeros(values, np.int16)
    levels[some] = 1
    part = written(Kept.of(levels), values, Steps(1.0, 1, ()))
    assert filled(part, values).sum() == 128 * most_kept(values)
    # One block of one rung: kind and scale; then the number of kept values.
    at = 1 + 1 + 2
    assert part[at : at + 3] == b"\x80\x80\x10"
    with pytest.raises(Malformed, match="kept values of a block"):
        read(part[:at] + b"\x81\x80\x10" + part[at + 3 :], values)


def test_few_bytes_never_stand_for_millions_of_symbols():
    """A frame of fourteen bytes would otherwise cost seconds."""
    values = 1 << 19
    assert GRID.write(Kept.of(np.repeat([1, 0], values // 2)), values, Steps(1.0, 1, ())) is None
    with pytest.raises(Malformed, match="symbols of a grid"):
        read(header(signs=1) + b"\x80\x80\x10\0\0", values)


@pytest.mark.parametrize("shape", [(120, 400), (1, 48_000), (48_000, 1), (384, 512)])
@pytest.mark.parametrize("density", [0.01, 0.05, 0.2])
def test_structureless_grids_stay_within_5_percent_of_their_entropy(shape, density):
    rng = np.random.default_rng(5)
    some = rng.random(shape) < density
    levels = (some * np.minimum(rng.geometric(0.7, shape), 255) * rng.choice([-1, 1], shape)).ravel()
    part = written(Kept.of(levels), shape[1], Steps(2.0**-10, int(np.abs(levels).max()), ()))
    assert 8 * len(part) < 1.05 * order_0_bits(levels)


@pytest.mark.parametrize("kept", [30, 200, 1000])
@pytest.mark.parametrize("values", [4000, 50_000])
def test_a_structureless_grid_costs_a_dozen_bytes_and_1_percent_over_its_entropy(kept, values):
    rng = np.random.default_rng(kept)
    over = []
    for _ in range(20):
        levels = np.zeros(values, np.int64)
        some = rng.choice(values, kept, replace=False)
        levels[some] = np.minimum(rng.geometric(0.8, kept), 9) * rng.choice([-1, 1], kept)
        part = written(Kept.of(levels), 100, Steps(2.0**-10, int(np.abs(levels).max()), ()))
        over.append(len(part) - order_0_bits(levels) / 8 * 1.01)
    assert np.mean(over) < 12


@pytest.mark.parametrize(("density", "most"), [(0.01, 0.82), (0.05, 0.7), (0.1, 0.7)])
def test_structured_grids_stay_far_below_their_order_0_entropy(density, most):
    levels = structured(384, 512, density, np.random.default_rng(6)).ravel()
    part = written(Kept.of(levels), 512, Steps(2.0**-10, int(np.abs(levels).max()), ()))
    assert 8 * len(part) < most * order_0_bits(levels)
    assert read(part, levels.size).entropy_bits() == pytest.approx(order_0_bits(levels), rel=0.05)


def test_a_tiny_tensor_costs_few_bytes():
    levels = np.zeros(32, np.int16)
    levels[[3, 4, 17]] = 1, -1, 1
    part = written(Kept.of(levels), 32, Steps(2.0**-10, 1, ()))
    assert len(part) <= 14


def test_levels_at_a_price_cost_fewer_bytes_at_the_same_error():
    """At equal error, found by a finer step, the bytes are fewer on a structured update."""
    rng = np.random.default_rng(8)
    rows, columns = 200, 300
    scale = rng.gamma(0.5, size=(rows, 1)) * rng.gamma(0.5, size=(1, columns))
    tensor = (rng.standard_t(4, (rows, columns)) * scale).astype(np.float32).ravel()

    def measured(step: float, price: float) -> tuple[float, int]:
        quantised = quantise(tensor, columns, step, price)
        assert quantised is not None
        part = written(quantised[0], columns, quantised[1])
        return float(np.linalg.norm(tensor - filled(part, tensor.size))), len(part)

    error, size = measured(3.0, 0.0)
    low, high = 0.3, 3.0
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if measured(middle, 0.15)[0] < error else (low, middle)
    finer_error, finer_size = measured(low, 0.15)
    assert finer_error <= error
    assert finer_size < 0.98 * size


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 10), st.floats(0, 1))
@settings(max_examples=examples(100), deadline=None)
def test_a_quantised_value_is_never_further_off_than_zero_would_be_by_much(seed, step, price):
    rng = np.random.default_rng(seed)
    tensor = rng.standard_t(3, 400).astype(np.float32)
    quantised = quantise(tensor, 20, step, price)
    if quantised is None:
        return
    kept, steps = quantised
    assert kept.positions.size
    assert (np.diff(kept.positions) > 0).all()
    assert kept.levels.all()
    assert (np.sign(kept.levels) == np.sign(tensor[kept.positions])).all()
    error = float(np.square(tensor - expected(kept, steps)).sum())
    assert error <= float(np.square(tensor).sum()) * 1.001


@pytest.mark.parametrize("step", [0.0, 1e-39, 1e35, float("inf"), float("nan")])
def test_a_step_beyond_float32_quantises_nothing(step):
    assert quantise(np.ones(10, np.float32), 10, step, 0.1) is None


def test_nothing_worth_keeping_is_none():
    assert quantise(np.full(10, 0.1, np.float32), 10, 1.0, 0.0) is None
    assert quantise(np.empty(0, np.float32), 1, 1.0, 0.0) is None


@given(st.integers(0, 2000))
def test_dealing_is_a_permutation_with_its_inverse(count):
    codes = np.random.default_rng(count).integers(0, 256, count, dtype=np.uint8)
    dealt = deal(codes)
    assert np.array_equal(gather(dealt), codes)
    assert np.array_equal(np.sort(dealt), np.sort(codes))


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=50))
def test_a_gap_symbol_and_its_low_bits_say_the_gap(shifted):
    gaps = np.array(shifted, np.int64)
    symbols = symbols_of(gaps)
    assert [alphabet_of(gap) for gap in shifted] == (symbols.astype(int) + 1).tolist()
    assert int(symbols.max()) < ALPHABET
    widths = EXTRA[symbols]
    low = gaps - BASE[symbols]
    assert ((low >= 0) & (low < 1 << widths)).all()
    reader = WidthReader(memoryview(pack_widths(low, widths)))
    assert np.array_equal(reader.numbers(widths) + BASE[symbols], gaps)
    reader.finish()


def header(
    classes: int | None = None,
    signs: int = 0,
    listed: int = 0,
    scale: bytes = b"\x80\x3f",
    rungs: int | None = None,
) -> bytes:
    """All that comes before the counts: one row, and bytes for classes and rungs where they are given."""
    kind = signs | listed << 3 | (rungs is not None) << 6 | (classes is not None) << 7
    said = bytes([]) if classes is None else bytes([classes])
    columns = bytes([0]) if classes is not None or signs > 1 else b""
    return bytes([4, kind]) + said + columns + scale + (b"" if rungs is None else bytes([rungs]))


@pytest.mark.parametrize(
    ("part", "values", "error"),
    [
        (bytes([4, 2, 3]), 10, Malformed),
        (header(classes=0), 10, Malformed),
        (header(classes=0x41), 10, Malformed),
        (header(classes=0x01), 1 << 17, Malformed),
        (header(classes=0x08) + b"\0\1", 10, Malformed),
        (header(signs=6), 10, Malformed),
        (header(listed=2), 10, Malformed),
        (header(listed=5, rungs=9), 10, Malformed),
        (header(scale=b"\x80\x7f"), 10, NonFinite),
        (header(scale=b"\x80\x00") + b"\x01\0\0", 10, Malformed),
        (header(scale=b"\x00\x00"), 10, Malformed),
        (header(scale=b"\x7f\x7f"), 10, NonFinite),
        (header(rungs=0), 10, Malformed),
        (header(rungs=1), 10, Malformed),
        (header() + b"\0", 10, Malformed),
        (header() + b"\x0b", 10, Malformed),
        (header() + b"\1", 0, Malformed),
        (header() + b"\x01\x00\x00", 10, Malformed),
        (header() + b"\x01\x00\x00\x08", 10, Malformed),
        (header() + b"\x01\x00\x01\x00\x00", 10, Malformed),
    ],
)
def test_what_the_page_does_not_allow_is_refused(part, values, error):
    with pytest.raises(error):
        filled(part, values)


def test_the_smallest_grid_is_what_the_page_says():
    assert filled(header() + b"\x01\x00\x00\x06", 10).tolist() == [0.0, 0.0, -128.0] + [0.0] * 7


def test_a_position_beyond_the_tensor_is_refused():
    levels = np.zeros(21, np.int16)
    levels[20] = 1
    part = written(Kept.of(levels), 21, Steps(2.0**-10, 1, ()))
    with pytest.raises(Malformed, match="position in a block"):
        filled(part, 20)
