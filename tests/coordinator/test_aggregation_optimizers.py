"""Server optimizers: the equations of their papers, a memory that survives, and one that a rollback ends."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic.coordinator.aggregation.optimizers import (
    NO_MOMENTS,
    OPTIMIZERS,
    Moments,
    OptimizerName,
    SavedMoments,
    ServerSettings,
    restore,
    save,
    step,
)
from laconic.errors import ConfigError, NonFinite, StorageError

MEANS = st.lists(st.floats(-8, 8, width=32), min_size=1, max_size=6).map(lambda ds: [d * 1.01 for d in ds])
"""None of them is tau: where v is its own gradient squared, Yogi's sign is a matter of rounding."""


def by_hand(s: ServerSettings, means: list[float]) -> list[float]:
    """The steps of one coordinate in Python's floats, written from Reddi et al., algorithm 2."""
    m, v, out = 0.0, s.tau**2, []
    for d in means:
        match s.optimizer:
            case "fedavg":
                out.append(s.learning_rate * d)
                continue
            case "fedavgm":
                m = s.momentum * m + d
                out.append(s.learning_rate * m)
                continue
            case "fedadagrad":
                v = v + d * d
            case "fedadam":
                v = s.beta2 * v + (1 - s.beta2) * d * d
            case "fedyogi":
                v = v - (1 - s.beta2) * d * d * math.copysign(float(v != d * d), v - d * d)
        m = s.beta1 * m + (1 - s.beta1) * d
        out.append(s.learning_rate * m / (math.sqrt(v) + s.tau))
    return out


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@given(means=MEANS)
def test_the_steps_are_those_of_the_papers(optimizer: OptimizerName, means: list[float]) -> None:
    s = ServerSettings(optimizer, learning_rate=0.5, tau=0.01)
    moments, made = NO_MOMENTS, []
    for d in means:
        moments, change = step(s, moments, np.array([d], np.float32))
        assert change.dtype == np.float32
        made.append(float(change[0]))
    np.testing.assert_allclose(made, by_hand(s, means), rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@given(
    means=st.lists(st.lists(st.floats(-1e3, 1e3, width=32), min_size=3, max_size=3), min_size=2, max_size=5)
)
def test_a_saved_memory_gives_the_same_bits(optimizer: OptimizerName, means: list[list[float]]) -> None:
    s = ServerSettings(optimizer)
    through = kept = NO_MOMENTS
    for i, mean in enumerate(means):
        vector = np.array(mean, np.float32)
        kept, a = step(s, kept, vector)
        through, b = step(s, through, vector)
        assert a.tobytes() == b.tobytes()
        through = restore(save(s, through, f"v{i}"), s, f"v{i}", 3)


def test_a_memory_of_another_version_or_optimizer_is_not_used() -> None:
    s = ServerSettings("fedadam")
    moments, _ = step(s, NO_MOMENTS, np.ones(3, np.float32))
    blob = save(s, moments, "new")
    assert set(restore(blob, s, "new", 3).vectors) == {"m", "v"}
    assert restore(blob, s, "old", 3) is NO_MOMENTS
    assert restore(blob, ServerSettings("fedyogi"), "new", 3) is NO_MOMENTS
    assert restore(None, s, "new", 3) is NO_MOMENTS


@pytest.mark.parametrize(
    "blob",
    [
        b"\xc1",
        msgspec.msgpack.encode(SavedMoments("fedadam", "v", {"m": b"123"})),
        msgspec.msgpack.encode(SavedMoments("fedadam", "v", {"m": np.full(3, np.nan, "<f4").tobytes()})),
    ],
)
def test_a_damaged_memory_is_refused(blob: bytes) -> None:
    with pytest.raises(StorageError):
        restore(blob, ServerSettings("fedadam"), "v", 3)


def test_what_overflows_is_refused() -> None:
    huge = Moments({"m": np.full(1, 3e38, np.float32)})
    with np.errstate(over="ignore"), pytest.raises(NonFinite):
        step(ServerSettings("fedavgm"), huge, np.full(1, 3e38, np.float32))


@pytest.mark.parametrize(
    "wrong",
    [{"optimizer": "adam"}, {"learning_rate": 0.0}, {"momentum": 1.0}, {"beta1": -0.1}, {"beta2": 1.0},
     {"tau": 0.0}, {"tau": float("nan")}],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        ServerSettings(**wrong)  # type: ignore[arg-type]
