"""Laws of losses: values and gradients are PyTorch's, and an evaluation in batches is that of the whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import NodeProto, helper
from small_models import node, normal, onnx_file

from laconic.errors import ConfigError, ModelError
from laconic.runtime import Bundle, Metrics, Trainer
from laconic.runtime.batches import Inputs
from laconic.training import prepare
from laconic.training.losses import (
    Loss,
    binary_cross_entropy,
    cross_entropy,
    huber,
    loss_named,
    mean_absolute_error,
    mean_squared_error,
    model_output,
)
from often import examples

FEATURES = 3
Tensors = Mapping[str, NDArray[Any]]


class Found(NamedTuple):
    """A loss with its gradients, and what evaluation says."""

    loss: float
    gradients: Tensors
    metrics: Metrics


def dense(classes: int, extra: tuple[int, ...] = (), classes_first: bool = False) -> tuple[bytes, Tensors]:
    """y = x W + b for x of shape (batch, *extra, 3); with `classes_first`, the classes move to axis 1."""
    weights = {"W": normal(7, FEATURES, classes), "b": normal(8, classes)}
    last = "a" if classes_first else "y"
    nodes: list[NodeProto] = [node("MatMul", ["x", "W"], ["m"]), node("Add", ["m", "b"], [last])]
    if classes_first:
        rank = len(extra) + 2
        nodes.append(node("Transpose", ["a"], ["y"], perm=[0, rank - 1, *range(1, rank - 1)]))
    return onnx_file(nodes, weights, ("batch", *extra, FEATURES)), weights


def examine(file: bytes, loss: Any, x: Inputs, y: Any, batch_size: int = 256) -> Found:
    """Loss and gradients by one step of plain descent at a rate of 1, and the evaluation in batches."""
    bundle = Bundle.read(prepare(file, loss=loss))
    trainer = Trainer(bundle)
    result = trainer.train(bundle.initial, x, y, epochs=1, batch_size=1000, learning_rate=1.0, seed=0)
    gradients = bundle.schema.unflatten(bundle.initial - result.weights)
    return Found(
        float(result.losses[0]),
        gradients,
        trainer.evaluate(bundle.initial, x, y, batch_size=batch_size),
    )


def agree(found: Found, loss: Any, parameters: Mapping[str, Any]) -> None:
    """`loss` is PyTorch's, in float64, of the leaves `parameters`."""
    loss.backward()
    due = loss.item()
    assert abs(found.loss - due) <= 1e-5 * max(1, abs(due))
    assert abs(found.metrics.loss - due) <= 1e-5 * max(1, abs(due))
    for name, leaf in parameters.items():
        assert np.allclose(found.gradients[name], leaf.grad.numpy(), rtol=1e-4, atol=2e-6), name


def leaves(torch: Any, weights: Tensors) -> dict[str, Any]:
    return {n: torch.tensor(a.astype(np.float64), requires_grad=True) for n, a in weights.items()}


@pytest.mark.torch
@settings(max_examples=examples(40), deadline=None)
@given(
    samples=st.integers(1, 6),
    extra=st.sampled_from([(), (), (4,), (2, 3)]),
    classes=st.integers(2, 5),
    smoothing=st.sampled_from([0.0, 0.1, 0.6]),
    weighted=st.booleans(),
    soft=st.booleans(),
    classes_first=st.booleans(),
    batch_size=st.integers(1, 7),
    seed=st.integers(0, 99),
)
def test_cross_entropy_is_pytorchs(
    samples: int,
    extra: tuple[int, ...],
    classes: int,
    smoothing: float,
    weighted: bool,
    soft: bool,
    classes_first: bool,
    batch_size: int,
    seed: int,
) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the other half of this comparison")
    rng = np.random.default_rng(seed)
    file, weights = dense(classes, extra, classes_first)
    x = normal(seed, samples, *extra, FEATURES)
    along = tuple(rng.uniform(0.1, 2, classes).astype(np.float32).tolist()) if weighted else ()
    y: NDArray[Any] = rng.integers(0, classes, (samples, *extra))
    if soft:
        # Not normalised: each target's sum counts in the gradient.
        y = rng.uniform(0, 1, (samples, *extra, classes)).astype(np.float32)
    loss = cross_entropy(
        label_smoothing=smoothing, class_weights=along, dense=soft, class_axis=1 if classes_first else -1
    )
    placed = np.moveaxis(y, -1, 1).copy() if soft and classes_first else y
    found = examine(file, loss, x, placed, batch_size)
    p = leaves(torch, weights)
    logits = torch.from_numpy(x.astype(np.float64)) @ p["W"] + p["b"]
    target = torch.from_numpy(y.astype(np.float64) if soft else y)
    due = torch.nn.functional.cross_entropy(
        logits.movedim(-1, 1),
        target.movedim(-1, 1) if soft else target,
        weight=torch.tensor(along, dtype=torch.float64) if weighted else None,
        label_smoothing=smoothing,
    )
    agree(found, due, p)
    right = logits.detach().argmax(-1).numpy() == (y.argmax(-1) if soft else y)
    assert found.metrics.accuracy == pytest.approx(right.mean(), abs=1e-6)


@pytest.mark.torch
@settings(max_examples=examples(40), deadline=None)
@given(
    name=st.sampled_from(["binary_cross_entropy", "mse", "mae", "huber"]),
    samples=st.integers(1, 6),
    extra=st.sampled_from([(), (4,), (2, 3)]),
    outputs=st.integers(1, 4),
    delta=st.sampled_from([0.3, 1.0, 2.5]),
    batch_size=st.integers(1, 7),
    seed=st.integers(0, 99),
)
def test_losses_of_each_element_are_pytorchs(
    name: str,
    samples: int,
    extra: tuple[int, ...],
    outputs: int,
    delta: float,
    batch_size: int,
    seed: int,
) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the other half of this comparison")
    functional = torch.nn.functional
    file, weights = dense(outputs, extra)
    x = normal(seed, samples, *extra, FEATURES)
    y = np.random.default_rng(seed).uniform(0, 1, (samples, *extra, outputs)).astype(np.float32)
    found = examine(file, huber(delta=delta) if name == "huber" else name, x, y, batch_size)
    p = leaves(torch, weights)
    prediction = torch.from_numpy(x.astype(np.float64)) @ p["W"] + p["b"]
    target = torch.from_numpy(y.astype(np.float64))
    due = {
        "binary_cross_entropy": functional.binary_cross_entropy_with_logits,
        "mse": functional.mse_loss,
        "mae": functional.l1_loss,
        "huber": lambda a, b: functional.huber_loss(a, b, delta=delta),
    }[name](prediction, target)
    agree(found, due, p)
    if name == "binary_cross_entropy":
        right = (prediction.detach().numpy() > 0) == (y > 0.5)
        assert found.metrics.accuracy == pytest.approx(right.mean(), abs=1e-6)
    elif name != "mae":
        error = np.abs(prediction.detach().numpy() - y).mean()
        assert found.metrics.values["mean_absolute_error"] == pytest.approx(error, rel=1e-5)


@settings(max_examples=examples(25), deadline=None)
@given(
    name=st.sampled_from(["cross_entropy", "weighted", "binary_cross_entropy", "mse", "mae", "huber"]),
    samples=st.integers(1, 20),
    batch_size=st.integers(1, 21),
    seed=st.integers(0, 99),
)
def test_an_evaluation_in_batches_is_the_evaluation_of_the_whole(
    name: str, samples: int, batch_size: int, seed: int
) -> None:
    bundle = EVALUATED[name]
    x = normal(seed, samples, FEATURES)
    rng = np.random.default_rng(seed)
    classes = bundle.manifest.targets[0].classes
    y = rng.integers(0, 4, samples) if classes else rng.uniform(0, 1, (samples, 4)).astype(np.float32)
    trainer = Trainer(bundle)
    whole = trainer.evaluate(bundle.initial, x, y, batch_size=samples)
    parts = trainer.evaluate(bundle.initial, x, y, batch_size=batch_size)
    assert parts.samples == whole.samples == samples
    assert parts.values == pytest.approx(whole.values, rel=1e-5)
    assert parts.loss == parts.values["loss"]


EVALUATED = {
    name: Bundle.read(prepare(dense(4)[0], loss=loss))
    for name, loss in {
        "cross_entropy": cross_entropy(),
        "weighted": cross_entropy(class_weights=(0.1, 5, 1, 0)),
        "binary_cross_entropy": binary_cross_entropy(),
        "mse": mean_squared_error(),
        "mae": mean_absolute_error(),
        "huber": huber(),
    }.items()
}


def two_heads() -> tuple[bytes, Tensors]:
    """Outputs y (4 classes) and z (2 numbers) on a shared layer."""
    weights = {"S": normal(1, FEATURES, 5), "W": normal(2, 5, 4), "V": normal(3, 5, 2)}
    nodes = [
        node("MatMul", ["x", "S"], ["a"]),
        node("Tanh", ["a"], ["h"]),
        node("MatMul", ["h", "W"], ["y"]),
        node("MatMul", ["h", "V"], ["z"]),
    ]
    model = onnx.load_from_string(onnx_file(nodes, weights, ("batch", FEATURES)))
    model.graph.output.append(helper.make_tensor_value_info("z", 1, ["batch", 2]))
    return model.SerializeToString(), weights


@pytest.mark.torch
@settings(max_examples=examples(10), deadline=None)
@given(st.floats(0.1, 3), st.floats(0.1, 3), st.integers(1, 9), st.integers(0, 99))
def test_several_objectives_are_summed_by_their_weights(a: float, b: float, samples: int, seed: int) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the other half of this comparison")
    file, weights = two_heads()
    x = normal(seed, samples, FEATURES)
    labels, numbers = np.arange(samples) % 4, normal(seed + 1, samples, 2)
    losses: Any = {"y": ("cross_entropy", a), "z": ("mse", b)}
    found = examine(file, losses, x, {"y": labels, "z": numbers}, batch_size=4)
    p = leaves(torch, weights)
    h = torch.tanh(torch.from_numpy(x.astype(np.float64)) @ p["S"])
    first = torch.nn.functional.cross_entropy(h @ p["W"], torch.from_numpy(labels))
    second = torch.nn.functional.mse_loss(h @ p["V"], torch.from_numpy(numbers.astype(np.float64)))
    agree(found, a * first + b * second, p)
    assert set(found.metrics.values) == {"loss/y", "accuracy/y", "loss/z", "mean_absolute_error/z"}
    assert found.metrics.values["loss/y"] == pytest.approx(first.item(), rel=1e-4)
    assert found.metrics.values["loss/z"] == pytest.approx(second.item(), rel=1e-4)


def test_targets_of_several_objectives_go_by_output_or_by_target() -> None:
    bundle = Bundle.read(prepare(two_heads()[0], loss={"y": "cross_entropy", "z": "mse"}))
    assert [t.name for t in bundle.manifest.targets] == ["target/y", "target/z"]
    x, y, z = normal(0, 7, FEATURES), np.arange(7) % 4, normal(1, 7, 2)
    trainer = Trainer(bundle)
    by_output = trainer.evaluate(bundle.initial, x, {"y": y, "z": z})
    assert trainer.evaluate(bundle.initial, x, {"target/y": y, "target/z": z}) == by_output
    with pytest.raises(ConfigError, match="one array of targets"):
        trainer.evaluate(bundle.initial, x, y)
    with pytest.raises(ConfigError, match="targets"):
        trainer.evaluate(bundle.initial, x, {"y": y})


@pytest.mark.parametrize("scalar", [True, False])
def test_a_model_may_compute_its_own_loss(scalar: bool) -> None:
    weights = {"W": normal(7, FEATURES, 2)}
    shape: dict[str, Any] = {"keepdims": 0} if scalar else {"keepdims": 1}
    nodes = [
        node("MatMul", ["x", "W"], ["m"]),
        node("Sub", ["m", "t"], ["d"]),
        node("Mul", ["d", "d"], ["s"]),
        node("ReduceMean", ["s"], ["y"], **shape),
    ]
    model = onnx.load_from_string(onnx_file(nodes, weights, ("batch", FEATURES)))
    model.graph.input.append(helper.make_tensor_value_info("t", 1, ["batch", 2]))
    x, t = normal(0, 6, FEATURES), normal(1, 6, 2)
    own = examine(model.SerializeToString(), model_output(), {"x": x, "t": t}, None, batch_size=4)
    plain = onnx_file([node("MatMul", ["x", "W"], ["y"])], weights, ("batch", FEATURES))
    due = examine(plain, "mse", x, t)
    assert own.loss == pytest.approx(due.loss, rel=1e-6)
    assert own.metrics.loss == pytest.approx(due.metrics.loss, rel=1e-6)
    assert np.allclose(own.gradients["W"], due.gradients["W"], atol=1e-6)


@pytest.mark.parametrize("loss", ["binary_cross_entropy", "mse"])
def test_only_the_loss_that_contains_a_final_sigmoid_is_put_before_it(loss: str) -> None:
    plain, weights = dense(2)
    model = onnx.load_from_string(plain)
    model.graph.node.append(node("Sigmoid", ["y"], ["p"]))
    model.graph.output[0].name = "p"
    x, y = normal(0, 6, FEATURES), np.random.default_rng(0).uniform(0, 1, (6, 2)).astype(np.float32)
    found = examine(model.SerializeToString(), loss, x, y)
    logits = x @ weights["W"] + weights["b"]
    p = 1 / (1 + np.exp(-logits))
    if loss == "mse":
        assert found.loss == pytest.approx(np.square(p - y).mean(), rel=1e-5)
    else:
        assert found.loss == pytest.approx(-(y * np.log(p) + (1 - y) * np.log(1 - p)).mean(), rel=1e-5)
        assert np.allclose(found.gradients["b"], (p - y).mean(0) / 2, atol=1e-6)


@pytest.mark.parametrize("loss", ["mse", "mae", "huber"])
def test_what_is_met_exactly_has_no_gradient(loss: str) -> None:
    weights = {"W": np.zeros((FEATURES, 2), np.float32)}
    file = onnx_file([node("MatMul", ["x", "W"], ["y"])], weights, ("batch", FEATURES))
    found = examine(file, loss, normal(0, 5, FEATURES), np.zeros((5, 2), np.float32))
    assert found.loss == 0
    assert not found.gradients["W"].any()


@pytest.mark.parametrize("size", [1e2, 1e4, 1e30])
def test_confident_predictions_keep_losses_finite(size: float) -> None:
    weights = {"W": (np.eye(FEATURES) * size).astype(np.float32)}
    file = onnx_file([node("MatMul", ["x", "W"], ["y"])], weights, ("batch", FEATURES))
    x, wrong = np.eye(FEATURES, dtype=np.float32), np.array([1, 2, 0])
    found = examine(file, "cross_entropy", x, wrong)
    assert found.loss == pytest.approx(size, rel=1e-5)
    assert np.isfinite(found.gradients["W"]).all()
    binary = examine(file, "binary_cross_entropy", x, 1 - np.eye(FEATURES, dtype=np.float32))
    assert binary.loss == pytest.approx((3 * size + 6 * np.log(2)) / 9, rel=1e-5)


@pytest.mark.parametrize(
    ("make", "thing"),
    [
        (lambda: cross_entropy(label_smoothing=1.0), "label smoothing"),
        (lambda: cross_entropy(label_smoothing=-0.1), "label smoothing"),
        (lambda: cross_entropy(class_weights=(1, float("nan"))), "class weights"),
        (lambda: cross_entropy(class_weights=(0, 0)), "class weights"),
        (lambda: huber(delta=0), "delta"),
        (lambda: huber(delta=float("inf")), "delta"),
        (lambda: loss_named("l2"), "name of the loss"),
        (lambda: prepare(dense(4)[0], loss=cross_entropy(class_weights=(1, 2))), "number of class weights"),
        (lambda: prepare(dense(4)[0], loss={}), "loss"),
        (lambda: prepare(dense(4)[0], loss={"y": ("mse", 0.0)}), "weight of the loss"),
        (lambda: prepare(dense(4)[0], loss={"y": "mse"}, output="y"), "output"),
    ],
)
def test_settings_out_of_range_are_named(make: Any, thing: str) -> None:
    with pytest.raises(ConfigError, match=thing):
        make()


@pytest.mark.parametrize("loss", [cross_entropy(class_axis=0), cross_entropy(class_axis=2), model_output()])
def test_an_output_that_no_loss_can_be_put_on_is_named(loss: Loss) -> None:
    with pytest.raises(ModelError, match="shape of the model's output"):
        prepare(dense(4)[0], loss=loss)
