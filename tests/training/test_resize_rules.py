"""Laws of the rule of Resize: for all of its attributes, as onnxruntime understands them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from gradient_check import check, rule_gradients
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from laconic.errors import ModelError
from laconic.training.rules.interpolation import Axis, Interpolation, matrix, positions
from often import examples

COVERED: dict[str, str] = {"Resize": "test_resize"}

COORDINATES = [
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_crop_and_resize",
]
ROUNDINGS = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]

seeds = st.integers(0, 2**16)


def normal(seed: int, *shape: int) -> NDArray[np.float32]:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def run(node: NodeProto, values: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """What onnxruntime makes of a node."""
    constants = [numpy_helper.from_array(a, n) for n, a in values.items() if n != "x"]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, values["x"].shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "resize", [x], [y], initializer=constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": values["x"]})
    return np.asarray(found)


def operands(
    x: NDArray[np.float32], axes: list[int], chosen: list[float], sizes: bool, roi: list[float] | None
) -> tuple[list[str], dict[str, NDArray[Any]]]:
    """Input names and values of a Resize by scales or by sizes."""
    values: dict[str, NDArray[Any]] = {"x": x}
    if roi:
        values["roi"] = np.array(roi, np.float32)
    if sizes:
        out = [max(1, int(x.shape[axis] * s)) for axis, s in zip(axes, chosen, strict=True)]
        values["sizes"] = np.array(out, np.int64)
        return ["x", "roi" if roi else "", "", "sizes"], values
    values["scales"] = np.array(chosen, np.float32)
    return ["x", "roi" if roi else "", "scales"], values


def on_the_edge(mode: str, coordinates: str, length: int, scale: float, start: float) -> bool:
    """Whether the last bit of a scale or coordinate, which compilers differ in, decides about the result."""
    if int(np.float32(length) * np.float32(scale)) != int(length * scale):
        return True
    if coordinates not in ("tf_crop_and_resize", "half_pixel_symmetric"):
        return False
    axis = Axis(length, int(length * scale), scale, start, start + 0.6)
    places = positions(Interpolation(mode, coordinates, "floor", -0.75, False), axis)
    twice = 2 * places[(places != 0) & np.isfinite(places)]
    return bool(np.any(np.abs(twice - np.round(twice)) < 1e-3))


@settings(max_examples=examples(120), deadline=None)
@given(
    seed=seeds,
    mode=st.sampled_from(["nearest", "linear", "cubic"]),
    coordinates=st.sampled_from(COORDINATES),
    rounding=st.sampled_from(ROUNDINGS),
    scales=st.lists(
        st.sampled_from([0.3, 0.5, 0.6, 0.75, 1.0, 1.0, 1.3, 1.5, 2.0, 2.0, 2.5, 3.0]), min_size=2, max_size=2
    ),
    size=st.tuples(st.integers(1, 7), st.integers(2, 6)),
    sizes=st.booleans(),
    coefficient=st.sampled_from([-0.75, -0.5]),
    exclude=st.booleans(),
    roi=st.lists(st.sampled_from([-0.2, 0.0, 0.1, 0.3, 0.5]), min_size=2, max_size=2),
    named=st.booleans(),
    batched=st.booleans(),
)
def test_resize(
    seed: int,
    mode: str,
    coordinates: str,
    rounding: str,
    scales: list[float],
    size: tuple[int, int],
    sizes: bool,
    coefficient: float,
    exclude: bool,
    roi: list[float],
    named: bool,
    batched: bool,
) -> None:
    """The gradient is the adjoint of what onnxruntime does: <dx, v> = <dy, Resize(v)> for any v."""
    assume(all(int(n * s) > 0 for n, s in zip(size, scales, strict=True)))
    assume(not any(on_the_edge(mode, coordinates, *each) for each in zip(size, scales, roi, strict=True)))
    attributes: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": coordinates}
    if mode == "nearest":
        attributes["nearest_mode"] = rounding
    if mode == "cubic":
        attributes |= {"cubic_coeff_a": coefficient, "exclude_outside": int(exclude)}
    x = normal(seed, 2, 3, *size)
    axes = [2, 3] if named else [0, 1, 2, 3]
    if named:
        attributes["axes"] = axes
    crop = None
    if coordinates == "tf_crop_and_resize":
        crop = (
            [*roi, *(r + 0.6 for r in roi)] if named else [0.0, 0.0, *roi, 1.0, 1.0, *(r + 0.6 for r in roi)]
        )
    chosen = scales if named else [1.0, 1.0, *scales]
    names, values = operands(x, axes, chosen, sizes, crop)
    node = helper.make_node("Resize", names, ["y"], **attributes)
    y = run(node, values)
    dy, v = normal(seed + 1, *y.shape), normal(seed + 2, *x.shape)
    # A batch known only at run time may only be left as it is: sizes would fix it.
    free = batched and (named or not sizes)
    found = rule_gradients([node], values, dy, ["x"], ["x"] * free, constant=["roi", "scales"])["x"]
    assert found.shape == x.shape
    terms = dy.astype(np.float64) * run(node, values | {"x": v})
    error = abs(float(np.sum(found.astype(np.float64) * v)) - float(np.sum(terms)))
    assert error <= 2e-5 * max(1.0, float(np.sum(np.abs(terms))))


@settings(max_examples=examples(20), deadline=None)
@given(
    seed=seeds,
    shape=st.sampled_from([(5,), (4, 3), (2, 3, 4), (2, 4, 3, 2), (1, 2, 3, 2, 2)]),
    scales=st.lists(st.sampled_from([0.5, 1.0, 1.5, 2.0, 3.0]), min_size=5, max_size=5),
    coordinates=st.sampled_from(COORDINATES[2:5]),
)
def test_any_axis_and_rank_holds_to_central_differences(
    seed: int, shape: tuple[int, ...], scales: list[float], coordinates: str
) -> None:
    chosen = [s if int(n * s) else 1.0 for n, s in zip(shape, scales, strict=False)]
    axes = [axis for axis, s in enumerate(chosen) if s != 1.0] or [0]
    sizes = np.array([int(shape[axis] * chosen[axis]) for axis in axes], np.int64)
    values: dict[str, NDArray[Any]] = {"x": normal(seed, *shape), "sizes": sizes}
    attributes: dict[str, Any] = {
        "nearest_mode": "floor",
        "coordinate_transformation_mode": coordinates,
        "axes": axes,
    }
    node = helper.make_node("Resize", ["x", "", "", "sizes"], ["y"], mode="nearest", **attributes)
    how = Interpolation("nearest", coordinates, "floor", -0.75, False)

    def by_definition(feeds: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        y: NDArray[np.float64] = feeds["x"]
        for axis, size in zip(axes, sizes.tolist(), strict=True):
            n = y.shape[axis]
            weights = matrix(how, Axis(n, size, size / n))
            y = np.moveaxis(np.tensordot(weights, y, axes=(1, axis)), 0, axis)
        return y

    check(node, values, ["x"], batched=["x"] if 0 not in axes else [], forward=by_definition)


@pytest.mark.parametrize("policy", ["not_larger", "not_smaller"])
def test_sizes_that_keep_the_aspect_ratio(policy: str) -> None:
    x = normal(0, 2, 3, 4, 6)
    values: dict[str, NDArray[Any]] = {"x": x, "sizes": np.array([9, 7], np.int64)}
    names = ["x", "", "", "sizes"]
    node = helper.make_node(
        "Resize", names, ["y"], mode="linear", keep_aspect_ratio_policy=policy, axes=[2, 3]
    )
    y = run(node, values)
    dy, v = normal(1, *y.shape), normal(2, *x.shape)
    found = rule_gradients([node], values, dy, ["x"], ["x"])["x"]
    due = float(np.sum(dy * run(node, values | {"x": v})))
    assert abs(float(np.sum(found * v)) - due) < 1e-3


def test_sizes_computed_from_the_batch() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["lead"], start=0, end=2),
        helper.make_node("Concat", ["lead", "sizes"], ["all"], axis=0),
        helper.make_node(
            "Resize",
            ["x", "", "", "all"],
            ["y"],
            mode="linear",
            coordinate_transformation_mode="align_corners",
        ),
    ]
    values: dict[str, NDArray[Any]] = {"x": normal(0, 2, 3, 4, 5), "sizes": np.array([7, 10], np.int64)}
    check(nodes, values, ["x"], batched=["x"])


def test_what_is_not_covered_is_refused_by_the_name_of_the_node() -> None:
    values: dict[str, NDArray[Any]] = {
        "x": normal(0, 1, 1, 4, 4),
        "scales": np.array([1, 1, 0.5, 0.5], np.float32),
    }
    node = helper.make_node("Resize", ["x", "", "scales"], ["y"], mode="linear", antialias=1, name="shrink")
    with pytest.raises(ModelError, match="shrink"):
        rule_gradients([node], values, normal(0, 1, 1, 2, 2), ["x"], constant=["scales"])


@pytest.mark.torch
@pytest.mark.parametrize(
    ("mode", "corners", "coordinates"),
    [
        ("nearest", None, "asymmetric"),
        ("bilinear", True, "align_corners"),
        ("bilinear", False, "pytorch_half_pixel"),
        ("bicubic", False, "pytorch_half_pixel"),
    ],
)
def test_interpolation_agrees_with_torch(mode: str, corners: bool | None, coordinates: str) -> None:
    torch = pytest.importorskip("torch")
    for size in [(8, 10), (6, 4), (3, 9)]:
        x = normal(0, 2, 3, 4, 5)
        t = torch.tensor(x, requires_grad=True)
        y = torch.nn.functional.interpolate(t, size=size, mode=mode, align_corners=corners)
        dy = normal(1, *y.shape)
        y.backward(torch.tensor(dy))
        onnx_mode = {"nearest": "nearest", "bilinear": "linear", "bicubic": "cubic"}[mode]
        attributes = {"mode": onnx_mode, "coordinate_transformation_mode": coordinates}
        node = helper.make_node(
            "Resize", ["x", "", "", "sizes"], ["y"], nearest_mode="floor", axes=[2, 3], **attributes
        )
        values: dict[str, NDArray[Any]] = {"x": x, "sizes": np.array(size, np.int64)}
        found = rule_gradients([node], values, dy, ["x"], ["x"])["x"]
        np.testing.assert_allclose(found, t.grad.numpy(), rtol=1e-4, atol=2e-6)
