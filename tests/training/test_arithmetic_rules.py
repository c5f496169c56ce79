"""Laws of the gradient rules of arithmetic, of functions of one number, and of choices among values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from gradient_check import check, rule_gradients
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper

from often import examples

quick = settings(max_examples=examples(20), deadline=None)
seeds = st.integers(0, 2**16)
shapes = st.sampled_from([(3, 4), (4,), (1, 4), (3, 1), (1, 1), (1,), (), (2, 3, 4), (2, 1, 1)])

COVERED: dict[str, str] = {
    "Abs": "test_functions_of_one_number",
    "Acos": "test_functions_of_one_number",
    "Acosh": "test_functions_of_one_number",
    "Add": "test_two_broadcast_operands",
    "Asin": "test_functions_of_one_number",
    "Asinh": "test_functions_of_one_number",
    "Atan": "test_functions_of_one_number",
    "Atanh": "test_functions_of_one_number",
    "Cast": "test_cast",
    "CastLike": "test_cast_like",
    "Ceil": "test_rounded_values_carry_no_gradient",
    "Clip": "test_clip",
    "Cos": "test_functions_of_one_number",
    "Cosh": "test_functions_of_one_number",
    "Div": "test_two_broadcast_operands",
    "Erf": "test_functions_of_one_number",
    "Exp": "test_functions_of_one_number",
    "Floor": "test_rounded_values_carry_no_gradient",
    "Log": "test_functions_of_one_number",
    "Max": "test_any_number_of_operands",
    "Mean": "test_any_number_of_operands",
    "Min": "test_any_number_of_operands",
    "Mul": "test_two_broadcast_operands",
    "Neg": "test_functions_of_one_number",
    "Pow": "test_power_of_two_tensors",
    "Reciprocal": "test_functions_of_one_number",
    "Round": "test_rounded_values_carry_no_gradient",
    "Sign": "test_rounded_values_carry_no_gradient",
    "Sin": "test_functions_of_one_number",
    "Sinh": "test_functions_of_one_number",
    "Sqrt": "test_functions_of_one_number",
    "Sub": "test_two_broadcast_operands",
    "Sum": "test_any_number_of_operands",
    "Tan": "test_functions_of_one_number",
    "Where": "test_where",
}

RANGES: dict[str, tuple[float, float]] = {
    "Abs": (0.1, 2.0),
    "Acos": (-0.8, 0.8),
    "Acosh": (1.3, 3.0),
    "Asin": (-0.8, 0.8),
    "Asinh": (-2.0, 2.0),
    "Atan": (-2.0, 2.0),
    "Atanh": (-0.8, 0.8),
    "Cos": (-2.0, 2.0),
    "Cosh": (-2.0, 2.0),
    "Erf": (-2.0, 2.0),
    "Exp": (-2.0, 2.0),
    "Log": (0.3, 3.0),
    "Neg": (-2.0, 2.0),
    "Reciprocal": (0.4, 2.0),
    "Sin": (-2.0, 2.0),
    "Sinh": (-2.0, 2.0),
    "Sqrt": (0.3, 3.0),
    "Tan": (-1.0, 1.0),
}
"""Where a function is smooth, and its fifth derivative small enough for a central difference."""

BOTH_SIGNS = {"Abs", "Reciprocal"}


def uniform(seed: int, low: float, high: float, *shape: int) -> NDArray[np.float32]:
    return np.random.default_rng([seed, *shape]).uniform(low, high, shape).astype(np.float32)


def normal(seed: int, *shape: int) -> NDArray[np.float32]:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def apart(seed: int, *operands: tuple[int, ...]) -> list[NDArray[np.float32]]:
    """Operands of which no two elements are closer than 1/16, over all of them, and none is near zero."""
    size = sum(int(np.prod(o)) for o in operands)
    values = (np.random.default_rng(seed).permutation(size) - size // 2 + 0.5) / 8
    cuts = np.cumsum([int(np.prod(o)) for o in operands])[:-1]
    parts = np.split(values.astype(np.float32), cuts)
    return [part.reshape(shape) for part, shape in zip(parts, operands, strict=True)]


def gradient(
    op_type: str, values: dict[str, Any], wanted: Sequence[str], **attributes: Any
) -> list[list[float]]:
    """Gradients of the sum of one node's output, in float32 on onnxruntime."""
    arrays = {n: np.asarray(v, np.float32) for n, v in values.items()}
    node = helper.make_node(op_type, list(values), ["y"], **attributes)
    dy = np.ones(np.broadcast_shapes(*(a.shape for a in arrays.values())))
    found = rule_gradients([node], arrays, dy, wanted)
    return [found[n].tolist() for n in wanted]


@settings(max_examples=examples(60), deadline=None)
@given(seeds, st.sampled_from(["Add", "Sub", "Mul", "Div"]), shapes, st.booleans())
def test_two_broadcast_operands(seed: int, op_type: str, other: tuple[int, ...], constant: bool) -> None:
    values = {"a": uniform(seed, 0.5, 2, 3, 4), "b": uniform(seed, -2, -0.7, *other)}
    wanted = ["a"] if constant else ["a", "b"]
    batched = [] if 3 in other else ["a"]
    fixed = ["b"] if constant else []
    check(helper.make_node(op_type, ["a", "b"], ["y"]), values, wanted, batched=batched, constant=fixed)
    values = {"a": uniform(seed, -2, -0.7, 3, 4), "b": uniform(seed, 0.5, 2, *other)}
    check(helper.make_node(op_type, ["b", "a"], ["y"]), values, wanted, constant=fixed)


@quick
@given(seeds, st.sampled_from(["Add", "Sub", "Mul", "Div"]))
def test_an_operand_that_comes_twice_counts_twice(seed: int, op_type: str) -> None:
    check(helper.make_node(op_type, ["a", "a"], ["y"]), {"a": uniform(seed, 0.5, 2, 3)}, ["a"])


@settings(max_examples=examples(60), deadline=None)
@given(seeds, st.sampled_from(["Sum", "Mean", "Min", "Max"]), st.lists(shapes, min_size=1, max_size=4))
def test_any_number_of_operands(seed: int, op_type: str, others: list[tuple[int, ...]]) -> None:
    operands = apart(seed, *others)
    values = {f"x{i}": operand for i, operand in enumerate(operands)}
    # onnx's reference implementation of Mean writes the sum into its first operand.
    forward = (lambda feeds: sum(feeds.values()) / len(feeds)) if op_type == "Mean" else None
    check(helper.make_node(op_type, list(values), ["y"]), values, list(values), forward=forward)
    batched = ["x"] if not any(3 in other for other in others) and all(len(o) < 3 for o in others) else []
    values = dict(zip(["x", *values], apart(seed, (3, 4), *others), strict=True))
    check(
        helper.make_node(op_type, list(values), ["y"]), values, ["x", "x0"], batched=batched, forward=forward
    )


@settings(max_examples=examples(60), deadline=None)
@given(seeds, st.sampled_from(sorted(RANGES)), st.booleans())
def test_functions_of_one_number(seed: int, op_type: str, batched: bool) -> None:
    x = uniform(seed, *RANGES[op_type], 3, 5)
    if op_type in BOTH_SIGNS:
        x *= np.random.default_rng(seed).choice([-1, 1], x.shape).astype(np.float32)
    check(helper.make_node(op_type, ["x"], ["y"]), {"x": x}, ["x"], batched=["x"] * batched)


@settings(max_examples=examples(30), deadline=None)
@given(
    seeds,
    st.sampled_from([1, 2, 3, 4, -1, -2, 0.5, 1.5, -0.5, 2.5, 1.0, 2.0]),
    st.sampled_from([(), (1,), (1, 1, 1)]),
    st.booleans(),
)
def test_power_with_one_constant_exponent(
    seed: int, exponent: float, shape: tuple[int, ...], negative: bool
) -> None:
    whole = isinstance(exponent, int)
    base = uniform(seed, 0.5, 2, 3, 4) * (-1 if whole and negative else 1)
    values = {"x": base, "z": np.full(shape, exponent, np.int64 if whole else np.float32)}
    node = helper.make_node("Pow", ["x", "z"], ["y"])
    check(node, values, ["x"], batched=["x"], constant=["z"])


@quick
@given(seeds, shapes, st.booleans())
def test_power_with_constant_exponents_or_a_constant_base(
    seed: int, shape: tuple[int, ...], whole: bool
) -> None:
    exponents = np.random.default_rng(seed).integers(-2, 4, shape)
    values = {"x": uniform(seed, 0.5, 2, 3, 4), "z": exponents.astype(np.int64 if whole else np.float32)}
    node = helper.make_node("Pow", ["x", "z"], ["y"])
    if exponents.any() or exponents.size > 1:
        check(node, values, ["x"], constant=["z"])
    values["z"] = uniform(seed, -2, 2, *shape)
    check(node, values, ["z"], constant=["x"])


@quick
@given(seeds, shapes)
def test_power_of_two_tensors(seed: int, other: tuple[int, ...]) -> None:
    values = {"x": uniform(seed, 0.5, 2, 3, 4), "z": uniform(seed, -2, 2, *other)}
    batched = [] if 3 in other else ["x"]
    check(helper.make_node("Pow", ["x", "z"], ["y"]), values, ["x", "z"], batched=batched)
    values = {"x": uniform(seed, 0.5, 2, *other), "z": uniform(seed, -2, 2, 3, 4)}
    check(helper.make_node("Pow", ["x", "z"], ["y"]), values, ["x", "z"])
    check(helper.make_node("Pow", ["x", "z"], ["y"]), values, ["x"])


@settings(max_examples=examples(40), deadline=None)
@given(
    seeds,
    st.sampled_from([None, 0.0, -1.0, 0.5]),
    st.sampled_from([None, 6.0, 1.0, 2.5]),
    st.booleans(),
)
def test_clip(seed: int, low: float | None, high: float | None, wanted: bool) -> None:
    inputs, values = ["x", "", ""], {"x": apart(seed, (3, 40))[0]}
    for place, (name, bound) in enumerate((("low", low), ("high", high)), start=1):
        if bound is not None:
            inputs[place], values[name] = name, np.float32(bound)
    bounds = [n for n in ("low", "high") if n in values]
    while not inputs[-1]:
        inputs.pop()
    node = helper.make_node("Clip", inputs, ["y"])
    if wanted:
        check(node, {n: np.asarray(v) for n, v in values.items()}, ["x", *bounds], batched=["x"])
    else:
        check(node, {n: np.asarray(v) for n, v in values.items()}, ["x"], batched=["x"], constant=bounds)


@quick
@given(seeds, shapes, shapes, shapes)
def test_where(seed: int, c: tuple[int, ...], x: tuple[int, ...], z: tuple[int, ...]) -> None:
    condition = np.random.default_rng(seed).random(c) < 0.5
    values = {"c": condition, "x": normal(seed, *x), "z": normal(seed + 1, *z)}
    node = helper.make_node("Where", ["c", "x", "z"], ["y"])
    check(node, values, ["x", "z"])
    check(node, values, ["x"])
    check(node, values, ["z"])


@quick
@given(seeds, st.sampled_from(["Ceil", "Floor", "Round", "Sign"]))
def test_rounded_values_carry_no_gradient(seed: int, op_type: str) -> None:
    nodes = [helper.make_node(op_type, ["x"], ["a"]), helper.make_node("Mul", ["a", "x"], ["y"])]
    check(nodes, {"x": normal(seed, 3, 4).round(1) + np.float32(0.03)}, ["x"], batched=["x"])


@pytest.mark.parametrize("op_type", ["Ceil", "Floor", "Round", "Sign"])
def test_what_only_rounded_values_depend_on_is_not_refused(op_type: str) -> None:
    nodes = [helper.make_node(op_type, ["w"], ["a"]), helper.make_node("Mul", ["a", "x"], ["y"])]
    check(nodes, {"w": normal(0, 4) + 1, "x": normal(1, 3, 4)}, ["x"])


@quick
@given(seeds)
def test_truth_values_and_whole_numbers_carry_no_gradient(seed: int) -> None:
    """y = x (x > 0) + argmax(x) x + size(x) x, where comparing, finding and counting are constants."""
    real = TensorProto.FLOAT
    nodes = [
        helper.make_node("Greater", ["x", "zero"], ["positive"]),
        helper.make_node("IsNaN", ["x"], ["absurd"]),
        helper.make_node("Or", ["positive", "absurd"], ["taken"]),
        helper.make_node("Where", ["taken", "x", "zero"], ["a"]),
        helper.make_node("ArgMax", ["x"], ["index"], axis=-1, keepdims=1),
        helper.make_node("CastLike", ["index", "x"], ["place"]),
        helper.make_node("Mul", ["place", "x"], ["b"]),
        helper.make_node("Size", ["x"], ["count"]),
        helper.make_node("Add", ["count", "one"], ["more"]),
        helper.make_node("Cast", ["more"], ["number"], to=real),
        helper.make_node("Mul", ["number", "x"], ["c"]),
        helper.make_node("Sum", ["a", "b", "c"], ["y"]),
    ]
    values = {"x": apart(seed, (3, 4))[0], "zero": np.zeros(1, np.float32), "one": np.array(1, np.int64)}

    def forward(feeds: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
        x = feeds["x"]
        return x * ((x > 0) + x.argmax(-1, keepdims=True) + x.size + 1)

    check(nodes, values, ["x"], batched=["x"], forward=forward, double=False)


@quick
@given(seeds, st.booleans())
def test_cast(seed: int, there_and_back: bool) -> None:
    nodes = [
        helper.make_node(
            "Cast", ["x"], ["a"], to=TensorProto.DOUBLE if there_and_back else TensorProto.FLOAT
        ),
        helper.make_node("Cast", ["a"], ["b"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["b", "b"], ["y"]),
    ]
    values = {"x": normal(seed, 3, 4)}
    check(nodes, values, ["x"], batched=["x"], forward=lambda feeds: feeds["x"] ** 2, double=False)


@quick
@given(seeds)
def test_cast_like(seed: int) -> None:
    nodes = [helper.make_node("CastLike", ["x", "z"], ["a"]), helper.make_node("Mul", ["a", "z"], ["y"])]
    check(nodes, {"x": normal(seed, 3, 4), "z": normal(seed, 4)}, ["x", "z"], batched=["x"])


def test_whole_numbers_end_a_gradient() -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["a"], to=TensorProto.INT64),
        helper.make_node("Cast", ["a"], ["b"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["b", "x"], ["y"]),
    ]
    x = np.array([1.5, -2.5, 0.5], np.float32)
    assert rule_gradients(nodes, {"x": x}, np.ones(3), ["x"])["x"].tolist() == [1, -2, 0]


def test_equal_operands_share_the_gradient_of_an_extremum() -> None:
    """Two as PyTorch's maximum and minimum, more by the same principle."""
    for op_type in ("Max", "Min"):
        assert gradient(op_type, {"a": [0, 2], "b": [0, 2]}, ["a", "b"]) == [[0.5, 0.5], [0.5, 0.5]]
        assert gradient(op_type, {"a": [3], "b": [3], "c": [3], "d": [3]}, ["a", "d"]) == [[0.25], [0.25]]
    assert gradient("Max", {"a": [1e-20], "b": [0]}, ["a", "b"]) == [[1], [0]]


def test_clip_to_zero_and_six_is_flat_at_both_bounds() -> None:
    """The next values inside count, those at and beyond the bounds do not: PyTorch's ReLU6."""
    x = np.array([-1, 0, 1e-6, 3, np.nextafter(np.float32(6), 0, dtype=np.float32), 6, 7], np.float32)
    values = {"x": x, "low": np.array(0, np.float32), "high": np.array(6, np.float32)}
    node = helper.make_node("Clip", list(values), ["y"])
    found = rule_gradients([node], values, np.ones(7), ["x"], constant=["low", "high"])
    assert found["x"].tolist() == [0, 0, 1, 1, 1, 0, 0]


@pytest.mark.torch
@pytest.mark.parametrize(
    ("op_type", "name"),
    [
        ("Abs", "abs"),
        ("Acos", "acos"),
        ("Asinh", "asinh"),
        ("Atanh", "atanh"),
        ("Erf", "erf"),
        ("Log", "log"),
        ("Reciprocal", "reciprocal"),
        ("Sqrt", "sqrt"),
        ("Tan", "tan"),
    ],
)
def test_functions_have_the_derivatives_of_torch(op_type: str, name: str) -> None:
    torch = pytest.importorskip("torch")
    points = [0.0, 0.25, 0.5, 0.9, 1e-3]
    points += [] if op_type in ("Log", "Sqrt") else [-0.25, -0.9]
    points = [p for p in points if p or op_type not in ("Log", "Reciprocal")]
    x = torch.tensor(points, requires_grad=True)
    getattr(torch, name)(x).sum().backward()
    np.testing.assert_allclose(gradient(op_type, {"x": points}, ["x"])[0], x.grad.numpy(), rtol=1e-5)


@pytest.mark.torch
@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0, 3.0, 0.5, 1.5, 2.5, -1.0, [0.0, 2.0, 1.0, 3.0]])
def test_powers_of_zero_have_the_derivatives_of_torch(exponent: float | list[float]) -> None:
    torch = pytest.importorskip("torch")
    points = np.array([0.0, 1.0, 2.0, 0.5], np.float32)
    for constant in (True, False):
        x = torch.tensor(points, requires_grad=True)
        z = torch.tensor(exponent, requires_grad=not constant)
        (x**z).sum().backward()
        values = {"x": points, "z": np.array(exponent, np.float32)}
        nodes = [helper.make_node("Pow", ["x", "z"], ["p"]), helper.make_node("Add", ["p", "x"], ["y"])]
        wanted = ["x"] if constant else ["x", "z"]
        fixed = ["z"] if constant else []
        found = rule_gradients(nodes, values, np.ones(4), wanted, constant=fixed)
        np.testing.assert_allclose(found["x"], x.grad.numpy() + 1, rtol=1e-5)
        if not constant and np.min(exponent) >= 0:
            np.testing.assert_allclose(found["z"], z.grad.numpy(), rtol=1e-5)


@pytest.mark.torch
def test_clip_has_the_derivatives_of_torch_at_its_bounds() -> None:
    torch = pytest.importorskip("torch")
    points = [-2.0, -1.0, 0.0, 1.0, 2.0, 3.0]
    for low, high in ((-1.0, 2.0), (0.0, None), (None, 2.0), (2.0, 2.0), (2.0, 1.0)):
        leaves = {"x": torch.tensor(points, requires_grad=True)}
        for name, bound in (("low", low), ("high", high)):
            if bound is not None:
                leaves[name] = torch.tensor(bound, requires_grad=True)
        torch.clamp(leaves["x"], leaves.get("low"), leaves.get("high")).sum().backward()
        values = {n: leaf.detach().numpy() for n, leaf in leaves.items()}
        node = helper.make_node("Clip", ["x", *(n if n in leaves else "" for n in ("low", "high"))], ["y"])
        for constant in ([], [n for n in leaves if n != "x"]):
            wanted = [n for n in leaves if n not in constant]
            found = rule_gradients([node], values, np.ones(6), wanted, constant=constant)
            if (low, high) != (2.0, 1.0):
                assert found["x"].tolist() == leaves["x"].grad.tolist()
            for name in wanted[1:]:
                assert found[name].tolist() == leaves[name].grad.tolist(), (low, high, name)
