"""Laws of a training run: streams, free axes, names, threads, early stops, seeds and statistics."""

from __future__ import annotations

import itertools
import threading
import tracemalloc
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

from laconic.errors import ConfigError, NonFinite
from laconic.runtime import Bundle, Trainer, Training, TrainResult
from laconic.runtime import trainer as trainer_module
from laconic.runtime.buffers import Form, StateBuffers
from laconic.training import prepare
from often import examples

FORMS: tuple[Form, ...] = ("epoch", "step")
X = np.random.default_rng(1).standard_normal((30, 4)).astype(np.float32)
Y = np.arange(30) % 3
SETTINGS: dict[str, Any] = {"batch_size": 8, "learning_rate": 0.1, "seed": 0}


def normal(seed: int, *shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def bundle_of(
    nodes: Sequence[NodeProto],
    weights: Mapping[str, NDArray[Any]],
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Sequence[str] = ("y",),
    **arguments: Any,
) -> Bundle:
    graph = helper.make_graph(
        list(nodes),
        "small",
        [helper.make_tensor_value_info(n, 1, list(shape)) for n, shape in inputs.items()],
        [helper.make_tensor_value_info(n, 1, None) for n in outputs],
        initializer=[numpy_helper.from_array(w, n) for n, w in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return Bundle.read(prepare(model.SerializeToString(), **arguments))


def finished(run: Training) -> TrainResult:
    for _ in run:
        pass
    return run.result()


def stream(bundle: Bundle, groups: Any, form: Form = "epoch", **changes: Any) -> TrainResult:
    trainer: Any = Trainer(bundle, form=form)
    return finished(trainer.start_stream(bundle.initial, groups, **(SETTINGS | changes)))


@settings(max_examples=examples(40), deadline=None)
@given(
    cuts=st.lists(st.integers(0, 30), max_size=12),
    batch_size=st.integers(1, 31),
    chunk_bytes=st.sampled_from([1, 100, 2**20]),
    form=st.sampled_from(FORMS),
)
def test_a_stream_gives_the_same_bits_however_it_is_cut(
    bundle: Bundle, cuts: list[int], batch_size: int, chunk_bytes: int, form: Form
) -> None:
    edges = sorted([0, 30, *cuts])  # two that are equal cut out a group without samples
    groups = [(X[a:b], Y[a:b]) for a, b in itertools.pairwise(edges)]
    whole = stream(bundle, [(X, Y)], form, batch_size=batch_size)
    cut = finished(
        Trainer(bundle, form=form, chunk_bytes=chunk_bytes).start_stream(
            bundle.initial, iter(groups), **(SETTINGS | {"batch_size": batch_size})
        )
    )
    assert cut.weights.tobytes() == whole.weights.tobytes()
    assert cut.losses.tobytes() == whole.losses.tobytes()
    assert cut.samples == 30
    assert cut.steps == -(-30 // batch_size)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [8, 5, 3, 20])
def test_a_group_is_gone_before_the_next_is_asked_for(bundle: Bundle, form: Form, size: int) -> None:
    alive: list[weakref.ref[Any]] = []

    def group(seed: int) -> tuple[Any, Any]:
        x = normal(seed, size, 4)
        alive.append(weakref.ref(x))
        return x, np.arange(size) % 3

    def groups() -> Iterator[tuple[Any, Any]]:
        for seed in range(7):
            assert all(reference() is None for reference in alive)
            yield group(seed)

    assert stream(bundle, groups(), form).samples == 7 * size
    assert len(alive) == 7


def test_a_long_stream_takes_the_memory_of_one_group(bundle: Bundle) -> None:
    size, count = 50_000, 40

    def peak(groups: int) -> int:
        tracemalloc.start()
        try:
            data = ((normal(seed, size, 4), np.zeros(size, np.int64)) for seed in range(groups))
            result = stream(bundle, data, batch_size=1000)
            assert result.samples == groups * size
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    one = peak(2)
    assert peak(count) < 1.2 * one


def test_a_stream_is_asked_for_a_group_when_it_is_needed(bundle: Bundle) -> None:
    asked: list[int] = []

    def groups() -> Iterator[tuple[Any, Any]]:
        for i in range(5):
            asked.append(i)
            yield X[:8], Y[:8]

    run = Trainer(bundle).start_stream(bundle.initial, groups(), **SETTINGS)
    assert asked == []
    steps = iter(run)
    next(steps)
    assert asked == [0]
    assert run.result().steps == 1
    next(steps)
    assert asked == [0, 1]


def test_a_stream_is_checked_as_it_comes(bundle: Bundle) -> None:
    run = Trainer(bundle).start_stream(bundle.initial, [(X, Y), (X, Y + 1)], **SETTINGS)
    with pytest.raises(ConfigError, match="label out of range"):
        finished(run)
    # The samples of the first group that made whole batches count.
    assert run.result().samples == 24
    with pytest.raises(ConfigError, match="shape of input 'x'"):
        stream(bundle, [(X[:0, :3], Y[:0])])


@pytest.mark.parametrize("groups", [[], [(X[:0], Y[:0])]])
def test_a_stream_without_samples_trains_nothing(bundle: Bundle, groups: list[Any]) -> None:
    nothing = stream(bundle, groups)
    assert (nothing.steps, nothing.samples) == (0, 0)
    assert np.array_equal(nothing.weights, bundle.initial)


@pytest.mark.parametrize("form", FORMS)
def test_stopping_early_gives_what_was_finished(bundle: Bundle, form: Form) -> None:
    run = Trainer(bundle, form=form, chunk_bytes=1).start_stream(bundle.initial, [(X, Y)], **SETTINGS)
    for progress in run:
        if progress.steps == 2:
            break
    due = stream(bundle, [(X[:16], Y[:16])], form)
    stopped = run.result()
    assert (progress.steps, progress.samples) == (stopped.steps, stopped.samples) == (2, 16)
    assert stopped.weights.tobytes() == due.weights.tobytes()
    assert finished(run).weights.tobytes() == stream(bundle, [(X, Y)], form).weights.tobytes()


def pooled(**arguments: Any) -> Bundle:
    """Classes from the mean over any number of time steps."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("ReduceMean", ["a", "axes"], ["b"], keepdims=0),
        helper.make_node("Add", ["b", "c"], ["y"]),
    ]
    weights: dict[str, Any] = {"w": normal(0, 4, 3), "c": normal(1, 3), "axes": np.array([1], np.int64)}
    return bundle_of(nodes, weights, {"x": ("batch", "time", 4)}, **arguments)


@pytest.mark.parametrize("form", FORMS)
def test_an_axis_may_be_of_any_length(form: Form) -> None:
    bundle = pooled()
    assert bundle.manifest.inputs[0].shape == (None, 4)
    trainer: Any = Trainer(bundle, form=form)
    w, c = (bundle.schema.unflatten(bundle.initial)[n] for n in ("w", "c"))
    for length in (1, 5, 9):
        x = normal(length, 6, length, 4)
        assert np.allclose(trainer.predict(bundle.initial, x), (x @ w).mean(1) + c, atol=1e-5)
        # The mean over equal steps is the step: every length trains alike.
        same = np.repeat(x[:, :1], length, axis=1)
        short = trainer.train(bundle.initial, x[:, :1], Y[:6], epochs=2, **SETTINGS)
        long = trainer.train(bundle.initial, same, Y[:6], epochs=2, **SETTINGS)
        assert np.allclose(short.weights, long.weights, atol=1e-6)
    with pytest.raises(ConfigError, match=r"shape of input 'x'.*\('samples', 'any', 4\)"):
        trainer.predict(bundle.initial, normal(0, 6, 5, 3))


@pytest.mark.parametrize("form", FORMS)
def test_samples_of_different_lengths_do_not_share_a_batch(form: Form) -> None:
    bundle = pooled()
    groups = [(normal(n, 5, n, 4), Y[:5]) for n in (3, 3, 7, 2)]
    result = stream(bundle, groups, form, batch_size=4)
    # 10 samples of length 3 in 4 + 4 + 2, then 5 of length 7 and 5 of length 2 in 4 + 1 each.
    assert (result.steps, result.samples) == (7, 20)


def test_several_inputs_and_outputs_go_by_name() -> None:
    nodes = [
        helper.make_node("MatMul", ["a", "v"], ["p"]),
        helper.make_node("MatMul", ["b", "w"], ["q"]),
        helper.make_node("Add", ["p", "q"], ["y"]),
        helper.make_node("Sub", ["p", "q"], ["z"]),
    ]
    weights = {"v": normal(0, 4, 3), "w": normal(1, 2, 3)}
    bundle = bundle_of(
        nodes,
        weights,
        {"a": ("batch", 4), "b": ("batch", 2)},
        ("y", "z"),
        loss={"y": "cross_entropy", "z": "mse"},
    )
    x = {"a": normal(2, 9, 4), "b": normal(3, 9, 2)}
    targets: dict[str, Any] = {"y": Y[:9], "z": normal(4, 9, 3)}
    trainer: Any = Trainer(bundle)
    for size in (1, 4, 9):
        out = trainer.predict(bundle.initial, x, batch_size=size)
        assert isinstance(out, dict)
        assert np.allclose(out["y"], x["a"] @ weights["v"] + x["b"] @ weights["w"], atol=1e-5)
        assert np.allclose(out["z"], x["a"] @ weights["v"] - x["b"] @ weights["w"], atol=1e-5)
    before = trainer.evaluate(bundle.initial, x, targets)
    result = trainer.train(bundle.initial, x, targets, epochs=20, **SETTINGS)
    after = trainer.evaluate(result.weights, x, targets)
    assert after.loss < before.loss
    assert after.loss == pytest.approx(after.values["loss/y"] + after.values["loss/z"])


def test_arrays_may_lie_in_files(bundle: Bundle, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", Y)
    x, y = (np.load(tmp_path / f"{n}.npy", mmap_mode="r") for n in "xy")
    trainer: Any = Trainer(bundle)
    due = trainer.train(bundle.initial, X, Y, epochs=3, **SETTINGS)
    found = trainer.train(bundle.initial, x, y, epochs=3, **SETTINGS)
    assert found.weights.tobytes() == due.weights.tobytes()
    assert stream(bundle, [(x, y)]).weights.tobytes() == stream(bundle, [(X, Y)]).weights.tobytes()
    assert trainer.evaluate(bundle.initial, x, y) == trainer.evaluate(bundle.initial, X, Y)
    assert np.array_equal(trainer.predict(bundle.initial, x), trainer.predict(bundle.initial, X))


@pytest.mark.parametrize(
    ("form", "chunk_bytes"), [("epoch", 1), ("epoch", 400), ("step", 1), ("step", 2**20)]
)
def test_predictions_during_training_are_of_some_finished_step(
    bundle: Bundle, form: Form, chunk_bytes: int
) -> None:
    trainer: Any = Trainer(bundle, form=form, chunk_bytes=chunk_bytes)
    given = SETTINGS | {"epochs": 12, "batch_size": 3}
    # One call for each step, to have the weights after every one of them.
    slow = Trainer(bundle, form=form, chunk_bytes=1).start(bundle.initial, X, Y, **given)
    due = [trainer.predict(bundle.initial, X)]
    due += [slow.predict(X) for _ in slow]
    position = {_bytes(p): i for i, p in enumerate(due)}
    run = trainer.start(bundle.initial, X, Y, **given)
    stop, seen = threading.Event(), list[list[bytes]]([[], []])

    def ask(place: list[bytes]) -> None:
        while not stop.is_set():
            place.append(_bytes(run.predict(X)))

    threads = [threading.Thread(target=ask, args=(place,), daemon=True) for place in seen]
    for thread in threads:
        thread.start()
    for _ in run:
        pass
    stop.set()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    for place in seen:
        assert place
        steps = [position[p] for p in place]
        assert steps == sorted(steps), "an older state came after a newer one"
    assert _bytes(run.predict(X)) == _bytes(due[-1])
    assert run.result().weights.tobytes() == slow.result().weights.tobytes()


def _bytes(prediction: Any) -> bytes:
    array: NDArray[Any] = prediction
    return array.tobytes()


@pytest.mark.parametrize("form", FORMS)
def test_a_session_that_is_fresh_trains_as_it_does_later(bundle: Bundle, form: Form) -> None:
    trainer = Trainer(bundle, form=form)
    first, second = (trainer.train(bundle.initial, X, Y, epochs=2, **SETTINGS) for _ in range(2))
    assert first.weights.tobytes() == second.weights.tobytes()
    assert first.losses.tobytes() == second.losses.tobytes()


def test_training_waits_for_a_reader_and_the_reader_sees_one_state(bundle: Bundle) -> None:
    trainer: Any = Trainer(bundle, chunk_bytes=1)
    run = trainer.start(bundle.initial, X, Y, epochs=2, **SETTINGS)
    buffers: StateBuffers = run._buffers
    steps = iter(run)
    done = threading.Event()

    def two_steps() -> None:
        next(steps)
        next(steps)
        done.set()

    with buffers.state() as state:
        before = {n: a.copy() for n, a in state.items()}
        thread = threading.Thread(target=two_steps, daemon=True)
        thread.start()
        # The first step writes elsewhere; the second would write here.
        assert not done.wait(0.2)
        assert all(np.array_equal(state[n], a) for n, a in before.items())
    assert done.wait(20)
    assert run.result().steps == 2


def test_the_state_in_onnxruntime_is_the_arrays_it_was_given(bundle: Bundle) -> None:
    run = Trainer(bundle).start(bundle.initial, X, Y, epochs=1, **SETTINGS)
    for _ in run:
        with run._buffers.state() as arrays, run._buffers.reading() as values:
            for name, array in arrays.items():
                assert values[name].data_ptr() == array.ctypes.data


def test_a_large_state_is_trained_step_by_step_with_the_same_result(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = Trainer(bundle)
    monkeypatch.setattr(trainer_module, "LARGE_STATE_BYTES", 67 * 4 - 1)
    large = Trainer(bundle)
    assert (small._form, large._form) == ("epoch", "step")
    assert Trainer(bundle, form="epoch")._form == "epoch"
    runs = [t.train(bundle.initial, X, Y, epochs=3, **SETTINGS) for t in (small, large)]
    assert np.allclose(runs[0].weights, runs[1].weights, atol=1e-6)


def normalised(**arguments: Any) -> Bundle:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("BatchNormalization", ["a", "scale", "shift", "mean", "var"], ["y"], momentum=0.75),
    ]
    weights = {
        "w": normal(0, 4, 3),
        "scale": np.ones(3, np.float32),
        "shift": np.zeros(3, np.float32),
        "mean": normal(1, 3),
        "var": np.abs(normal(2, 3)) + 0.5,
    }
    return bundle_of(nodes, weights, {"x": ("batch", 4)}, **arguments)


def _named(bundle: Bundle, result: TrainResult) -> dict[str, NDArray[np.float32]]:
    return {**bundle.schema.unflatten(result.weights), **bundle.local_schema.unflatten(result.local)}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("local", [(), ("mean", "var"), ("*",)])
def test_running_statistics_follow_the_data_and_not_the_gradient(form: Form, local: Sequence[str]) -> None:
    if local == ("*",):
        local = ("scale", "mean", "var")
    bundle = normalised(optimizer="momentum", local=local)
    assert {p.name for p in bundle.manifest.parameters if p.kind == "statistic"} == {"mean", "var"}
    assert [p.name for p in bundle.manifest.weights] == ["w", "scale", "shift"]
    assert {t.name for t in bundle.local_schema.tensors} == set(local)
    trainer: Any = Trainer(bundle, form=form)
    start = _named(bundle, trainer.train(bundle.initial, X, Y, epochs=1, **(SETTINGS | {"learning_rate": 0})))
    mean, var = normal(1, 3).astype(np.float64), np.abs(normal(2, 3)).astype(np.float64) + 0.5
    order = np.random.default_rng(0).permutation(30)
    for rows in (order[i : i + 8] for i in range(0, 30, 8)):
        a = X[rows].astype(np.float64) @ normal(0, 4, 3)
        mean = 0.75 * mean + 0.25 * a.mean(0)
        var = 0.75 * var + 0.25 * a.var(0, ddof=1)
    assert np.allclose(start["mean"], mean, atol=1e-5)
    assert np.allclose(start["var"], var, rtol=1e-4)
    assert np.array_equal(start["w"], normal(0, 4, 3))
    moved = trainer.train(bundle.initial, X, Y, epochs=5, **SETTINGS)
    metrics = [
        trainer.evaluate(w, X, Y, local=own)
        for w, own in ((bundle.initial, bundle.initial_local), (moved.weights, moved.local))
    ]
    assert metrics[1].loss < metrics[0].loss


def test_frozen_statistics_stay() -> None:
    bundle = normalised(frozen=["mean", "var"])
    result = Trainer(bundle).train(bundle.initial, X, Y, epochs=3, **SETTINGS)
    assert set(bundle.frozen) == {"mean", "var"}
    assert set(_named(bundle, result)) == {"w", "scale", "shift"}
    # With its statistics fixed the layer is affine: training and inference see the same function.
    still = Trainer(bundle).train(
        bundle.initial, X, Y, epochs=1, **(SETTINGS | {"batch_size": 30, "learning_rate": 0})
    )
    loss = Trainer(bundle).evaluate(bundle.initial, X, Y).loss
    assert still.losses[0] == pytest.approx(loss, rel=1e-5)


def test_local_weights_are_where_a_run_starts_and_ends() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Tanh", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "head"], ["y"]),
    ]
    weights = {"w": normal(0, 4, 5), "head": normal(1, 5, 3)}
    bundle = bundle_of(nodes, weights, {"x": ("batch", 4)}, local=["head"])
    trainer: Any = Trainer(bundle)
    own = normal(5, 15)
    kept = own.copy()
    result = trainer.train(bundle.initial, X, Y, epochs=1, local=own, **SETTINGS)
    other = trainer.train(bundle.initial, X, Y, epochs=1, **SETTINGS)
    assert np.array_equal(own, kept)
    assert result.local.shape == (15,)
    assert not np.array_equal(result.local, own)
    assert not np.array_equal(result.weights, other.weights)
    due = np.tanh(X @ weights["w"]) @ own.reshape(5, 3)
    assert np.allclose(trainer.predict(bundle.initial, X, local=own), due, atol=1e-5)
    with pytest.raises(NonFinite, match="local weights"):
        trainer.predict(bundle.initial, X, local=own * np.float32(np.inf))


def dropping() -> Bundle:
    nodes = [
        helper.make_node("Dropout", ["x", "ratio"], ["a"]),
        helper.make_node("MatMul", ["a", "w"], ["y"]),
    ]
    weights: dict[str, Any] = {"w": normal(0, 4, 3), "ratio": np.array(0.5, np.float32)}
    return bundle_of(nodes, weights, {"x": ("batch", 4)})


@pytest.mark.parametrize("form", FORMS)
def test_a_seed_makes_a_run_repeatable_and_its_steps_different(form: Form) -> None:
    bundle = dropping()
    one = [(X[:8], Y[:8])] * 6

    def run(seed: int) -> TrainResult:
        return stream(bundle, one, form, seed=seed, learning_rate=0.0)

    first, again, other = run(3), run(3), run(4)
    # The same batch and weights at every step: only the masks differ.
    assert len(set(first.losses.tolist())) == 6
    assert first.losses.tobytes() == again.losses.tobytes() != other.losses.tobytes()
    assert first.optimizer.step == 6
    large = run(2**64 + 3)
    assert np.isfinite(large.losses).all()
    trainer: Any = Trainer(bundle)
    assert np.allclose(trainer.predict(bundle.initial, X), X @ normal(0, 4, 3), atol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_data_that_is_not_finite_ends_in_an_error(bundle: Bundle, bad: float) -> None:
    x = X.copy()
    x[4, 2] = bad
    with pytest.raises(NonFinite, match="weights after training"):
        Trainer(bundle).train(bundle.initial, x, Y, epochs=1, **SETTINGS)


@pytest.mark.parametrize(
    ("x", "y", "value", "limit"),
    [
        (X.astype(np.float64), Y, "float64", "float32"),
        (X[:, :3], Y, (30, 3), ("samples", 4)),
        (X.tolist(), Y, "list", "numpy.ndarray"),
        ({"z": X}, Y, ["z"], ["x"]),
        (X, Y[:29], (29,), (30,)),
        (X, Y.astype(np.float32), "float32", "an integer array"),
        (X, Y + 1, 3, "0 to 2"),
        (X, Y - 1, -1, "0 to 2"),
        (X, None, [], ["y"]),
        (X, {"z": Y}, ["z"], ["y"]),
    ],
)
def test_errors_in_data_name_the_value_and_the_limit(
    bundle: Bundle, x: Any, y: Any, value: object, limit: object
) -> None:
    calls: list[Callable[[], object]] = [
        lambda: Trainer(bundle).train(bundle.initial, x, y, epochs=1, **SETTINGS),
        lambda: Trainer(bundle).evaluate(bundle.initial, x, y),
        lambda: stream(bundle, [(x, y)]),
    ]
    for call in calls:
        with pytest.raises(ConfigError) as caught:
            call()
        assert (caught.value.value, caught.value.limit) == (value, limit)
