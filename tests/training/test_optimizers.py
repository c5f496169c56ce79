"""Laws of optimizers: ten steps are PyTorch's, in either form, and a state handed on loses nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto
from small_models import node, normal, onnx_file, perceptron, softmax_regression

from laconic.errors import ConfigError, LaconicError, Malformed, ModelError, NonFinite
from laconic.runtime import Bundle, OptimizerState, Trainer
from laconic.runtime.buffers import Form
from laconic.training import prepare
from laconic.training.optimizers import Optimizer, adam, adamw, momentum, optimizer_named, sgd
from often import examples

X, Y = normal(9, 22, 4), np.random.default_rng(9).integers(0, 3, 22)
"""Five batches of at most five samples; the last has two."""

RATE, SEED = 0.05, 4

CASES: Mapping[str, tuple[Optimizer, str, dict[str, Any]]] = {
    "sgd": (sgd(), "SGD", {}),
    "sgd, decay": (sgd(weight_decay=0.3), "SGD", {"weight_decay": 0.3}),
    "momentum": (momentum(beta=0.8), "SGD", {"momentum": 0.8}),
    "momentum, decay": (
        momentum(beta=0.8, weight_decay=0.3),
        "SGD",
        {"momentum": 0.8, "weight_decay": 0.3},
    ),
    "nesterov": (momentum(nesterov=True), "SGD", {"momentum": 0.9, "nesterov": True}),
    "nesterov, decay": (
        momentum(nesterov=True, weight_decay=0.1),
        "SGD",
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    ),
    "adam": (adam(), "Adam", {}),
    "adam, other settings": (
        adam(beta1=0.7, beta2=0.9, epsilon=1e-3),
        "Adam",
        {"betas": (0.7, 0.9), "eps": 1e-3},
    ),
    "adam, decay": (adam(weight_decay=0.3), "Adam", {"weight_decay": 0.3}),
    "adamw": (adamw(), "AdamW", {}),
    "adamw, decay": (adamw(weight_decay=0.3), "AdamW", {"weight_decay": 0.3}),
}


def batches(epochs: int, size: int) -> Iterator[NDArray[np.int64]]:
    rng = np.random.default_rng(SEED)
    for _ in range(epochs):
        order = rng.permutation(len(Y))
        yield from (order[i : i + size] for i in range(0, len(Y), size))


@pytest.mark.torch
@pytest.mark.parametrize("mu", [0.0, 2.0])
@pytest.mark.parametrize("clip_norm", [None, 0.4])
@pytest.mark.parametrize("case", CASES)
def test_ten_steps_are_pytorchs(case: str, clip_norm: float | None, mu: float) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the other half of this comparison")
    optimizer, kind, given_there = CASES[case]
    file = prepare(perceptron(), optimizer=optimizer, clip_norm=clip_norm, proximal=mu > 0)
    bundle = Bundle.read(file)
    result = Trainer(bundle).train(
        bundle.initial, X, Y, epochs=2, batch_size=5, learning_rate=RATE, seed=SEED, proximal_mu=mu
    )
    assert result.steps == 10
    start = {n: torch.from_numpy(a.astype(np.float64)) for n, a in _tensors(bundle).items()}
    p = {n: a.clone().requires_grad_() for n, a in start.items()}
    descent = getattr(torch.optim, kind)(p.values(), lr=RATE, **given_there)
    losses, norms = [], []
    for rows in batches(2, 5):
        x = torch.from_numpy(X[rows].astype(np.float64))
        logits = torch.relu(x @ p["w1"] + p["b1"]) @ p["w2"].T + p["b2"]
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(Y[rows]))
        descent.zero_grad()
        loss.backward()
        for name, leaf in p.items():
            leaf.grad += mu * (leaf.detach() - start[name])
        if clip_norm is not None:
            norms.append(float(torch.nn.utils.clip_grad_norm_(p.values(), clip_norm)))
        descent.step()
        losses.append(loss.item())
    if clip_norm is not None:
        assert max(norms) > clip_norm, "the norm is never bounded: the case tests nothing"
    due = np.concatenate([leaf.detach().numpy().ravel() for leaf in p.values()])
    # Adam divides by the root of a mean square: where that is near zero, float32's noise is magnified.
    share = 1e-3 if kind.startswith("Adam") else 1e-5
    assert np.linalg.norm(result.weights - due) < share * np.linalg.norm(due - bundle.initial)
    assert np.allclose(result.losses, losses, rtol=1e-4)


def _tensors(bundle: Bundle) -> Mapping[str, NDArray[np.float32]]:
    return bundle.schema.unflatten(bundle.initial)


def test_a_norm_below_its_limit_changes_nothing() -> None:
    for optimizer in ("sgd", "adam"):
        plain, bounded = (
            Bundle.read(prepare(perceptron(), optimizer=optimizer, clip_norm=c)) for c in (None, 1e6)
        )
        assert bounded.manifest.optimizer.settings["clip_norm"] == 1e6
        runs = [_run(b, 10) for b in (plain, bounded)]
        assert np.allclose(runs[0].weights, runs[1].weights, atol=1e-6)


@settings(max_examples=examples(20), deadline=None)
@given(st.floats(0.01, 3), st.integers(0, 99))
def test_a_step_of_bounded_descent_is_as_long_as_its_bound(limit: float, seed: int) -> None:
    bundle = Bundle.read(prepare(softmax_regression(), clip_norm=limit))
    x, y = normal(seed, 6, 5) * 100, np.arange(6) % 3
    result = Trainer(bundle).train(bundle.initial, x, y, epochs=1, batch_size=6, learning_rate=1, seed=0)
    assert np.linalg.norm(result.weights - bundle.initial) == pytest.approx(limit, rel=1e-3)


def _run(
    bundle: Bundle,
    steps: int,
    first: int = 0,
    weights: NDArray[np.float32] | None = None,
    state: OptimizerState | None = None,
    form: Form = "epoch",
) -> Any:
    """Steps `first` to `first + steps` on batches of two of a fixed stream."""
    rows = np.arange(2 * first, 2 * (first + steps)) % len(Y)
    run = Trainer(bundle, form=form).start_stream(
        bundle.initial if weights is None else weights,
        [(X[rows], Y[rows])],
        batch_size=2,
        learning_rate=RATE,
        seed=SEED,
        optimizer=state,
    )
    for _ in run:
        pass
    return run.result()


def dropping(optimizer: str | Optimizer) -> Bundle:
    """A network with Dropout, whose masks go by the number of the step."""
    weights = {"w1": normal(0, 4, 8), "w2": normal(1, 8, 3), "r": np.array(0.4, np.float32)}
    nodes = [
        node("MatMul", ["x", "w1"], ["a"]),
        node("Dropout", ["a", "r"], ["b"]),
        node("MatMul", ["b", "w2"], ["y"]),
    ]
    return Bundle.read(prepare(onnx_file(nodes, weights, ("batch", 4)), optimizer=optimizer))


@pytest.mark.parametrize("form", ["epoch", "step"])
@pytest.mark.parametrize("model", ["plain", "dropout"])
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam", "adamw"])
def test_a_state_handed_on_continues_as_if_nothing_had_been(optimizer: str, model: str, form: Form) -> None:
    bundle = (
        dropping(optimizer) if model == "dropout" else Bundle.read(prepare(perceptron(), optimizer=optimizer))
    )
    whole = _run(bundle, 5, form=form)
    first = _run(bundle, 2, form=form)
    state = OptimizerState.decode(first.optimizer.encode(bundle), bundle)
    second = _run(bundle, 3, first=2, weights=first.weights, state=state, form=form)
    assert second.weights.tobytes() == whole.weights.tobytes()
    assert [*first.losses, *second.losses] == [*whole.losses]
    assert second.optimizer.step == whole.optimizer.step
    for slot, vector in whole.optimizer.slots.items():
        assert second.optimizer.slots[slot].tobytes() == vector.tobytes()
    if bundle.manifest.optimizer.slots or model == "dropout":
        reset = _run(bundle, 3, first=2, weights=first.weights, form=form)
        assert reset.weights.tobytes() != whole.weights.tobytes()


@pytest.mark.parametrize("case", CASES)
def test_the_step_and_epoch_forms_agree(case: str) -> None:
    bundle = Bundle.read(prepare(perceptron(), optimizer=CASES[case][0], clip_norm=0.4))
    by_epoch, by_step = (_run(bundle, 10, form=form) for form in ("epoch", "step"))
    assert np.allclose(by_epoch.weights, by_step.weights, atol=1e-6)
    assert np.allclose(by_epoch.losses, by_step.losses, rtol=1e-6)
    assert by_epoch.optimizer.step == by_step.optimizer.step


def test_the_manifest_says_what_a_state_is() -> None:
    info = {
        name: Bundle.read(prepare(perceptron(), optimizer=name)).manifest.optimizer
        for name in ("sgd", "momentum", "adam", "adamw")
    }
    assert {n: (i.slots, i.counts, i.seeded, i.layout) for n, i in info.items()} == {
        "sgd": ((), False, False, 1),
        "momentum": (("m",), False, False, 1),
        "adam": (("m", "v"), True, False, 1),
        "adamw": (("m", "v"), True, False, 1),
    }
    assert dict(info["adamw"].settings) == {
        "beta1": 0.9,
        "beta2": 0.999,
        "epsilon": 1e-8,
        "weight_decay": 0.01,
    }
    seeded = dropping("sgd").manifest.optimizer
    assert (seeded.slots, seeded.counts, seeded.seeded) == ((), True, True)


ADAM = Bundle.read(prepare(softmax_regression(), optimizer="adam"))


def _state(seed: int, step: int) -> OptimizerState:
    size = ADAM.weight_schema.size
    return OptimizerState({"m": normal(seed, size), "v": np.abs(normal(seed + 1, size))}, step)


@settings(max_examples=examples(30), deadline=None)
@given(st.integers(0, 99), st.integers(0, 2**62))
def test_what_is_encoded_is_decoded(seed: int, step: int) -> None:
    state = _state(seed, step)
    again = OptimizerState.decode(state.encode(ADAM), ADAM)
    assert again.step == step
    assert again.encode(ADAM) == state.encode(ADAM)
    for slot, vector in state.slots.items():
        assert np.array_equal(again.slots[slot], vector)
        assert again.slots[slot].dtype == np.float32


def _sound(data: bytes) -> None:
    """`data` is refused, or is a state that training can go on from."""
    try:
        state = OptimizerState.decode(data, ADAM)
    except LaconicError:
        return
    assert set(state.slots) == {"m", "v"}
    assert all(v.shape == (ADAM.weight_schema.size,) and np.isfinite(v).all() for v in state.slots.values())
    assert 0 <= state.step <= 2**62
    state.check(ADAM)


ENCODED = _state(0, 7).encode(ADAM)


def test_a_state_that_was_cut_is_refused_wherever_it_was() -> None:
    for length in range(len(ENCODED)):
        with pytest.raises(Malformed):
            OptimizerState.decode(ENCODED[:length], ADAM)
    with pytest.raises(Malformed):
        OptimizerState.decode(ENCODED + b"\0", ADAM)


def test_a_state_with_a_flipped_bit_is_refused_or_sound() -> None:
    for bit in range(8 * len(ENCODED)):
        changed = bytearray(ENCODED)
        changed[bit // 8] ^= 1 << bit % 8
        _sound(bytes(changed))


@settings(max_examples=examples(200), deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(ENCODED) - 1), st.integers(0, 255)), max_size=8),
    st.integers(0, len(ENCODED)),
    st.binary(max_size=40),
)
@example([], 0, b"\x95\xa4adam\x01")
def test_a_damaged_state_is_refused_or_sound(changes: list[tuple[int, int]], cut: int, tail: bytes) -> None:
    damaged = bytearray(ENCODED)
    for at, byte in changes:
        damaged[at] = byte
    _sound(bytes(damaged))
    _sound(bytes(damaged[:cut]) + tail)
    _sound(tail)


def test_a_state_of_another_model_or_optimizer_is_refused() -> None:
    state = _state(0, 3).encode(ADAM)
    for other in (
        Bundle.read(prepare(softmax_regression(), optimizer="adamw")),
        Bundle.read(prepare(softmax_regression(features=6), optimizer="adam")),
        Bundle.read(prepare(softmax_regression(), optimizer="adam", frozen=["b"])),
    ):
        with pytest.raises(ModelError, match="another model or optimizer"):
            OptimizerState.decode(state, other)
    with pytest.raises(ModelError, match="slots"):
        _run(Bundle.read(prepare(perceptron(), optimizer="adam")), 1, state=OptimizerState())


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda slots: slots.pop("v"), ModelError),
        (lambda slots: slots.update(w=slots["v"]), ModelError),
        (lambda slots: slots.update(v=slots["v"][:-1]), ModelError),
        (lambda slots: slots.update(v=slots["v"].astype(np.float64)), ModelError),
        (lambda slots: slots.update(v=slots["v"] * np.float32(np.nan)), NonFinite),
    ],
)
def test_a_state_that_does_not_fit_is_named(
    change: Callable[[dict[str, Any]], object], error: type[LaconicError]
) -> None:
    slots: dict[str, Any] = dict(_state(0, 3).slots)
    change(slots)
    with pytest.raises(error, match="slot"):
        Trainer(ADAM).train(
            ADAM.initial,
            normal(0, 4, 5),
            np.arange(4) % 3,
            epochs=1,
            batch_size=2,
            learning_rate=0.1,
            seed=0,
            optimizer=OptimizerState(slots, 3),
        )


@pytest.mark.parametrize(
    ("make", "thing"),
    [
        (lambda: sgd(weight_decay=-1), "weight decay"),
        (lambda: sgd(weight_decay=float("nan")), "weight decay"),
        (lambda: momentum(beta=1.0), "beta of momentum"),
        (lambda: momentum(beta=float("nan")), "beta of momentum"),
        (lambda: adam(beta1=-0.1), "beta1 of adam"),
        (lambda: adamw(beta2=1.0), "beta2 of adamw"),
        (lambda: adam(epsilon=0), "epsilon of adam"),
        (lambda: optimizer_named("lion"), "name of the optimizer"),
        (lambda: prepare(perceptron(), clip_norm=0), "clip_norm"),
        (lambda: prepare(perceptron(), clip_norm=float("inf")), "clip_norm"),
    ],
)
def test_settings_out_of_range_are_named(make: Callable[[], object], thing: str) -> None:
    with pytest.raises(ConfigError, match=thing):
        make()


def test_an_embedding_is_updated_where_it_was_looked_up() -> None:
    """With plain SGD the gradient is scattered onto the table itself: no table of zeros, no sum."""
    table = normal(0, 50, 8)
    nodes = [
        node("Gather", ["table", "x"], ["e"]),
        node("Flatten", ["e"], ["f"]),
        node("MatMul", ["f", "w"], ["y"]),
    ]
    data = onnx_file(nodes, {"table": table, "w": normal(1, 40, 3)}, ("batch", 5), dtype=TensorProto.INT64)
    bundle = Bundle.read(prepare(data))
    step = onnx.load_from_string(bundle.parts["step"])
    scatter = next(n for n in step.graph.node if n.op_type == "ScatterND")
    assert (scatter.input[0], scatter.output[0]) == ("table", "table:new")
    x = np.array([[1, 1, 1, 2, 3]] * 4)
    trained = Trainer(bundle).train(
        bundle.initial, x, np.array([0, 1, 2, 0]), epochs=1, batch_size=4, learning_rate=0.1, seed=0
    )
    moved = np.any(bundle.schema.unflatten(trained.weights)["table"] != table, axis=1)
    assert np.flatnonzero(moved).tolist() == [1, 2, 3]
