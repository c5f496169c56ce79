"""Laws of the gradient rules of activations: central differences, and PyTorch's choices at kinks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from gradient_check import check, rule_gradients
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

from laconic.training.assemble import assemble, model
from laconic.training.builder import GraphBuilder, TensorType
from laconic.training.forward import lay
from laconic.training.rules import Training
from often import examples

quick = settings(max_examples=examples(20), deadline=None)
seeds = st.integers(0, 2**16)

COVERED: dict[str, str] = {
    "Celu": "test_exponential_units",
    "Elu": "test_exponential_units",
    "Gelu": "test_gelu",
    "HardSigmoid": "test_hard_sigmoid",
    "HardSwish": "test_activations_without_attributes",
    "LeakyRelu": "test_leaky_relu",
    "Mish": "test_activations_without_attributes",
    "PRelu": "test_prelu",
    "Relu": "test_activations_without_attributes",
    "Selu": "test_exponential_units",
    "Sigmoid": "test_activations_without_attributes",
    "Softplus": "test_activations_without_attributes",
    "Softsign": "test_activations_without_attributes",
    "Tanh": "test_activations_without_attributes",
    "ThresholdedRelu": "test_thresholded_relu",
}

PLAIN = ["HardSwish", "Mish", "Relu", "Sigmoid", "Softplus", "Softsign", "Tanh"]


def spread(seed: int, *shape: int) -> NDArray[np.float32]:
    """Distinct values between -5 and 5, none within 0.02 of a whole number: there are the kinks."""
    rng = np.random.default_rng([seed, *shape])
    return (rng.integers(-5, 5, shape) + rng.uniform(0.02, 0.98, shape)).astype(np.float32)


def unary(op_type: str, **attributes: Any) -> Callable[..., NDArray[Any]]:
    """The rule's gradient of the sum of one activation of `x`, in float32 on onnxruntime."""

    def gradient(*x: float) -> NDArray[Any]:
        node = helper.make_node(op_type, ["x"], ["y"], **attributes)
        return rule_gradients([node], {"x": np.float32(x)}, np.ones(len(x)), ["x"])["x"]

    return gradient


@settings(max_examples=examples(40), deadline=None)
@given(seeds, st.sampled_from(PLAIN), st.integers(1, 5), st.booleans())
def test_activations_without_attributes(seed: int, op_type: str, rows: int, batched: bool) -> None:
    x = spread(seed, rows, 7)
    check(helper.make_node(op_type, ["x"], ["y"]), {"x": x}, ["x"], batched=["x"] * batched)


@quick
@given(seeds, st.sampled_from([None, 0.01, 0.3, 0.0, 1.0, 1.5, -0.25]))
def test_leaky_relu(seed: int, alpha: float | None) -> None:
    attributes = {} if alpha is None else {"alpha": alpha}
    node = helper.make_node("LeakyRelu", ["x"], ["y"], **attributes)
    check(node, {"x": spread(seed, 3, 7)}, ["x"], batched=["x"])


@settings(max_examples=examples(30), deadline=None)
@given(
    seeds,
    st.sampled_from(["Elu", "Selu", "Celu"]),
    st.sampled_from([None, 1.0, 0.5, 2.5, -0.75]),
    st.sampled_from([None, 0.5, 2.0, -1.0]),
)
def test_exponential_units(seed: int, op_type: str, alpha: float | None, gamma: float | None) -> None:
    attributes = {} if alpha is None else {"alpha": alpha}
    if op_type == "Selu" and gamma is not None:
        attributes["gamma"] = gamma
    node = helper.make_node(op_type, ["x"], ["y"], **attributes)
    x = spread(seed, 3, 7)
    if op_type == "Celu" and attributes.get("alpha", 1.0) < 0:
        x = np.clip(x, -2.2, None)  # exp(x / alpha) grows beyond what a central difference follows
    # The standard defines Celu for float32 only.
    check(node, {"x": x}, ["x"], batched=["x"], double=op_type != "Celu")


@quick
@given(seeds, st.sampled_from([{}, {"alpha": 0.25}, {"alpha": 0.125, "beta": 0.375}, {"alpha": -0.25}]))
def test_hard_sigmoid(seed: int, attributes: dict[str, float]) -> None:
    node = helper.make_node("HardSigmoid", ["x"], ["y"], **attributes)
    x = spread(seed, 3, 7) + np.float32(0 if attributes else 0.5)  # by default the kinks are at -2.5 and 2.5
    check(node, {"x": x}, ["x"], batched=["x"])


@quick
@given(seeds, st.sampled_from([None, 0.0, -1.0, 2.0]))
def test_thresholded_relu(seed: int, alpha: float | None) -> None:
    attributes = {} if alpha is None else {"alpha": alpha}
    node = helper.make_node("ThresholdedRelu", ["x"], ["y"], **attributes)
    check(node, {"x": spread(seed, 3, 7)}, ["x"], batched=["x"])


@quick
@given(seeds, st.sampled_from([(3, 2, 4), (3, 1, 1), (2, 4), (4,), (1,), (1, 4), (2, 1, 1)]))
def test_prelu(seed: int, slope: tuple[int, ...]) -> None:
    values = {"x": spread(seed, 2, 3, 2, 4), "slope": spread(seed, *slope)}
    if slope == (2, 1, 1):
        values["x"] = spread(seed, 3, 2, 1, 4)
    node = helper.make_node("PRelu", ["x", "slope"], ["y"])
    check(node, values, ["x", "slope"], batched=["x"])
    check(node, values, ["slope"])


@quick
@given(seeds, st.sampled_from([None, "none", "tanh"]), st.booleans())
def test_gelu(seed: int, approximate: str | None, batched: bool) -> None:
    attributes = {} if approximate is None else {"approximate": approximate}
    node = helper.make_node("Gelu", ["x"], ["y"], **attributes)
    values = {"x": spread(seed, 3, 7)}
    check(node, values, ["x"], batched=["x"] * batched, forward=lambda feeds: _defined(node, feeds["x"]))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("op_type", "attributes"),
    [("Gelu", {}), ("Gelu", {"approximate": "tanh"}), ("Mish", {}), ("HardSwish", {}), ("PRelu", {})],
)
def test_a_form_computes_what_the_operator_is_defined_to(
    op_type: str, attributes: dict[str, Any], training: bool
) -> None:
    x = np.array([-1e30, -100, -30, -17, -5, -3, -1, -1e-3, 0, 1e-3, 1, 3, 5, 17, 30, 100, 1e30], np.float32)
    inputs = ["x", "slope"] if op_type == "PRelu" else ["x"]
    node = helper.make_node(op_type, inputs, ["y"], **attributes)
    kind = TensorType(TensorProto.FLOAT, (len(x),))
    g = GraphBuilder((), {"x": kind, "slope": TensorType(TensorProto.FLOAT, (1,)), "y": kind})
    lay(g, [node], Training((), {}, lambda: "no seed") if training else None)
    encoded = model(assemble(g, "form", inputs, {"y": ("y", kind)}))
    feeds = {"x": x, "slope": np.float32([0.25])}
    session = ort.InferenceSession(encoded, providers=["CPUExecutionProvider"])
    found = session.run(None, {i: feeds[i] for i in inputs})[0]
    np.testing.assert_allclose(found, _defined(node, x.astype(np.float64)), rtol=2e-6, atol=1e-6)


def _defined(node: NodeProto, x: NDArray[np.float64]) -> NDArray[np.float64]:
    near = np.clip(x, -700.0, 700.0)
    if node.op_type == "PRelu":
        return np.where(x < 0, 0.25 * x, x)
    if node.op_type == "HardSwish":
        return x * np.clip(x / 6 + 0.5, 0, 1)
    if node.op_type == "Mish":
        return np.where(x < -700, 0.0, x * np.tanh(np.logaddexp(0.0, near)))
    if any(a.s == b"tanh" for a in node.attribute):
        gate = 1 / (1 + np.exp(-np.clip(2 * np.sqrt(2 / np.pi) * (near + 0.044715 * near**3), -700, 700)))
    else:
        gate = 0.5 * (1 + np.vectorize(math.erf)(near / math.sqrt(2)))
    return np.where(x < -30, 0.0, x * gate)


def test_relu_has_derivative_zero_at_zero_and_one_at_the_smallest_normal_values_above() -> None:
    assert unary("Relu")(-1.0, -0.0, 0.0, 1e-30, 3e38).tolist() == [0, 0, 0, 1, 1]


LARGE = [-3e38, -1e4, -100.0, 100.0, 1e4, 3e38]


@pytest.mark.parametrize(
    "op_type", [*PLAIN, "LeakyRelu", "Elu", "Selu", "Celu", "HardSigmoid", "ThresholdedRelu"]
)
def test_derivatives_of_large_values_are_those_of_the_asymptotes(op_type: str) -> None:
    found = unary(op_type)(*LARGE)
    below = {"LeakyRelu": 0.01}.get(op_type, 0.0)
    above = {"Softsign": 0, "HardSigmoid": 0, "Sigmoid": 0, "Tanh": 0, "Selu": 1.0507}.get(op_type, 1)
    np.testing.assert_allclose(found, [below] * 3 + [above] * 3, atol=1.1e-4)


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_the_derivative_of_gelu_is_zero_or_one_far_from_zero(approximate: str) -> None:
    found = unary("Gelu", approximate=approximate)(-1e15, -100, -20, 20, 100, 1e15)
    assert found.tolist() == [0, 0, 0, 1, 1, 1]


@pytest.mark.torch
@pytest.mark.parametrize(
    ("op_type", "attributes", "name", "arguments"),
    [
        ("Celu", {"alpha": 2.0}, "celu", {"alpha": 2.0}),
        ("Elu", {}, "elu", {}),
        ("Elu", {"alpha": 2.0}, "elu", {"alpha": 2.0}),
        ("Elu", {"alpha": 0.5}, "elu", {"alpha": 0.5}),
        ("Gelu", {}, "gelu", {}),
        ("Gelu", {"approximate": "tanh"}, "gelu", {"approximate": "tanh"}),
        ("HardSigmoid", {"alpha": 1 / 6}, "hardsigmoid", {}),
        ("HardSwish", {}, "hardswish", {}),
        ("LeakyRelu", {}, "leaky_relu", {}),
        ("LeakyRelu", {"alpha": 2.0}, "leaky_relu", {"negative_slope": 2.0}),
        ("Mish", {}, "mish", {}),
        ("Relu", {}, "relu", {}),
        ("Selu", {}, "selu", {}),
        ("Sigmoid", {}, "sigmoid", {}),
        ("Softplus", {}, "softplus", {}),
        ("Softsign", {}, "softsign", {}),
        ("Tanh", {}, "tanh", {}),
        ("ThresholdedRelu", {"alpha": 3.0}, "threshold", {"threshold": 3.0, "value": 0.0}),
    ],
)
def test_derivatives_are_those_of_torch_at_kinks_and_elsewhere(
    op_type: str, attributes: dict[str, Any], name: str, arguments: dict[str, Any]
) -> None:
    torch = pytest.importorskip("torch")
    points = [
        -50.0,
        -10.0,
        -6.0,
        -3.0,
        -2.5,
        -1.0,
        -0.3,
        -1e-3,
        0.0,
        1e-3,
        0.3,
        1.0,
        2.5,
        3.0,
        6.0,
        10.0,
        50.0,
    ]
    x = torch.tensor(points, requires_grad=True)
    getattr(torch.nn.functional, name)(x, **arguments).sum().backward()
    np.testing.assert_allclose(unary(op_type, **attributes)(*points), x.grad.numpy(), rtol=2e-5, atol=2e-6)


@pytest.mark.torch
def test_prelu_has_the_derivatives_of_torch_at_zero() -> None:
    torch = pytest.importorskip("torch")
    x = np.array([[-1.0, 0.0, 2.0], [0.0, -3.0, 1.0]], np.float32)
    slope = np.array([0.25, -0.5, 1.5], np.float32)
    leaves = [torch.tensor(v, requires_grad=True) for v in (x, slope)]
    torch.nn.functional.prelu(*leaves).sum().backward()
    node = helper.make_node("PRelu", ["x", "slope"], ["y"])
    found = rule_gradients([node], {"x": x, "slope": slope}, np.ones_like(x), ["x", "slope"])
    for name, leaf in zip(("x", "slope"), leaves, strict=True):
        np.testing.assert_allclose(found[name], leaf.grad.numpy())
