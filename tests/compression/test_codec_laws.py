"""Laws of encode and decode: round trip, error bounds, determinism, unbiasedness, size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from codec_cases import LIMIT_BYTES, SETTINGS, frame_of, schema_of, training_like, updates
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.compression import PRESETS, CodecSettings, decode, inspect
from laconic.compression.quantisers.uniform import UNIFORM
from laconic.compression.rate import PRICE
from laconic.compression.stages import Registry
from laconic.compression.wire import Reader
from laconic.errors import ConfigError, LimitExceeded, Malformed, ModelError, NonFinite
from often import examples

CNN = schema_of((16, 1, 3, 3), (16,), (32, 16, 3, 3), (32,), (384, 512), (384,), (10, 384), (10,))


def rng() -> np.random.Generator:
    return np.random.default_rng(5)


@given(updates())
@settings(deadline=None)
def test_exact_is_a_round_trip_of_every_bit(case):
    schema, update = case
    frame = frame_of(update, schema, PRESETS["exact"], rng())
    assert decode(frame, schema, limit_bytes=LIMIT_BYTES).tobytes() == update.tobytes()


@given(updates(magnitude=3e38), st.sampled_from(sorted(SETTINGS)))
@settings(max_examples=examples(200), deadline=None)
def test_every_setting_encodes_every_finite_update(case, name):
    schema, update = case
    frame = frame_of(update, schema, SETTINGS[name], rng())
    decoded = decode(frame, schema, limit_bytes=LIMIT_BYTES)
    assert decoded.dtype == np.float32
    assert decoded.shape == update.shape
    assert np.isfinite(decoded).all()
    assert frame == frame_of(update, schema, SETTINGS[name], rng())
    assert len(frame) <= len(frame_of(update, schema, PRESETS["exact"], rng()))
    info = inspect(frame)
    assert info.values == schema.size
    assert info.bytes == len(frame)
    assert sorted(i for s in info.sections for i in s.tensors) == list(range(len(schema.tensors)))
    assert [s.values for s in info.sections] == [
        sum(schema.tensors[i].size for i in s.tensors) for s in info.sections
    ]


@given(updates(magnitude=3e38), st.sampled_from(sorted(n for n, s in SETTINGS.items() if not s.stochastic)))
@settings(max_examples=examples(120), deadline=None)
def test_deterministic_rounding_never_adds_error(case, name):
    """|update - decoded| <= |update|: with error feedback a residual cannot grow by being sent."""
    schema, update = case
    decoded = decode(frame_of(update, schema, SETTINGS[name], rng()), schema, limit_bytes=LIMIT_BYTES)
    left = np.linalg.norm(update.astype(np.float64) - decoded)
    assert left <= np.linalg.norm(update.astype(np.float64)) * (1 + 1e-5) + 2.0**-126 * np.sqrt(schema.size)


@given(updates(magnitude=1e3), st.integers(2, 8))
@settings(max_examples=examples(100), deadline=None)
def test_stochastic_rounding_is_within_one_step(case, bits):
    schema, update = case
    chosen = CodecSettings(kind="dense", bits=bits, stochastic=True, small_tensor_values=0)
    frame = frame_of(update, schema, chosen, rng())
    decoded = decode(frame, schema, limit_bytes=LIMIT_BYTES)
    for part, where in zip(inspect(frame).sections, schema.slices, strict=True):
        if "scale" in part.params:
            error = np.abs(update[where].astype(np.float64) - decoded[where]).max()
            assert error <= part.params["scale"] * (1 + 1e-6)


@pytest.mark.parametrize("bits", [6, 7, 8])
def test_rounding_to_the_nearest_is_within_half_a_step_where_nothing_is_clipped(bits):
    schema = schema_of((5000,))
    update = np.random.default_rng(1).uniform(-1, 1, 5000).astype(np.float32)
    frame = frame_of(update, schema, CodecSettings(kind="dense", bits=bits), rng())
    (part,) = inspect(frame).sections
    error = np.abs(decode(frame, schema, limit_bytes=LIMIT_BYTES) - update).max()
    assert error <= part.params["scale"] * 0.5001


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_stochastic_rounding_is_unbiased(bits):
    """Mean of 400 encodings; the bound is 5 standard errors of a variable within one step."""
    values = np.random.default_rng(2).standard_normal(200).astype(np.float32)
    draw, total, trials = rng(), np.zeros(200), 400
    for _ in range(trials):
        body = UNIFORM.write(values, bits, 1, draw)
        part = UNIFORM.read(Reader(memoryview(body)[1:]), 200)
        total += np.concatenate(list(part.blocks()))
    step = part.scale * (2 if bits == 1 else 1)
    assert np.abs(total / trials - values).max() <= 5 * step / 2 / np.sqrt(trials)


@pytest.mark.parametrize("step_rms", [0.3, 1.0, 2.5])
def test_no_value_is_further_off_than_its_bits_are_worth(step_rms):
    """A level costs at most half a step of error and its bits; so what is sent, or nothing, costs no more."""
    update = training_like(CNN, np.random.default_rng(3))
    chosen = replace(PRESETS["small"], step_rms=step_rms, small_tensor_values=0, low_rank=False)
    step = step_rms * np.sqrt(np.mean(np.square(update, dtype=np.float64)))
    decoded = decode(frame_of(update, CNN, chosen, rng()), CNN, limit_bytes=LIMIT_BYTES)
    kept = np.count_nonzero(decoded)
    # Of a row, of a column, of a sign and of a level, each may be the first of its kind among all kept.
    bits = 4 * np.log2(8 * kept)
    assert np.abs(update - decoded).max() <= step * np.sqrt(0.5**2 + PRICE * bits)


@given(st.integers(1, 400), st.floats(0.001, 1.0))
@settings(deadline=None)
def test_top_k_keeps_the_asked_number_of_the_largest(size, density):
    schema = schema_of((size,))
    update = np.random.default_rng(size).permutation(np.arange(1, size + 1)).astype(np.float32)
    chosen = CodecSettings(kind="topk", density=density, bits=32, small_tensor_values=0)
    decoded = decode(frame_of(update, schema, chosen, rng()), schema, limit_bytes=LIMIT_BYTES)
    kept = max(1, round(density * size))
    # Where positions cost more than they save, the whole tensor is sent.
    assert np.count_nonzero(decoded) in (kept, size)
    assert set(range(size - kept + 1, size + 1)) <= set(decoded.astype(int))


def test_top_k_of_equal_magnitudes_keeps_no_more_than_asked():
    schema = schema_of((1000,))
    chosen = CodecSettings(kind="topk", density=0.02, bits=1)
    frame = frame_of(np.full(1000, 2.0, np.float32), schema, chosen, rng())
    decoded = decode(frame, schema, limit_bytes=4000)
    assert np.count_nonzero(decoded) == 20
    assert set(decoded.tolist()) == {0.0, 2.0}


def test_finer_steps_cost_more_bytes_and_less_error():
    update = training_like(CNN, np.random.default_rng(4))
    sizes, errors = [], []
    for step in (0.5, 1.0, 2.0, 3.0, 4.0, 6.0):
        frame = frame_of(update, CNN, replace(PRESETS["small"], step_rms=step), rng())
        sizes.append(len(frame))
        errors.append(np.linalg.norm(update - decode(frame, CNN, limit_bytes=LIMIT_BYTES)))
    assert sizes == sorted(sizes, reverse=True)
    assert errors == sorted(errors)


def test_the_exact_preset_costs_four_bytes_a_value_and_a_tiny_header():
    update = training_like(CNN, np.random.default_rng(4))
    assert len(frame_of(update, CNN, PRESETS["exact"], rng())) <= 4 * CNN.size + 64


def test_the_small_preset_is_small():
    update = training_like(CNN, np.random.default_rng(4))
    assert 4 * CNN.size / len(frame_of(update, CNN, PRESETS["small"], rng())) > 40


def test_the_update_of_a_tiny_model_stays_tiny():
    schema = schema_of((3, 4), (3,))
    update = np.random.default_rng(0).standard_normal(15).astype(np.float32)
    assert len(frame_of(update, schema, PRESETS["dense8"], rng())) <= 18 + 1 + 15 + 2 * 9
    # Both tensors are in the pool: a bitmap of a byte, and one section.
    assert len(frame_of(np.zeros(15, np.float32), schema, PRESETS["small"], rng())) == 18 + 1 + 2


@pytest.mark.parametrize("name", sorted(SETTINGS))
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(name, bad):
    update = np.ones(15, np.float32)
    update[7] = bad
    with pytest.raises(NonFinite):
        frame_of(update, schema_of((15,)), SETTINGS[name], rng())


def test_another_shape_or_dtype_is_refused():
    schema = schema_of((15,))
    for update in (np.ones(14, np.float32), np.ones(15, np.float64), np.ones((15, 1), np.float32)):
        with pytest.raises(ModelError):
            frame_of(update, schema, PRESETS["small"], rng())


def test_a_vector_larger_than_the_limit_is_refused():
    schema = schema_of((100,))
    frame = frame_of(np.ones(100, np.float32), schema, PRESETS["small"], rng())
    with pytest.raises(LimitExceeded):
        decode(frame, schema, limit_bytes=399)
    assert decode(frame, schema, limit_bytes=400).size == 100


def test_a_frame_of_another_schema_is_refused():
    frame = frame_of(np.ones(12, np.float32), schema_of((12,)), PRESETS["small"], rng())
    with pytest.raises(Malformed, match="schema digest"):
        decode(frame, schema_of((3, 4)), limit_bytes=1000)


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_settings_survive_a_message(name):
    chosen = SETTINGS[name]
    assert CodecSettings.from_builtins(chosen.to_builtins()) == chosen


def test_settings_in_builtins_are_a_name_and_what_differs():
    assert PRESETS["small"].to_builtins() == "small"
    assert replace(PRESETS["tiny"], bits=3).to_builtins() == {"preset": "tiny", "bits": 3}


@pytest.mark.parametrize(
    "bad",
    [
        "huge",
        3,
        None,
        {"preset": 1},
        {"preset": "small", "bit": 3},
        {"bits": "3"},
        {"bits": True},
        {"bits": 9},
        {"density": 0},
        {"density": float("nan")},
        {"kind": "lowrank"},
        {"stochastic": True},
        {"zstd_level": 0},
    ],
)
def test_bad_settings_are_refused(bad):
    with pytest.raises(ConfigError):
        CodecSettings.from_builtins(bad)


def test_two_stages_cannot_share_a_number():
    with pytest.raises(ValueError, match="share a number"):
        Registry("quantiser", range(0x10, 0x20), (UNIFORM, UNIFORM))
    with pytest.raises(ValueError, match="outside"):
        Registry("coder", range(0x30, 0x40), (UNIFORM,))
