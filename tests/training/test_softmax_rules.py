"""Laws of Softmax and of the losses that are operators."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gradient_check import check, rule_gradients
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper

from often import examples

COVERED: dict[str, str] = {
    "LogSoftmax": "test_softmax",
    "NegativeLogLikelihoodLoss": "test_losses",
    "Softmax": "test_softmax",
    "SoftmaxCrossEntropyLoss": "test_losses",
}

quick = settings(max_examples=examples(20), deadline=None)
seeds = st.integers(0, 2**16)


def normal(seed: int, *shape: int) -> NDArray[np.float32]:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


@quick
@given(
    seeds,
    st.sampled_from(["Softmax", "LogSoftmax"]),
    st.sampled_from([None, -1, 0, 1, 2, -2]),
    st.booleans(),
)
def test_softmax(seed: int, op_type: str, axis: int | None, batched: bool) -> None:
    node = helper.make_node(op_type, ["x"], ["y"], **({} if axis is None else {"axis": axis}))
    check(node, {"x": normal(seed, 2, 3, 4)}, ["x"], batched=["x"] if batched else [])


def test_a_shift_of_all_inputs_passes_no_gradient() -> None:
    """Also where the inputs are so large that their exponentials are not numbers."""
    x = normal(0, 3, 5) * 100 + 1000
    found = rule_gradients([helper.make_node("Softmax", ["x"], ["y"])], {"x": x}, normal(1, 3, 5), ["x"])
    np.testing.assert_allclose(found["x"].sum(-1), 0, atol=1e-6)


def drawn(
    seed: int, space: tuple[int, ...], ignored: int | None, weighted: bool, kind: str
) -> dict[str, Any]:
    """Scores of four classes, labels of which some are to be ignored, and class weights."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, (3, *space))
    if ignored is not None:
        labels[rng.random(labels.shape) < 0.4] = ignored
    values: dict[str, Any] = {"x": normal(seed, 3, 4, *space), "labels": labels.astype(kind)}
    if weighted:
        values["weights"] = rng.uniform(0.5, 2, 4).astype(np.float32)
    return values


@settings(max_examples=examples(40), deadline=None)
@given(
    seed=seeds,
    op_type=st.sampled_from(["SoftmaxCrossEntropyLoss", "NegativeLogLikelihoodLoss"]),
    space=st.sampled_from([(), (2,), (2, 3)]),
    reduction=st.sampled_from([None, "mean", "sum", "none"]),
    ignored=st.sampled_from([None, 0, 3, -1, -100, 255]),
    weighted=st.booleans(),
    kind=st.sampled_from(["int64", "int32"]),
)
def test_losses(
    seed: int,
    op_type: str,
    space: tuple[int, ...],
    reduction: str | None,
    ignored: int | None,
    weighted: bool,
    kind: str,
) -> None:
    values = drawn(seed, space, ignored, weighted, kind)
    x, labels = values["x"], values["labels"]
    counted = labels != ignored if ignored is not None else np.ones(labels.shape, bool)
    assume(counted.any())
    attributes: dict[str, Any] = {} if reduction is None else {"reduction": reduction}
    if ignored is not None:
        attributes["ignore_index"] = ignored
    node = helper.make_node(op_type, list(values), ["y"], **attributes)

    def exact(feeds: Any) -> NDArray[np.float64]:
        scores = feeds["x"]
        if op_type == "SoftmaxCrossEntropyLoss":
            scores = scores - np.log(np.exp(scores).sum(1, keepdims=True))
        known = np.where(counted, labels, 0).astype(np.int64)
        share = counted * (values["weights"][known].astype(np.float64) if weighted else 1.0)
        each = -np.take_along_axis(scores, known[:, None], 1)[:, 0] * share
        if reduction == "none":
            return np.asarray(each)
        return np.asarray(each.sum() / (1.0 if reduction == "sum" else share.sum()))

    check(node, {"x": x, **{n: v for n, v in values.items() if n != "x"}}, ["x"], forward=exact)


@pytest.mark.torch
@quick
@given(seeds, st.sampled_from([(), (2, 3)]), st.sampled_from(["mean", "sum", "none"]), st.booleans())
def test_cross_entropy_is_that_of_pytorch(
    seed: int, space: tuple[int, ...], reduction: str, weighted: bool
) -> None:
    torch = pytest.importorskip("torch")
    values = drawn(seed, space, -100, weighted, "int64")
    assume((values["labels"] != -100).any())
    node = helper.make_node(
        "SoftmaxCrossEntropyLoss", list(values), ["y"], reduction=reduction, ignore_index=-100
    )
    x, labels, *weights = (torch.tensor(v) for v in values.values())
    x = x.double().requires_grad_()
    weight = weights[0].double() if weights else None
    y = torch.nn.functional.cross_entropy(x, labels, weight, reduction=reduction)
    dy = normal(seed + 1, *y.shape)
    y.backward(torch.tensor(dy).double())
    found = rule_gradients([node], values, dy, ["x"])["x"]
    np.testing.assert_allclose(found, x.grad.numpy(), atol=1e-6)


@quick
@given(seeds, st.booleans())
def test_the_second_output_of_cross_entropy_carries_a_gradient_too(seed: int, loss_too: bool) -> None:
    """The logarithms of the probabilities, on their own and together with the loss."""
    values = drawn(seed, (), None, False, "int64")
    nodes = [helper.make_node("SoftmaxCrossEntropyLoss", ["x", "labels"], ["loss", "log_p"])]
    nodes.append(
        helper.make_node("Add" if loss_too else "Identity", ["log_p", "loss"][: 1 + loss_too], ["y"])
    )

    def exact(feeds: Any) -> NDArray[np.float64]:
        log_p = feeds["x"] - np.log(np.exp(feeds["x"]).sum(1, keepdims=True))
        loss = -np.take_along_axis(log_p, values["labels"][:, None], 1).mean()
        return np.asarray(log_p + loss if loss_too else log_p)

    check(nodes, values, ["x"], forward=exact)
