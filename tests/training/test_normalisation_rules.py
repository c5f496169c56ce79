"""Laws of the normalisations: against central differences, and in training against PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from gradient_check import check
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper
from onnx.reference import ReferenceEvaluator

from laconic.training.assemble import assemble, model
from laconic.training.backward import gradients
from laconic.training.builder import BATCH, GraphBuilder, TensorType
from laconic.training.forward import lay
from laconic.training.rules import Training
from often import examples

COVERED: dict[str, str] = {
    "BatchNormalization": "test_batch_normalization_with_given_statistics",
    "GroupNormalization": "test_group_normalization",
    "InstanceNormalization": "test_instance_normalization",
    "LRN": "test_lrn",
    "LayerNormalization": "test_layer_normalization",
    "LpNormalization": "test_lp_normalization",
    "MeanVarianceNormalization": "test_mean_variance_normalization",
}

quick = settings(max_examples=examples(15), deadline=None)
seeds = st.integers(0, 2**16)
epsilons = st.sampled_from([1e-5, 1e-3, 0.1])
images = st.sampled_from([(3, 4), (3, 4, 5), (2, 4, 3, 2), (2, 4, 2, 2, 2)])
STATISTICS = ("mean", "var")

Arrays = dict[str, NDArray[Any]]


def normal(seed: int, *shape: int) -> NDArray[np.float32]:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def apart(seed: int, *shape: int) -> NDArray[np.float32]:
    """Values that vary along every axis: what is divided by small deviations has large higher derivatives,
    and central differences are then as wrong as that."""
    slope: NDArray[np.float64] = np.sum(np.indices(shape), axis=0)
    return (slope - slope.mean()).astype(np.float32) + np.float32(0.2) * normal(seed, *shape)


def per_channel(seed: int, channels: int) -> Arrays:
    return {"scale": normal(seed, channels), "bias": normal(seed + 1, channels)}


def stepped(
    node: NodeProto, values: Arrays, wanted: Sequence[str], dy: NDArray[np.float32], *, double: bool = False
) -> Arrays:
    """Output, gradients and moved statistics of one node in a step; the batch is of unknown size.

    Run by onnxruntime in float32, or by ONNX's reference implementation in float64.
    """
    real = TensorProto.DOUBLE if double else TensorProto.FLOAT
    kinds = {n: TensorType(real, v.shape) for n, v in values.items()}
    kinds["x"] = kinds["y"] = kinds["dy"] = TensorType(real, (BATCH, *values["x"].shape[1:]))
    g = GraphBuilder((), kinds, real=real)
    training = Training(STATISTICS, {}, lambda: "seed")
    saved = lay(g, [node], training)
    found = gradients(g, [node], {"y": "dy"}, wanted, saved)
    results = {"y": ("y", kinds["y"])} | {f"d/{n}": (found[n], kinds[n]) for n in wanted}
    results |= {f"{n}:new": (new, kinds[n]) for n, new in training.updates.items()}
    inputs = [n for n in (*values, "dy") if n in node.input or n == "dy"]
    graph = assemble(g, "step", inputs, results)
    feeds = {n: v.astype(np.float64 if double else np.float32) for n, v in {**values, "dy": dy}.items()}
    feeds = {i.name: feeds[i.name] for i in graph.input}
    runner = ReferenceEvaluator if double else ort.InferenceSession
    return dict(zip(results, runner(model(graph)).run(list(results), feeds), strict=True))


def close(found: NDArray[Any], due: Any, limit: float = 1e-5) -> None:
    due = due.detach().numpy()
    scale = max(1.0, float(np.abs(due).max(initial=0)))
    np.testing.assert_allclose(found, due, rtol=0, atol=limit * scale)


@quick
@given(seeds, images, epsilons, st.booleans())
def test_batch_normalization_with_given_statistics(
    seed: int, shape: tuple[int, ...], epsilon: float, batched: bool
) -> None:
    values = {"x": normal(seed, *shape), **per_channel(seed, 4), "mean": normal(seed + 2, 4)}
    values["var"] = normal(seed + 3, 4) ** 2 + np.float32(0.2)
    node = helper.make_node("BatchNormalization", list(values), ["y"], epsilon=epsilon)
    check(node, values, list(values), batched=["x"] if batched else [])


def test_a_variance_below_zero_counts_as_zero() -> None:
    values = {"x": normal(0, 3, 4), **per_channel(0, 4), "mean": normal(2, 4)}
    values["var"] = np.array([-1.0, -1e-3, 0.0, 1.0], np.float32)
    node = helper.make_node("BatchNormalization", list(values), ["y"], epsilon=0.5)
    one = {**values, "var": np.maximum(values["var"], 0)}

    def exact(feeds: Any) -> NDArray[np.float64]:
        scale, bias, mean = (feeds[n] for n in ("scale", "bias", "mean"))
        y: NDArray[np.float64] = scale * (feeds["x"] - mean) / np.sqrt(one["var"] + 0.5) + bias
        return y

    check(node, values, ["x", "scale", "bias"], forward=exact)


@pytest.mark.torch
@quick
@given(
    seeds,
    images | st.just((2, 4, 31, 34)),
    epsilons,
    st.sampled_from([0.9, 0.5, 0.99]),
    st.floats(-20, 20),
    st.booleans(),
)
def test_batch_normalization_by_the_batch_is_that_of_pytorch(
    seed: int, shape: tuple[int, ...], epsilon: float, momentum: float, far: float, double: bool
) -> None:
    """Three steps: outputs, all gradients, and the running statistics that they leave."""
    torch = pytest.importorskip("torch")
    affine = per_channel(seed, 4)
    running = {"mean": normal(seed + 2, 4), "var": normal(seed + 3, 4) ** 2 + np.float32(0.2)}
    kind = {2: torch.nn.BatchNorm1d, 3: torch.nn.BatchNorm1d, 4: torch.nn.BatchNorm2d}
    layer = kind.get(len(shape), torch.nn.BatchNorm3d)(
        4, float(np.float32(epsilon)), 1 - float(np.float32(momentum))
    )
    layer = layer.double()
    layer.weight.data, layer.bias.data = (torch.tensor(v).double() for v in affine.values())
    layer.running_mean.data, layer.running_var.data = (torch.tensor(v).double() for v in running.values())
    node = helper.make_node(
        "BatchNormalization",
        ["x", "scale", "bias", *running],
        ["y"],
        epsilon=epsilon,
        momentum=momentum,
    )
    for step in range(3):
        x, dy = normal(seed + 10 + step, *shape) + np.float32(far), normal(seed + 20 + step, *shape)
        got = stepped(node, {"x": x, **affine, **running}, ["x", *affine], dy, double=double)
        x_torch = torch.tensor(x).double().requires_grad_()
        layer.zero_grad()
        y = layer(x_torch)
        y.backward(torch.tensor(dy).double())
        # A batch of mean 20 holds its deviations to 2e-6 only; few samples divide by small ones.
        limit = 1e-9 if double else 1e-5 if abs(far) < 1 else 4e-4
        for name, due in {
            "y": y,
            "d/x": x_torch.grad,
            "d/scale": layer.weight.grad,
            "d/bias": layer.bias.grad,
        }.items():
            close(got[name], due, limit)
        running = {n: got[f"{n}:new"] for n in running}
        close(running["mean"], layer.running_mean, 1e-9 if double else 1e-5)
        close(running["var"], layer.running_var, 1e-9 if double else 1e-5)


@quick
@given(seeds, st.floats(0, 3000), st.sampled_from([1e-3, 1.0, 1e3]), st.booleans())
def test_a_variance_keeps_its_digits_however_far_the_mean(
    seed: int, far: float, spread: float, constant: bool
) -> None:
    """As many as are left: x itself is rounded to 6e-8 of its mean."""
    x = normal(seed, 4, 4, 32, 32) * np.float32(spread)
    x[:, 1] += np.float32(far * spread)
    x[:, 2] = np.float32(far) if constant else x[:, 2]
    values = {"x": x, **per_channel(seed, 4), "mean": normal(2, 4), "var": np.zeros(4, np.float32)}
    node = helper.make_node("BatchNormalization", list(values), ["y"], momentum=0.0)
    got = stepped(node, values, ["x"], normal(seed + 1, *x.shape))
    due = x.astype(np.float64).var((0, 2, 3), ddof=1)
    assert (got["var:new"] >= 0).all()
    np.testing.assert_allclose(got["var:new"], due, rtol=1e-5, atol=1e-10 + (3e-6 * far) ** 2)
    assert np.isfinite(got["y"]).all()
    assert np.isfinite(got["d/x"]).all()


def test_a_batch_of_one_element_leaves_the_running_statistics_alone() -> None:
    values = {"x": normal(0, 1, 4), **per_channel(0, 4), "mean": normal(2, 4), "var": np.ones(4, np.float32)}
    node = helper.make_node("BatchNormalization", list(values), ["y"])
    got = stepped(node, values, ["x"], normal(1, 1, 4))
    np.testing.assert_allclose(got["y"][0], values["bias"])
    np.testing.assert_array_equal(got["mean:new"], values["mean"])
    np.testing.assert_array_equal(got["var:new"], values["var"])
    np.testing.assert_allclose(got["d/x"], 0, atol=1e-6)


def test_a_layer_used_twice_moves_its_statistics_twice() -> None:
    values = {"x": normal(0, 5, 4), **per_channel(0, 4), "mean": normal(2, 4), "var": np.ones(4, np.float32)}
    rest = ["scale", "bias", "mean", "var"]
    nodes = [helper.make_node("BatchNormalization", ["x", *rest], [y], momentum=0.8) for y in ("a", "b")]
    kind = TensorType(TensorProto.FLOAT, (BATCH, 4))
    kinds = {n: TensorType(TensorProto.FLOAT, v.shape) for n, v in values.items()}
    g = GraphBuilder((), kinds | {"x": kind, "a": kind, "b": kind})
    training = Training(STATISTICS, {}, lambda: "seed")
    lay(g, nodes, training)
    results = {"new": (training.updates["mean"], kinds["mean"])}
    session = ort.InferenceSession(model(assemble(g, "step", ["x", "mean"], results)))
    got = session.run(None, {n: values[n] for n in ("x", "mean")})[0]
    np.testing.assert_allclose(got, 0.64 * values["mean"] + 0.36 * values["x"].mean(0), atol=1e-6)


def test_statistics_that_this_step_does_not_move_are_used_as_they_are() -> None:
    values = {"x": normal(0, 5, 4), **per_channel(0, 4), "fixed": normal(2, 4), "var": np.ones(4, np.float32)}
    node = helper.make_node("BatchNormalization", list(values), ["y"], epsilon=0.0)
    got = stepped(node, values, ["x"], np.ones((5, 4), np.float32))
    due = values["scale"] * (values["x"] - values["fixed"]) + values["bias"]
    np.testing.assert_allclose(got["y"], due, atol=1e-5)
    assert not [n for n in got if n.endswith(":new")]


@quick
@given(seeds, st.sampled_from([-1, 1, 2, 3, -2]), epsilons, st.booleans(), st.booleans())
def test_layer_normalization(seed: int, axis: int, epsilon: float, bias: bool, batched: bool) -> None:
    shape = (2, 3, 4, 5)
    values = {"x": apart(seed, *shape), "scale": normal(seed, *shape[axis:])}
    if bias:
        values["bias"] = normal(seed + 1, *shape[axis:])
    node = helper.make_node("LayerNormalization", list(values), ["y"], axis=axis, epsilon=epsilon)
    check(node, values, list(values), batched=["x"] if batched else [])


@quick
@given(seeds, st.sampled_from([(5,), (1,), (4, 1), (1, 5), (4, 5)]), st.sampled_from([(5,), (1,), (4, 1)]))
def test_layer_normalization_with_a_scale_or_bias_that_is_broadcast(
    seed: int, scale: tuple[int, ...], bias: tuple[int, ...]
) -> None:
    values = {"x": apart(seed, 2, 3, 4, 5), "scale": normal(seed, *scale), "bias": normal(seed, *bias)}
    node = helper.make_node("LayerNormalization", list(values), ["y"], axis=2)
    check(node, values, list(values), batched=["x"])


@pytest.mark.torch
@quick
@given(seeds, st.sampled_from([1, 2, 3]), epsilons)
def test_layer_normalization_is_that_of_pytorch(seed: int, axis: int, epsilon: float) -> None:
    torch = pytest.importorskip("torch")
    shape = (2, 3, 4, 5)
    values = {"x": normal(seed, *shape), "scale": normal(seed, *shape[axis:])}
    values["bias"] = normal(seed + 1, *shape[axis:])
    node = helper.make_node("LayerNormalization", list(values), ["y"], axis=axis, epsilon=epsilon)
    dy = normal(seed + 2, *shape)
    got = stepped(node, values, list(values), dy)
    x, scale, bias = (torch.tensor(v).double().requires_grad_() for v in values.values())
    y = torch.nn.functional.layer_norm(x, shape[axis:], scale, bias, epsilon)
    y.backward(torch.tensor(dy).double())
    for name, due in {"y": y, "d/x": x.grad, "d/scale": scale.grad, "d/bias": bias.grad}.items():
        close(got[name], due)


@quick
@given(seeds, st.sampled_from([(2, 4, 5), (2, 3, 3, 2), (1, 2, 2, 2, 2)]), epsilons, st.booleans())
def test_instance_normalization(seed: int, shape: tuple[int, ...], epsilon: float, batched: bool) -> None:
    values = {"x": apart(seed, *shape), **per_channel(seed, shape[1])}
    node = helper.make_node("InstanceNormalization", list(values), ["y"], epsilon=epsilon)
    check(node, values, list(values), batched=["x"] if batched else [])


@pytest.mark.torch
@quick
@given(
    seeds,
    st.sampled_from([1, 2, 3, 6]),
    st.sampled_from([(5,), (3, 2), (2, 2, 2)]),
    epsilons,
    st.booleans(),
    st.booleans(),
)
def test_group_normalization(
    seed: int, groups: int, space: tuple[int, ...], epsilon: float, by_group: bool, double: bool
) -> None:
    """With a scale and a bias for each group, as at opset 18, or for each channel, as from opset 21 on.

    onnx cannot infer the operator's shape, and `check` needs that: PyTorch is what it is held to.
    """
    torch = pytest.importorskip("torch")
    values = {"x": normal(seed, 3, 6, *space), **per_channel(seed, groups if by_group else 6)}
    node = helper.make_node("GroupNormalization", list(values), ["y"], num_groups=groups, epsilon=epsilon)
    dy = normal(seed + 2, 3, 6, *space)
    got = stepped(node, values, list(values), dy, double=double)
    x, scale, bias = (torch.tensor(v).double().requires_grad_() for v in values.values())
    each = 6 // len(scale)
    wide = (scale.repeat_interleave(each), bias.repeat_interleave(each))
    y = torch.nn.functional.group_norm(x, groups, *wide, float(np.float32(epsilon)))
    y.backward(torch.tensor(dy).double())
    for name, due in {"y": y, "d/x": x.grad, "d/scale": scale.grad, "d/bias": bias.grad}.items():
        close(got[name], due, 1e-9 if double else 2e-5)


@pytest.mark.torch
@quick
@given(seeds, st.sampled_from([(3, 4, 6), (2, 3, 3, 2), (1, 2, 2, 2, 2)]), epsilons, st.booleans())
def test_instance_normalization_is_that_of_pytorch(
    seed: int, shape: tuple[int, ...], epsilon: float, double: bool
) -> None:
    torch = pytest.importorskip("torch")
    values = {"x": normal(seed, *shape), **per_channel(seed, shape[1])}
    node = helper.make_node("InstanceNormalization", list(values), ["y"], epsilon=epsilon)
    dy = normal(seed + 2, *shape)
    got = stepped(node, values, list(values), dy, double=double)
    x, scale, bias = (torch.tensor(v).double().requires_grad_() for v in values.values())
    y = torch.nn.functional.instance_norm(x, None, None, scale, bias, eps=float(np.float32(epsilon)))
    y.backward(torch.tensor(dy).double())
    for name, due in {"y": y, "d/x": x.grad, "d/scale": scale.grad, "d/bias": bias.grad}.items():
        close(got[name], due, 1e-9 if double else 2e-5)


@quick
@given(seeds, st.sampled_from([1, 2]), st.sampled_from([-1, 0, 1, 2]), st.booleans())
def test_lp_normalization(seed: int, p: int, axis: int, batched: bool) -> None:
    x = normal(seed, 2, 3, 4)
    x += np.sign(x) * np.float32(0.3)
    node = helper.make_node("LpNormalization", ["x"], ["y"], p=p, axis=axis)

    # The reference implementation forgets that the first norm is one of absolute values.
    def exact(feeds: Any) -> NDArray[np.float64]:
        y: NDArray[np.float64] = feeds["x"] / np.sum(np.abs(feeds["x"]) ** p, axis, keepdims=True) ** (1 / p)
        return y

    # Nor can it then run what the rule builds upon.
    check(node, {"x": x}, ["x"], batched=["x"] if batched else [], forward=exact, double=p == 2)


@pytest.mark.parametrize("p", [1, 2])
def test_a_vector_of_zeros_passes_no_gradient_on(p: int) -> None:
    node = helper.make_node("LpNormalization", ["x"], ["y"], p=p)
    got = stepped(node, {"x": np.zeros((2, 3), np.float32)}, ["x"], np.ones((2, 3), np.float32))
    assert not got["d/x"].any()


@quick
@given(seeds, st.sampled_from([[0, 2, 3], [0, 1, 2, 3], [1], [2, 3], [-1]]), st.booleans())
def test_mean_variance_normalization(seed: int, axes: list[int], batched: bool) -> None:
    node = helper.make_node("MeanVarianceNormalization", ["x"], ["y"], axes=axes)
    over = tuple(axes)

    def exact(feeds: Any) -> NDArray[np.float64]:
        centred = feeds["x"] - feeds["x"].mean(over, keepdims=True)
        y: NDArray[np.float64] = centred / (feeds["x"].std(over, keepdims=True) + 1e-9)
        return y

    x = apart(seed, 3, 3, 4, 3)
    check(node, {"x": x}, ["x"], batched=["x"] if batched else [], forward=exact)


@quick
@given(
    seeds,
    st.integers(1, 7),
    st.sampled_from([1e-4, 0.5, 2.0]),
    st.sampled_from([0.75, 0.5, 1.0]),
    st.sampled_from([1.0, 0.5]),
    st.booleans(),
)
def test_lrn(seed: int, size: int, alpha: float, beta: float, bias: float, batched: bool) -> None:
    attributes = {"size": size, "alpha": alpha, "beta": beta, "bias": bias}
    node = helper.make_node("LRN", ["x"], ["y"], **attributes)
    single = {n: float(np.float32(v)) for n, v in attributes.items()}

    def exact(feeds: Any) -> NDArray[np.float64]:
        x = feeds["x"]
        squares = np.stack(
            [(x[:, max(0, c - (size - 1) // 2) : c + size // 2 + 1] ** 2).sum(1) for c in range(5)], 1
        )
        y: NDArray[np.float64] = x / (single["bias"] + single["alpha"] / size * squares) ** single["beta"]
        return y

    check(node, {"x": normal(seed, 2, 5, 2, 3)}, ["x"], batched=["x"] if batched else [], forward=exact)
