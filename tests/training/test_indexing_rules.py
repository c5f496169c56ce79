"""Laws of the rules of operators that pick or place elements by index."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from gradient_check import check, rule_gradients
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

from laconic.errors import ModelError
from laconic.training.builder import GraphBuilder, TensorType
from laconic.training.rules import RULES, Application
from often import examples

COVERED: dict[str, str] = {
    "Gather": "test_gather",
    "GatherElements": "test_gather_elements",
    "GatherND": "test_gather_nd",
    "ScatterElements": "test_scatter_elements",
    "ScatterND": "test_scatter_nd",
    "TopK": "test_top_k",
}

quick = settings(max_examples=examples(20), deadline=None)
seeds = st.integers(0, 2**16)


def normal(seed: int, *shape: int) -> NDArray[np.float32]:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def spread(seed: int, *shape: int) -> NDArray[np.float32]:
    """Distinct values, far enough apart that a central difference changes no order."""
    size = int(np.prod(shape))
    return (np.random.default_rng(seed).permutation(size) / 8).reshape(shape).astype(np.float32)


def picked(seed: int, length: int, shape: tuple[int, ...], kind: type[np.integer] = np.int64) -> NDArray[Any]:
    """Indices of an axis, some counted from its end, most likely with repetitions."""
    return np.random.default_rng(seed).integers(-length, length, shape).astype(kind)


def computed(node: NodeProto, values: dict[str, Any], name: str) -> list[NodeProto]:
    """The node with its indices made at run time from real numbers; `values` is changed to match."""
    code = helper.np_dtype_to_tensor_dtype(values[name].dtype)
    values[f"{name}_as_real"] = values.pop(name).astype(np.float32)
    last = helper.make_node("Identity", [node.output[0]], ["result"])
    return [helper.make_node("Cast", [f"{name}_as_real"], [name], to=code), node, last]


@settings(max_examples=examples(40), deadline=None)
@given(
    seed=seeds,
    shape=st.sampled_from([(), (1,), (3,), (5,), (2, 3), (2, 1, 2)]),
    axis=st.integers(-3, 2),
    at_run_time=st.booleans(),
    batched=st.booleans(),
    kind=st.sampled_from([np.int32, np.int64]),
)
def test_gather(
    seed: int,
    shape: tuple[int, ...],
    axis: int,
    at_run_time: bool,
    batched: bool,
    kind: type[np.integer],
) -> None:
    x = normal(seed, 4, 5, 3)
    values: dict[str, NDArray[Any]] = {"x": x, "indices": picked(seed, x.shape[axis], shape, kind)}
    node = helper.make_node("Gather", ["x", "indices"], ["y"], axis=axis)
    nodes = computed(node, values, "indices") if at_run_time else [node]
    check(nodes, values, ["x"], batched=["x"] * batched)


@quick
@given(
    seeds,
    st.sampled_from(
        [(0, 1, 2), (2, 3), (-2, -1), (-1,), (4, 3, 2, 1, 0), (0, 2, 4), (3, 0), (1, 3, 0, 4, 2), (4, -3)]
    ),
    st.integers(0, 2),
    st.booleans(),
)
def test_gather_of_constant_positions_without_repetition(
    seed: int, indices: tuple[int, ...], axis: int, batched: bool
) -> None:
    values: dict[str, NDArray[Any]] = {"x": normal(seed, 5, 5, 5), "indices": np.array(indices, np.int64)}
    node = helper.make_node("Gather", ["x", "indices"], ["y"], axis=axis)
    check(node, values, ["x"], batched=["x"] * batched)
    if len(indices) % 2 == 0:
        values["indices"] = values["indices"].reshape(2, -1)
        check(node, values, ["x"], batched=["x"] * batched)


def test_the_gradient_of_rows_picked_at_run_time_is_one_scatter_onto_zeros() -> None:
    g = GraphBuilder((), {"w": TensorType(TensorProto.FLOAT, (50, 4))})
    g.declare("i", TensorProto.INT64, ("batch", 7))
    g.declare("dy", TensorProto.FLOAT, ("batch", 7, 4))
    node = helper.make_node("Gather", ["w", "i"], ["y"])
    dw, none = RULES["Gather"](Application(g, node, (True, False)), ("dy",))
    assert none is None
    assert dw is not None
    scatter = g.producer(dw)
    assert scatter is not None
    assert scatter.op_type == "ScatterND"
    assert [(a.name, a.s) for a in scatter.attribute] == [("reduction", b"add")]
    zeros, rows = (g.producer(i) for i in scatter.input[:2])
    assert zeros is not None
    assert rows is not None
    assert (zeros.op_type, g.constants[zeros.input[0]].tolist()) == ("ConstantOfShape", [50, 4])
    assert (rows.op_type, rows.input[0], scatter.input[2]) == ("Unsqueeze", "i", "dy")


@quick
@given(seeds, st.integers(-2, 1), st.booleans(), st.booleans())
def test_gather_elements(seed: int, axis: int, at_run_time: bool, batched: bool) -> None:
    x = normal(seed, 3, 4)
    shape = (2, 4) if axis % 2 == 0 else (3, 6)
    values: dict[str, NDArray[Any]] = {"x": x, "indices": picked(seed, x.shape[axis], shape)}
    node = helper.make_node("GatherElements", ["x", "indices"], ["y"], axis=axis)
    nodes = computed(node, values, "indices") if at_run_time else [node]
    indices = picked(seed, x.shape[axis], shape)

    def by_definition(feeds: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        return np.take_along_axis(feeds["x"], indices, axis)

    batched = batched and axis % 2 == 0
    check(nodes, values, ["x"], batched=["x"] * batched, forward=by_definition)


@quick
@given(seeds, st.integers(0, 1), st.integers(1, 2), st.sampled_from([(), (4,), (2, 3)]), st.booleans())
def test_gather_nd(seed: int, batch: int, depth: int, shape: tuple[int, ...], batched: bool) -> None:
    x = normal(seed, 3, 4, 5)
    columns = [picked(seed + i, x.shape[batch + i], (3,) * batch + shape) for i in range(depth)]
    values: dict[str, NDArray[Any]] = {"x": x, "indices": np.stack(columns, -1)}
    node = helper.make_node("GatherND", ["x", "indices"], ["y"], batch_dims=batch)
    batched = batched and batch == 0
    check(node, values, ["x"], batched=["x"] * batched)
    if batch == 1:
        nodes = computed(node, values, "indices")
        check(nodes, values, ["x"], batched=["x", "indices_as_real"])


def test_gather_nd_refuses_more_batch_axes_and_names_the_node() -> None:
    node = helper.make_node("GatherND", ["x", "i"], ["y"], batch_dims=2, name="pick")
    values: dict[str, NDArray[Any]] = {"x": normal(0, 2, 3, 4), "i": np.zeros((2, 3, 1), np.int64)}
    with pytest.raises(ModelError, match="pick"):
        check(node, values, ["x"])


@quick
@given(seeds, st.integers(-2, 1), st.sampled_from(["none", "add"]), st.booleans())
def test_scatter_elements(seed: int, axis: int, reduction: str, batched: bool) -> None:
    x = normal(seed, 3, 4)
    length = x.shape[axis]
    shape = (2, 4) if axis % 2 == 0 else (3, 2)
    orders = np.random.default_rng(seed)
    places = np.stack([orders.permutation(length)[:2] for _ in range(shape[1 - axis % 2])], 1 - axis % 2)
    values: dict[str, NDArray[Any]] = {"x": x, "indices": places, "u": normal(seed + 1, *shape)}
    if reduction == "add":
        values["indices"] = picked(seed, length, shape)
    node = helper.make_node("ScatterElements", list(values), ["y"], axis=axis, reduction=reduction)
    check(node, values, ["x", "u"], batched=["x"] if batched and axis % 2 == 0 else [])


@quick
@given(seeds, st.integers(1, 2), st.sampled_from(["none", "add"]), st.booleans())
def test_scatter_nd(seed: int, depth: int, reduction: str, batched: bool) -> None:
    orders = np.random.default_rng(seed)
    columns: list[NDArray[Any]] = [orders.permutation(4)[:3] for _ in range(depth)]
    if reduction == "add":
        columns = [picked(seed + i, 4, (3,)) for i in range(depth)]
    values: dict[str, NDArray[Any]] = {
        "x": normal(seed, 4, 4, 2),
        "indices": np.stack(columns, -1).astype(np.int64),
        "u": normal(seed, 3, *(4, 2)[depth - 1 :]),
    }
    node = helper.make_node("ScatterND", list(values), ["y"], reduction=reduction)
    check(node, values, ["x", "u"], batched=["x"] * batched)


def test_scattering_the_largest_is_refused() -> None:
    node = helper.make_node("ScatterND", ["x", "i", "u"], ["y"], reduction="max", name="place")
    values: dict[str, NDArray[Any]] = {"x": normal(0, 3), "i": np.zeros((1, 1), np.int64), "u": normal(1, 1)}
    with pytest.raises(ModelError, match="place"):
        check(node, values, ["x"])


@quick
@given(seeds, st.integers(-2, 1), st.integers(1, 3), st.booleans(), st.booleans(), st.booleans())
def test_top_k(seed: int, axis: int, k: int, largest: bool, named: bool, batched: bool) -> None:
    node = helper.make_node(
        "TopK", ["x", "k"], ["y", "i" if named else ""], axis=axis, largest=int(largest), sorted=1
    )
    values: dict[str, NDArray[Any]] = {"x": spread(seed, 3, 4), "k": np.array([k], np.int64)}
    check(node, values, ["x"], batched=["x"] if batched and axis % 2 else [])


@pytest.mark.torch
def test_picking_agrees_with_torch() -> None:
    torch = pytest.importorskip("torch")
    x = normal(0, 6, 5, 4)
    rng = np.random.default_rng(1)
    rows, elements = rng.integers(0, 6, (3, 7)), rng.integers(0, 5, (6, 9, 4))
    nodes: dict[str, tuple[NDArray[Any], int, Any]] = {
        "Gather": (rows, 0, lambda t: torch.nn.functional.embedding(torch.tensor(rows), t[:, :, 0])),
        "GatherElements": (elements, 1, lambda t: torch.gather(t, 1, torch.tensor(elements))),
        "index_select": (rng.integers(0, 5, 8), 1, None),
    }
    for name, (indices, axis, forward) in nodes.items():
        t = torch.tensor(x, requires_grad=True)
        y = forward(t) if forward else torch.index_select(t, axis, torch.tensor(indices))
        dy = normal(2, *y.shape)
        y.backward(torch.tensor(dy))
        operator = "Gather" if name == "index_select" else name
        due, data = t.grad.numpy(), x
        if name == "Gather":
            due, data = due[:, :, 0], x[:, :, 0]
        node = helper.make_node(operator, ["x", "indices"], ["y"], axis=axis)
        found = rule_gradients([node], {"x": data, "indices": indices}, dy, ["x"])["x"]
        np.testing.assert_allclose(found, due, rtol=1e-5, atol=1e-6)
    t = torch.tensor(x, requires_grad=True)
    y = torch.topk(t, 3, dim=1)[0]
    dy = normal(3, *y.shape)
    y.backward(torch.tensor(dy))
    node = helper.make_node("TopK", ["x", "k"], ["y", ""], axis=1)
    found = rule_gradients([node], {"x": x, "k": np.array([3])}, dy, ["x"])["x"]
    assert np.array_equal(found, t.grad.numpy())
