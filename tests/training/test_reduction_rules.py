"""Laws of the gradient rules of reductions and of CumSum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from gradient_check import check, rule_gradients
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper

from laconic.errors import ModelError
from laconic.training.assemble import assemble, model
from laconic.training.builder import GraphBuilder, TensorType
from laconic.training.forward import lay
from laconic.training.rules import RULES, Application
from often import examples

quick = settings(max_examples=examples(20), deadline=None)
seeds = st.integers(0, 2**16)

SMOOTH = ["Sum", "Mean", "L2", "SumSquare", "LogSum", "LogSumExp", "Prod", "L1"]
REDUCTIONS = [*SMOOTH, "Max", "Min"]

COVERED: dict[str, str] = {f"Reduce{r}": "test_reductions" for r in REDUCTIONS} | {"CumSum": "test_cum_sum"}

SHAPE = (2, 3, 4)
axes_of = st.one_of(st.none(), st.lists(st.integers(-3, 2), max_size=3, unique_by=lambda axis: axis % 3))


def data(seed: int, reduction: str) -> NDArray[np.float32]:
    """Distinct values, clear of kinks: of both signs where the reduction takes them."""
    size = int(np.prod(SHAPE))
    x = (np.random.default_rng(seed).permutation(size) - size // 2 + 0.5) / 8
    if reduction == "LogSum":
        x = abs(x) + 0.5
    if reduction == "Prod":
        x = np.where(x < 0, x / 2 - 0.5, x / 2 + 0.5)
    return x.reshape(SHAPE).astype(np.float32)


def reduction_node(
    reduction: str, axes: Sequence[int] | None, **attributes: Any
) -> tuple[Any, dict[str, NDArray[np.int64]]]:
    fixed = {} if axes is None else {"axes": np.array(axes, np.int64)}
    return helper.make_node(f"Reduce{reduction}", ["x", *fixed], ["y"], **attributes), fixed


@settings(max_examples=examples(150), deadline=None)
@given(
    seeds, st.sampled_from(REDUCTIONS), axes_of, st.sampled_from([None, 0, 1]), st.booleans(), st.booleans()
)
def test_reductions(
    seed: int, reduction: str, axes: list[int] | None, keepdims: int | None, noop: bool, batched: bool
) -> None:
    attributes: dict[str, int] = {} if keepdims is None else {"keepdims": keepdims}
    attributes |= {"noop_with_empty_axes": 1} if noop else {}
    node, fixed = reduction_node(reduction, axes, **attributes)
    x = data(seed, reduction)

    def by_definition(feeds: Any) -> NDArray[np.float64]:
        over = tuple(axes or (() if noop else range(3)))
        return DEFINITIONS[reduction](feeds["x"], axis=over, keepdims=keepdims != 0)

    check(node, {"x": x, **fixed}, ["x"], batched=["x"] * batched, forward=by_definition)


DEFINITIONS: dict[str, Any] = {
    "L1": lambda x, **how: abs(x).sum(**how),
    "L2": lambda x, **how: np.sqrt((x**2).sum(**how)),
    "LogSum": lambda x, **how: np.log(x.sum(**how)),
    "LogSumExp": lambda x, **how: np.log(np.exp(x).sum(**how)),
    "Max": np.max,
    "Mean": np.mean,
    "Min": np.min,
    "Prod": np.prod,
    "Sum": np.sum,
    "SumSquare": lambda x, **how: (x**2).sum(**how),
}


@settings(max_examples=examples(40), deadline=None)
@given(seeds, st.sampled_from([-2, -1, 0, 1]), st.sampled_from([None, 0, 1]), st.sampled_from([None, 0, 1]))
def test_cum_sum(seed: int, axis: int, exclusive: int | None, reverse: int | None) -> None:
    given_attributes = {"exclusive": exclusive, "reverse": reverse}
    attributes = {name: value for name, value in given_attributes.items() if value is not None}
    x = np.random.default_rng(seed).standard_normal((3, 4)).astype(np.float32)
    node = helper.make_node("CumSum", ["x", "axis"], ["y"], **attributes)

    def by_definition(feeds: Any) -> NDArray[np.float64]:
        seen = np.flip(feeds["x"], axis) if reverse else feeds["x"]
        y = seen.cumsum(axis) - (seen if exclusive else 0)
        return np.flip(y, axis) if reverse else y

    values = {"x": x, "axis": np.array(axis, np.int64)}
    check(node, values, ["x"], batched=["x"], forward=by_definition)


@quick
@given(seeds, st.integers(0, 3), st.sampled_from([None, [0], [1]]), st.booleans())
def test_a_product_is_differentiated_exactly_where_factors_are_zero(
    seed: int, zeros: int, axes: list[int] | None, keepdims: bool
) -> None:
    rng = np.random.default_rng(seed)
    x = (rng.uniform(0.5, 1.5, (2, 3)) * rng.choice([-1, 1], (2, 3))).astype(np.float32)
    x.flat[rng.choice(6, zeros, replace=False)] = 0
    node, fixed = reduction_node("Prod", axes, keepdims=int(keepdims))
    over = tuple(axes or range(2))
    forward = lambda feeds: feeds["x"].prod(axis=over, keepdims=keepdims)  # noqa: E731
    check(node, {"x": x, **fixed}, ["x"], forward=forward)


@quick
@given(seeds, axes_of, st.sampled_from([0, 1]), st.booleans())
def test_the_form_of_a_log_of_summed_exponentials_computes_it(
    seed: int, axes: list[int] | None, keepdims: int, noop: bool
) -> None:
    node, fixed = reduction_node("LogSumExp", axes, keepdims=keepdims, noop_with_empty_axes=int(noop))
    over = tuple(axes or (() if noop else range(3)))
    x = np.random.default_rng(seed).normal(0, 30, SHAPE).astype(np.float32)
    x[0, 1], x[1, 1] = -np.inf, -1e4
    with np.errstate(divide="ignore", invalid="ignore"):
        due = np.logaddexp.reduce(x.astype(np.float64), axis=over, keepdims=bool(keepdims)) if over else x
    result = TensorType(TensorProto.FLOAT, due.shape)
    g = GraphBuilder((), {"x": TensorType(TensorProto.FLOAT, SHAPE), "y": result}, fixed)
    lay(g, [node])
    encoded = model(assemble(g, "form", ["x"], {"y": ("y", result)}))
    found = ort.InferenceSession(encoded, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    np.testing.assert_allclose(found, due, rtol=1e-5, atol=1e-5)


def test_a_log_of_summed_exponentials_survives_large_values() -> None:
    node, _ = reduction_node("LogSumExp", None)
    x = np.array([1e4, 1e4, 0.0, -1e4], np.float32)
    found = rule_gradients([node], {"x": x}, np.ones(1), ["x"])["x"]
    np.testing.assert_allclose(found, [0.5, 0.5, 0, 0], atol=2e-4)  # 1e4 + log 2 has rounded by so much


def test_computed_axes_are_refused() -> None:
    g = GraphBuilder(
        (), {"x": TensorType(TensorProto.FLOAT, (2, 3)), "axes": TensorType(TensorProto.INT64, (1,))}
    )
    node = helper.make_node("ReduceSum", ["x", "axes"], ["y"])
    with pytest.raises(ModelError, match="ReduceSum"):
        RULES["ReduceSum"](Application(g, node, (True, False)), ("dy",))


@pytest.mark.torch
@pytest.mark.parametrize(
    ("reduction", "name", "arguments"),
    [
        ("L1", "norm", {"p": 1}),
        ("L2", "norm", {"p": 2}),
        ("Max", "amax", {}),
        ("Mean", "mean", {}),
        ("Min", "amin", {}),
        ("Prod", "prod", {}),
        ("Sum", "sum", {}),
    ],
)
@pytest.mark.parametrize("keepdims", [0, 1])
def test_ties_and_zeros_have_the_derivatives_of_torch(
    reduction: str, name: str, arguments: dict[str, Any], keepdims: int
) -> None:
    torch = pytest.importorskip("torch")
    points = np.array([[0, 0, 0], [1, 1, -2], [0, 3, -3], [-2, -2, 5], [0, 0, 1]], np.float32)
    x = torch.tensor(points, requires_grad=True)
    getattr(x, name)(dim=1, keepdim=bool(keepdims), **arguments).sum().backward()
    node, fixed = reduction_node(reduction, [1], keepdims=keepdims)
    dy = np.ones((5, 1) if keepdims else 5)
    found = rule_gradients([node], {"x": points, **fixed}, dy, ["x"])["x"]
    np.testing.assert_allclose(found, x.grad.numpy(), rtol=1e-6)
