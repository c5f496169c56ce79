"""Sources of examples: whatever form they are in, the same snapshot; what cannot be used is named."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.edge_sdk.data import Arrays, NpzFile, Snapshot, samples_of, snapshot_of, source_of
from laconic.edge_sdk.data.checks import checked
from laconic.edge_sdk.data.signature import Field, Signature
from laconic.edge_sdk.data.streams import Dataset, Samples
from laconic.edge_sdk.learner import OnnxLearner, Trained
from laconic.errors import DataError
from laconic.protocol.messages import Training
from laconic.runtime import Bundle, Trainer
from often import examples

X = np.array([[i, -i] for i in range(12)], np.float32)
Y = np.arange(12) % 3


class Items:
    """A data set as PyTorch's are."""

    def __init__(self, failing: int | None = None) -> None:
        self.failing = failing

    def __len__(self) -> int:
        return 12

    def __getitem__(self, i: int) -> tuple[Any, Any]:
        if i == self.failing:
            raise OSError("a picture is missing")
        if i >= 12:
            raise IndexError
        return X[i], int(Y[i])


class Tensor:
    """As much of a tensor as is asked of one that has a gradient and lies on another device."""

    def __init__(self, array: Any, steps: tuple[str, ...] = ()) -> None:
        self.array, self.steps = np.asarray(array), steps

    def detach(self) -> Tensor:
        return Tensor(self.array, (*self.steps, "detach"))

    def cpu(self) -> Tensor:
        return Tensor(self.array, (*self.steps, "cpu"))

    def numpy(self) -> Any:
        assert self.steps == ("detach", "cpu")
        return self.array


class Again:
    """An iterable that is no iterator."""

    def __init__(self) -> None:
        self.times = 0

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        self.times += 1
        return ((X[i], Y[i]) for i in range(12))


FORMS: dict[str, Any] = {
    "arrays": lambda: (X, Y),
    "arrays of other dtypes": lambda: (X.astype(np.float64), Y.astype(np.uint8)),
    "mappings": lambda: ({"x": X}, {"target": Y}),
    "targets by output": lambda: ({"x": X}, {"y": Y}),
    "lists": lambda: (X.tolist(), Y.tolist()),
    "samples": lambda: [(X[i], Y[i]) for i in range(12)],
    "two tuples would be two samples": lambda: tuple((X[i], Y[i]) for i in range(12)),
    "iterator": lambda: ((X[i], Y[i]) for i in range(12)),
    "iterable": Again,
    "batches": lambda: iter([(X[:5], Y[:5]), (X[5:], Y[5:])]),
    "samples and batches": lambda: iter([(X[0], Y[0]), (X[1:], Y[1:])]),
    "tensors": lambda: ((Tensor(X[i]), Tensor(Y[i])) for i in range(12)),
    "mapping of a sample": lambda: [{"x": X[i], "y": Y[i]} for i in range(12)],
    "data set": Items,
    "function of arrays": lambda: lambda: (X, Y),
    "function of samples": lambda: lambda: zip(X, Y, strict=True),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same(linear: Bundle, form: str) -> None:
    source = source_of(FORMS[form](), linear.manifest)
    assert samples_of(source) >= 1
    for _ in range(2):
        snapshot = snapshot_of(source)
        assert snapshot.x["x"].dtype == np.float32
        assert snapshot.y["target"].dtype == np.int64
        assert snapshot.tag == checked(Signature.of(linear.manifest), {"x": X, "target": Y}, "it").tag
        assert samples_of(source) == snapshot.samples == 12


def test_a_source_is_taken_as_it_is(linear: Bundle) -> None:
    signature = Signature.of(linear.manifest)
    bad = Y.copy()
    bad[3] = 9
    for source in (
        Arrays(signature, X, bad, on_bad_row="skip"),
        Dataset(signature, Items()),
        Samples(signature, Again(), max_samples=11),
    ):
        assert source_of(source, linear.manifest) is source
        assert snapshot_of(source).samples >= 11


def test_arrays_are_not_copied_and_a_change_changes_the_tag(linear: Bundle) -> None:
    x = X.copy()
    source = source_of((x, Y.astype(np.int64)), linear.manifest)
    before = source.snapshot()
    assert np.shares_memory(before.x["x"], x)
    tag = before.tag
    x[3, 0] += 1
    assert source.snapshot().tag != tag


def test_memory_mapped_arrays_stay_on_the_disk(linear: Bundle, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert isinstance(source_of((x, Y), linear.manifest).snapshot().x["x"], np.memmap)


@given(
    st.lists(st.tuples(st.floats(width=32), st.floats(width=32), st.integers(-2, 5)), min_size=1, max_size=20)
)
@settings(max_examples=examples(60), deadline=None)
def test_bad_rows_are_left_out_and_counted_or_the_first_is_named(
    linear: Bundle, rows: list[tuple[float, float, int]]
) -> None:
    signature = Signature.of(linear.manifest)
    x, y = np.array([r[:2] for r in rows], np.float32), np.array([r[2] for r in rows])
    good = np.isfinite(x).all(1) & (y >= 0) & (y < 3)
    kept = checked(signature, {"x": x, "target": y}, "it", "skip")
    assert kept.skipped == (~good).sum()
    assert kept.x["x"].tobytes() == x[good].tobytes()
    one_by_one = Samples(signature, list(zip(x, y, strict=True)), on_bad_row="skip")
    assert one_by_one.snapshot().tag == kept.tag
    assert one_by_one.snapshot().skipped == kept.skipped
    if not good.all():
        for source in (
            source_of((x, y), linear.manifest),
            source_of(list(zip(x, y, strict=True)), linear.manifest),
        ):
            with pytest.raises(DataError, match="row "):
                source.snapshot()
        if np.isfinite(x).all():
            with pytest.raises(DataError, match=f"row {np.argmin(good)} of") as e:
                checked(signature, {"x": x, "target": y}, "it")
            assert (e.value.value, e.value.limit) == (y[np.argmin(good)], "a whole number, 0 to 2")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ((X[:, :1], Y), r"shape of 'x' in the arrays, found \(12, 1\), allowed \('samples', 2\)"),
        ((X, Y[:5]), "numbers of samples"),
        ((np.array(["a", "b"]), Y), "dtype of 'x'"),
        (({"image": X}, Y), "inputs by name, found ['image'], allowed ['x']"),
        ((X, None), "targets, found none"),
        ("examples.csv", "file of examples"),
        ("nowhere.npz", "cannot read examples from nowhere.npz"),
        (7, "type of the data, found int"),
        (X, "type of the data, found ndarray"),
        (b"", "type of the data"),
    ],
)
def test_what_can_never_be_used_is_refused_at_once(linear: Bundle, data: Any, says: str) -> None:
    with pytest.raises(DataError) as e:
        source_of(data, linear.manifest)
    assert says.replace("\\", "") in str(e.value)


def test_a_failing_data_set_is_named_and_may_recover(linear: Bundle) -> None:
    items = Items(failing=7)
    source = source_of(items, linear.manifest)
    with pytest.raises(DataError, match=r"sample 7 of Items .*OSError: a picture is missing"):
        snapshot_of(source)
    items.failing = None
    assert snapshot_of(source).samples == 12


def test_the_code_of_a_program_raises_nothing_but_a_data_error(linear: Bundle) -> None:
    def fails() -> Any:
        raise KeyError("sensor")

    def breaks() -> Iterator[Any]:
        yield X[0], 0
        raise ZeroDivisionError

    class Own:
        @property
        def samples(self) -> int:
            raise RuntimeError

        def snapshot(self) -> Snapshot:
            raise RuntimeError("no")

    for data, says in ((fails, "KeyError"), (breaks(), "ZeroDivisionError"), (Own(), "RuntimeError: no")):
        source = source_of(data, linear.manifest)  # type: ignore[arg-type]
        assert samples_of(source) == 1
        with pytest.raises(DataError, match=says):
            snapshot_of(source)
    for nothing in ([], lambda: [], (X[:0], Y[:0])):
        with pytest.raises(DataError, match="no examples"):
            snapshot_of(source_of(nothing, linear.manifest))


def test_a_function_is_asked_when_training_starts_and_not_before(linear: Bundle) -> None:
    asked: list[str] = []

    def ask() -> Any:
        asked.append(threading.current_thread().name)
        return X[: 4 * len(asked)], Y[: 4 * len(asked)]

    learner = OnnxLearner(Trainer(linear), ask)
    assert (learner.samples, asked) == (1, [])
    trained = learner.train(linear.initial, Training(), 1, b"")
    assert isinstance(trained, Trained)
    assert (trained.samples, learner.samples, len(asked)) == (4, 4, 1)


def test_an_iterator_without_end_is_drained_to_the_limit(linear: Bundle) -> None:
    def endless() -> Iterator[tuple[Any, Any]]:
        while True:
            yield X, Y

    signature = Signature.of(linear.manifest)
    assert Samples(signature, endless(), max_samples=20).snapshot().samples == 20
    assert Samples(signature, endless(), max_bytes=16 * 50).snapshot().samples == 50
    with pytest.raises(DataError, match="bytes of the first"):
        Dataset(signature, Items(), max_bytes=100).snapshot()


def test_a_file_is_read_again_when_it_has_changed(linear: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    np.savez(path, x=X[:5], y=Y[:5])
    source = source_of(path, linear.manifest)
    first = source.snapshot()
    assert (source.samples, source.snapshot()) == (5, first)
    np.savez(path, x=X, y=Y)
    assert source.samples == 5
    assert (source.snapshot().samples, source.samples) == (12, 12)
    os.unlink(path)
    assert source.samples == 12
    with pytest.raises(DataError, match=str(path)):
        snapshot_of(source)
    np.savez(path, x=X[:0], y=Y[:0])
    with pytest.raises(DataError, match="no examples"):
        snapshot_of(source)
    np.savez(path, x=X, y=Y)
    assert samples_of(source) == 1, "there may be some now"
    with pytest.raises(DataError, match="size of"):
        NpzFile(path, max_bytes=10).bind(Signature.of(linear.manifest))


def test_several_inputs_and_targets_are_told_apart_by_name() -> None:
    real, index = np.dtype(np.float32), np.dtype(np.int64)
    signature = Signature(
        (Field("a", real, (2,)), Field("b", real, ())),
        (Field("target/u", index, (), 3, "u"), Field("target/v", real, (1,), 0, "v")),
    )
    sample = ({"a": [1, 2], "b": 3}, {"u": 1, "v": 0.5})
    snapshot = Samples(signature, [sample, sample]).snapshot()
    assert snapshot.x["b"].tolist() == [3, 3]
    assert snapshot.y["target/v"].tolist() == [[0.5], [0.5]]
    with pytest.raises(DataError, match="by name"):
        Samples(signature, [([1, 2], 1)]).snapshot()


@given(
    st.recursive(st.none() | st.integers() | st.text("1a.", max_size=3) | st.floats(), st.lists, max_leaves=6)
)
@settings(max_examples=examples(100), deadline=None)
def test_anything_for_a_sample_is_a_sample_or_a_data_error(linear: Bundle, value: Any) -> None:
    for item in (value, (value, 0), ([1.0, 2.0], value)):
        try:
            snapshot = snapshot_of(source_of([item], linear.manifest))
        except DataError:
            continue
        assert np.isfinite(snapshot.x["x"]).all()
        assert snapshot.y["target"].max() < 3
