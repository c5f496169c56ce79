"""Laws of the echo: what is added on a device's behalf is what it takes off, whatever happens in between."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.compression.echo import MOST_MEMORY, NO_ECHO, Echo, EchoSettings
from laconic.compression.feedback import Residual
from laconic.coordinator.aggregation.echo import NOTHING_SAID, SavedEcho, restore, save
from laconic.errors import ConfigError, NonFinite, StorageError
from often import examples

SIZE, SOURCE = 6, "ab" * 8
SETTINGS = st.builds(EchoSettings, gain=st.floats(0.0, 1.0), memory=st.floats(0.0, MOST_MEMORY))
LOUD = EchoSettings(0.3, 0.9)
ROUNDS = st.lists(
    st.tuples(
        st.sampled_from(["away", "silent", "lost", "committed", "late"]),
        st.booleans(),
        st.floats(0.1, 1.0),
    ),
    max_size=25,
)


def without(residual: Residual, *parts: np.ndarray | None) -> Residual:
    for part in parts:
        residual = residual if part is None else residual.committed(part)
    return residual


@settings(deadline=None, max_examples=examples(200))
@given(SETTINGS, ROUNDS, st.integers(0, 999))
def test_frames_with_their_echoes_and_the_residual_are_the_changes(chosen, rounds, seed):
    """One device, the coordinator's own vector beside it: what that has added is what the device took off.

    In every round the device is away, silent, or sends half of what it has to say, which is lost, committed,
    or committed with a discount to the round after; a round without a frame may end without a step.
    """
    rng = np.random.default_rng(seed)
    echo, fleet, residual = NO_ECHO, NOTHING_SAID, Residual(np.zeros(SIZE, np.float32))
    learnt, stepped, discounted = np.zeros(SIZE), np.zeros(SIZE), np.zeros(SIZE)
    late: tuple[np.ndarray, float] | None = None
    for number, (fate, steps, discount) in enumerate(rounds, 1):
        mean, folds = np.zeros(SIZE, np.float32), late is not None or fate == "committed"
        if late is not None:
            (frame, factor), late = late, None
            echo, due = echo.folded(frame, SOURCE, fleet.tick, factor)
            residual = without(residual, frame, due)
            mean = mean + np.float32(factor) * frame
            discounted += (1 - factor) * frame
        if fate != "away":
            echo, due = echo.at(SOURCE, fleet.tick, chosen)
            change = rng.normal(size=SIZE).astype(np.float32)
            learnt += change
            residual = Residual(without(residual, due).values + change)
            frame = np.where(np.arange(SIZE) % 2 == number % 2, residual.values, 0).astype(np.float32)
            if fate == "committed":
                echo, due = echo.folded(frame, SOURCE, fleet.tick)
                assert due is None, "it stands at this tick"
                residual, mean = without(residual, frame), mean + frame
            elif fate == "late":
                late = frame, discount
        if folds or steps:
            stepped += fleet.added(mean)
            fleet = fleet.after(mean, chosen, number)
    echo, due = echo.at(SOURCE, fleet.tick, chosen)
    residual = without(residual, due)
    # What the step at hand is going to add has been taken off too.
    coming = np.zeros(SIZE) if fleet.values is None else fleet.values
    scale = 1e-3 * (1 + np.abs(learnt).max() + np.abs(stepped).max())
    np.testing.assert_allclose(stepped + coming + discounted + residual.values, learnt, rtol=0, atol=scale)


@given(SETTINGS, st.lists(st.integers(0, 40), min_size=1, max_size=8), st.integers(0, 99))
def test_ticks_at_once_are_ticks_one_after_the_other(chosen, steps, seed):
    values = np.random.default_rng(seed).normal(size=SIZE).astype(np.float32)
    one = many = Echo(values, 3, SOURCE, chosen)
    taken = np.zeros(SIZE)
    for passed in steps:
        many, due = many.at(SOURCE, many.tick + passed, chosen)
        taken += 0 if due is None else due
    one, due = one.at(SOURCE, 3 + sum(steps), chosen)
    np.testing.assert_allclose(taken, 0 * taken if due is None else due, rtol=1e-4, atol=1e-6)
    left = [0 * taken if e.values is None else e.values for e in (one, many)]
    np.testing.assert_allclose(*left, rtol=1e-4, atol=1e-6)
    assert one.tick == many.tick


def test_another_source_an_earlier_tick_or_nothing_said_begin_anew():
    heard = Echo(np.ones(SIZE, np.float32), 7, SOURCE, LOUD)
    for source, tick in (("cd" * 8, 9), (SOURCE, 6)):
        assert heard.at(source, tick, LOUD) == (Echo(None, tick, source, LOUD), None)
    assert NO_ECHO.at(SOURCE, 5, LOUD) == (Echo(None, 5, SOURCE, LOUD), None)
    assert heard.at(SOURCE, 7, LOUD) == (heard, None)


def test_an_answer_that_comes_again_after_its_tick_counts_from_where_the_device_stands():
    heard = Echo(None, 7, SOURCE, LOUD)
    echo, due = heard.folded(np.ones(SIZE, np.float32), SOURCE, 5)
    assert (echo.tick, due) == (7, None)
    assert np.allclose(echo.values, 0.3)


def test_what_overflows_is_refused_and_ranges_are_held():
    huge = np.full(SIZE, 3e38, np.float32)
    with pytest.raises(NonFinite):
        Echo(huge, 0, SOURCE, LOUD).at(SOURCE, 9, LOUD)
    with pytest.raises(NonFinite):
        Echo(huge, 0, SOURCE, EchoSettings(1.0, 0.0)).folded(huge, SOURCE, 0)
    with pytest.raises(NonFinite):
        NOTHING_SAID.after(huge, EchoSettings(1.0, 0.9), 1).after(huge, EchoSettings(1.0, 0.9), 2)
    for gain, memory in ((-0.1, 0.5), (1.1, 0.5), (0.1, 1.0), (0.1, -0.1), (float("nan"), 0.5)):
        with pytest.raises(ConfigError):
            EchoSettings(gain, memory)


def test_the_fleets_echo_is_saved_for_one_version_and_damage_is_named():
    fleet = NOTHING_SAID.after(np.arange(SIZE, dtype=np.float32), LOUD, 4)
    blob = save(LOUD, fleet, "v")
    back = restore(blob, LOUD, "v", SIZE)
    assert (back.values.tobytes(), back.tick, back.began) == (fleet.values.tobytes(), 1, 4)
    assert restore(blob, LOUD, "w", SIZE) is NOTHING_SAID
    assert restore(blob, EchoSettings(0.3, 0.8), "v", SIZE) is NOTHING_SAID
    assert save(LOUD, NOTHING_SAID, "v") is save(EchoSettings(), fleet, "v") is None
    nan = msgspec.msgpack.encode(SavedEcho(0.3, 0.9, "v", 1, 4, np.full(SIZE, np.nan, "<f4").tobytes()))
    for damaged in (b"x", blob[:-1], nan):
        with pytest.raises(StorageError):
            restore(damaged, LOUD, "v", SIZE)
    with pytest.raises(StorageError):
        restore(blob, LOUD, "v", SIZE + 1)


def test_a_small_echo_is_not_worth_a_version():
    weights = np.full(SIZE, 10.0, np.float32)
    whisper = NOTHING_SAID.after(np.full(SIZE, 1e-5, np.float32), LOUD, 1)
    assert not whisper.outweighs_silence(weights)
    assert whisper.outweighs_silence(0 * weights)
    assert not NOTHING_SAID.outweighs_silence(0 * weights)
