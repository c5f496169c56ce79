"""Engines' records become windows and what is left of their lives; a file that is none is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.device_sim.datasets import cmapss
from laconic.device_sim.datasets.cmapss import decode, decode_left
from laconic.device_sim.datasets.windows import scale_of, windows_of
from laconic.errors import ConfigError
from often import examples


def text(lives: list[int], change: Callable[[np.ndarray], None] = lambda table: None) -> bytes:
    rng = np.random.default_rng(0)
    rows = [
        [e + 1, c + 1, *rng.normal(size=24).round(4)] for e, life in enumerate(lives) for c in range(life)
    ]
    table = np.array(rows)
    change(table)
    return "\n".join(" ".join(f"{v:g}" for v in row) for row in table).encode()


LIVES = st.lists(st.integers(1, 12), min_size=1, max_size=5)


@settings(max_examples=examples(60), deadline=None)
@given(LIVES, st.integers(1, 9), st.integers(1, 4))
def test_windows_end_where_they_should_and_hold_the_rows_before(
    lives: list[int], width: int, stride: int
) -> None:
    values, starts = decode(text(lives), "made up")
    assert np.diff(starts).tolist() == lives
    scale = scale_of(values, [3, 7])
    scaled = scale.scaled(values)
    x, ends, records = windows_of(values, starts, scale, width, stride=stride)
    assert x.shape == (len(ends), 2, width)
    assert x.dtype == np.float32
    # The last of each is there, then every stride-th before it, as long as it is whole.
    for record, life in enumerate(lives):
        first, end = starts[record], starts[record + 1] - 1
        mine = ends[records == record]
        assert mine.tolist() == [end - k * stride for k in range(len(mine))][::-1]
        assert len(mine) == 1 + max(0, life - width) // stride
        for window, at in zip(x[records == record], mine, strict=True):
            rows = np.clip(np.arange(at - width + 1, at + 1), first, None)
            np.testing.assert_array_equal(window, scaled[rows].T)
    last, _, _ = windows_of(values, starts, scale, width, last_only=True)
    np.testing.assert_array_equal(last, x[np.append(np.diff(records) > 0, True)])


@settings(max_examples=examples(40), deadline=None)
@given(LIVES, st.integers(0, 99))
def test_every_flight_leaves_one_less(lives: list[int], left: int) -> None:
    values, starts = decode(text(lives), "made up")
    engines = cmapss.Engines(values, starts, np.full(len(lives), left))
    due = np.concatenate([np.arange(life - 1, -1, -1) + left for life in lives])
    assert engines.remaining().tolist() == due.tolist()
    assert [len(engines.of(e)) for e in range(len(engines))] == lives


def put(at: tuple[int, int], value: float) -> Callable[[np.ndarray], None]:
    return lambda table: table.__setitem__(at, value)


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b"", "at least one line"),
        (b"1 2 3", "columns"),
        (b"1 1 a", "no table"),
        (b"1 1\n1 2 3", "no table"),
        (b"\xff\xfe", "no table"),
        (b"1 # 2", "no table"),
        (text([3], put((1, 5), np.nan)), "finite"),
        (text([3], put((1, 5), np.inf)), "finite"),
        (text([3], put((1, 1), 7)), "without gaps"),
        (text([3, 2], put((3, 0), 3)), "without gaps"),
        (text([3], lambda t: t.__setitem__((slice(None), 0), 2)), "without gaps"),
    ],
)
def test_what_is_no_record_is_refused(raw: bytes, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        decode(raw, "made up")


@pytest.mark.parametrize("raw", [b"1\n2\n", b"1\n2\n-3\n", b"1 2 3", b"1\n2\n1e30\n", b"1\n2\n3.5\n"])
def test_lives_that_are_left_must_fit(raw: bytes) -> None:
    with pytest.raises(ConfigError):
        decode_left(raw, "made up", 3)


def test_a_file_with_another_digest_is_refused(tmp_path: Path) -> None:
    for name in ("train_FD001.txt", "test_FD001.txt", "RUL_FD001.txt"):
        (tmp_path / name).write_bytes(text([3]))
    with pytest.raises(ConfigError, match="SHA-256"):
        cmapss.load(tmp_path)
    with pytest.raises(ConfigError, match=r"no train_FD002\.txt in .*data\.nasa\.gov"):
        cmapss.load(tmp_path, subset="FD002")


@pytest.fixture(scope="module")
def folder(shared_data: Path) -> Path:
    return shared_data / "cmapss"


@pytest.mark.data
def test_the_real_engines(folder: Path) -> None:
    """Counts as in the data set's own readme; 14 sensors are those that most papers keep."""
    found = cmapss.load(folder)
    train = found.train
    assert train.x.shape == (20_631 - 100 * 29, 14, 30)
    assert train.group is not None
    assert len(np.unique(train.group)) == 100
    assert train.y.min() == 0
    assert train.y.max() == 125
    assert found.held_out is not None
    assert found.held_out.x.shape == (100, 14, 30)
    assert found.held_out.y[:5].tolist() == [112, 98, 69, 82, 91]
    # All windows' last rows and their flights without a window: of mean 0 and deviation 1 together.
    rows = cmapss.read_engines(folder, "FD001", "train")
    scaled = cmapss.scale_of_training(rows).scaled(rows.values)
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(scaled.std(axis=0), 1, atol=1e-4)


@pytest.mark.data
def test_settings_change_what_they_say(folder: Path) -> None:
    found = cmapss.load(
        folder, window=5, stride=10, cap_cycles=50, unit_cycles=50.0, channels=("setting1", "s2", "s3")
    )
    assert found.train.x.shape[1:] == (3, 5)
    assert 1_950 < len(found.train.x) < 2_100
    assert found.train.y.max() == 1.0
    with pytest.raises(ConfigError, match="s22"):
        cmapss.load(folder, channels=("s22",))
