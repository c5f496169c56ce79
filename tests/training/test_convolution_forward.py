"""Laws of the ways to lay a convolution: each gives what Conv gives, and the gradient of what Conv gives."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import numpy as np
import onnxruntime as ort
import pytest
from gradient_check import check, reference
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, shape_inference

from laconic.training.assemble import assemble, model
from laconic.training.builder import BATCH, GraphBuilder, TensorType, value_info
from laconic.training.forward import lay
from laconic.training.inferred import tensor_types
from laconic.training.rules import Training, convolution_forward, convolution_joint
from laconic.training.rules.convolution_forward import Way, choice, data_gradient_choice
from laconic.training.rules.convolution_weight import Correlation
from laconic.training.rules.window import Window
from often import examples

Values = dict[str, NDArray[np.float32]]


def normal(seed: int, *shape: int) -> NDArray[np.float32]:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


@st.composite
def layers(draw: st.DrawFn, strided: bool) -> tuple[Values, dict[str, Any]]:
    """Input, weight and perhaps bias of a convolution in two dimensions, and its attributes."""

    def each(low: int, high: int) -> list[int]:
        return [draw(st.integers(low, high)), draw(st.integers(low, high))]

    kernel, dilations, size = each(1, 3), each(1, 2), [draw(st.integers(3, 6)), draw(st.integers(3, 6))]
    margins = [d * (k - 1) for d, k in zip(dilations, kernel, strict=True)]
    pads = [draw(st.integers(0, m)) for m in margins * 2]
    assume(all(n + b + a > m for n, b, a, m in zip(size, pads, pads[2:], margins, strict=False)))
    inside, outside, seed = draw(st.integers(1, 4)), draw(st.integers(1, 4)), draw(st.integers(0, 2**16))
    values = {"x": normal(seed, 2, inside, *size), "w": normal(seed, outside, inside, *kernel)}
    if draw(st.booleans()):
        values["b"] = normal(seed, outside)
    strides = each(1, 3) if strided else [1, 1]
    return values, {"kernel_shape": kernel, "strides": strides, "dilations": dilations, "pads": pads}


def laid(values: Values, attributes: dict[str, Any], way: Way) -> NDArray[Any]:
    """What the form of training makes of the layer, the batch size unknown."""
    node = helper.make_node("Conv", list(values), ["y"], **attributes)
    real = TensorProto.FLOAT
    shapes = {n: (BATCH, *a.shape[1:]) if n == "x" else a.shape for n, a in values.items()}
    inputs = [value_info(n, real, s) for n, s in shapes.items()]
    graph = helper.make_graph([node], "g", inputs, [value_info("y", real, None)])
    whole = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    g = GraphBuilder((), tensor_types(shape_inference.infer_shapes(whole).graph))
    with patch.object(convolution_forward, "choice", lambda *_: way):
        lay(g, [node], Training((), {}, lambda: ""))
    out = {"y": ("y", TensorType(real, g.shape("y")))}
    session = ort.InferenceSession(model(assemble(g, "g", list(values), out)))
    result: NDArray[Any] = session.run(None, values)[0]
    return result


def due(values: Values, attributes: dict[str, Any]) -> NDArray[Any]:
    node = helper.make_node("Conv", list(values), ["y"], **attributes)
    return reference([node], values)({n: a.astype(np.float64) for n, a in values.items()})


@settings(max_examples=examples(40), deadline=None)
@given(layers(strided=True))
def test_gathered_products_are_the_convolution(layer: tuple[Values, dict[str, Any]]) -> None:
    np.testing.assert_allclose(laid(*layer, "gathered"), due(*layer), rtol=1e-4, atol=1e-5)


@settings(max_examples=examples(40), deadline=None)
@given(layers(strided=False))
def test_a_turned_weight_transposed_is_the_convolution(layer: tuple[Values, dict[str, Any]]) -> None:
    np.testing.assert_allclose(laid(*layer, "transposed"), due(*layer), rtol=1e-4, atol=1e-5)


@settings(max_examples=examples(30), deadline=None)
@given(layers(strided=False), st.booleans())
def test_gathered_products_are_the_gradient_of_the_input(
    layer: tuple[Values, dict[str, Any]], batched: bool
) -> None:
    values, attributes = layer
    node = helper.make_node("Conv", list(values), ["y"], **attributes)
    with patch.object(convolution_forward, "data_gradient_choice", lambda *_: "gathered"):
        check(node, values, ["x", "w"], batched=["x"] * batched)


def square(kernel: int, pixels: int, stride: int = 1) -> Window:
    pad = kernel // 2
    made = (pixels + 2 * pad - kernel) // stride + 1
    return Window((kernel,) * 2, (stride,) * 2, (1, 1), (pad,) * 2, (pixels,) * 2, (made,) * 2)


@pytest.mark.parametrize(
    ("way", "layer"),
    [
        ("conv", (square(5, 28), 1, 1, 32)),
        ("conv", (square(1, 16), 1, 64, 64)),
        ("conv", (square(3, 16), 64, 64, 64)),
        ("conv", (square(3, 28), 1, 16, 32)),
        ("transposed", (square(3, 32), 1, 16, 16)),
        ("gathered", (square(5, 14), 1, 32, 64)),
        ("gathered", (square(3, 32, 2), 1, 16, 32)),
    ],
)
def test_the_way_is_chosen_by_shape(way: str, layer: tuple[Window, int, int, int]) -> None:
    assert choice(*layer) == way


def test_the_gradient_of_the_input_is_gathered_only_at_stride_1() -> None:
    assert data_gradient_choice(square(3, 8), 1, 64, 64) == "gathered"
    assert data_gradient_choice(square(3, 16, 2), 1, 64, 64) == "transposed"
    assert data_gradient_choice(square(5, 14), 1, 32, 64) == "transposed"


@settings(max_examples=examples(30), deadline=None)
@given(layers(strided=False), st.booleans())
def test_both_gradients_of_one_loop_are_those_of_the_convolution(
    layer: tuple[Values, dict[str, Any]], batched: bool
) -> None:
    values, attributes = layer
    node = helper.make_node("Conv", list(values), ["y"], **attributes)
    with patch.object(convolution_joint, "gains", lambda _: True):
        check(node, values, list(values), batched=["x"] * batched)


@pytest.mark.parametrize(
    ("gained", "layer"),
    [
        (True, (square(3, 16), 1, 32, 32)),
        (True, (square(3, 8), 1, 64, 64)),
        (False, (square(3, 16, 2), 1, 64, 64)),
        (False, (square(3, 16), 32, 32, 32)),
        (False, (square(3, 32), 1, 16, 16)),
        (False, (square(5, 14), 1, 32, 64)),
        (False, (square(3, 4), 1, 256, 256)),
        (False, (square(1, 16), 1, 64, 64)),
    ],
)
def test_one_loop_is_chosen_by_shape(gained: bool, layer: tuple[Window, int, int, int]) -> None:
    assert convolution_joint.gains(Correlation(*layer, BATCH)) == gained
