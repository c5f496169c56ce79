"""Laws of Dropout: what is dropped, what is kept, and that the gradient takes the same way."""

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
from onnx import TensorProto, helper

from laconic.errors import ModelError
from laconic.training.assemble import assemble, model
from laconic.training.backward import gradients
from laconic.training.builder import BATCH, GraphBuilder, TensorType
from laconic.training.forward import lay
from laconic.training.rules import Training
from often import examples

COVERED: dict[str, str] = {"Dropout": "test_dropout"}

quick = settings(max_examples=examples(20), deadline=None)
shapes = st.sampled_from([(5,), (4, 7), (3, 4, 5), (2, 3, 4, 4)])
FLOAT = TensorProto.FLOAT


def trained(
    ratio: Any, x: NDArray[np.float32], seed: int, inputs: Sequence[str] = ("x", "ratio")
) -> dict[str, NDArray[Any]]:
    """Output, mask and gradient (for dy = 1) of one Dropout in a training step."""
    shape = (BATCH, *x.shape[1:])
    kind = TensorType(FLOAT, shape)
    node = helper.make_node("Dropout", inputs, ["y", "mask"])
    g = GraphBuilder((), {"x": kind, "y": kind, "mask": TensorType(TensorProto.BOOL, shape)})
    if ratio is not None:
        g.constants["ratio"] = np.asarray(ratio, np.float32)
    g.declare("seed", TensorProto.INT64, ())
    g.declare("dy", FLOAT, shape)
    saved = lay(g, [node], Training((), {}, lambda: "seed"))
    found = gradients(g, [node], {"y": "dy"}, ["x"], saved)
    results = {"y": ("y", kind), "mask": ("mask", g.types["mask"]), "dx": (found["x"], kind)}
    session = ort.InferenceSession(model(assemble(g, "step", ["x", "dy", "seed"], results)))
    feeds = {"x": x, "dy": np.ones_like(x), "seed": np.array(seed)}
    # A ratio of 0 or 1 leaves nothing to draw: the seed is then asked for by nobody.
    names = [i.name for i in session.get_inputs()]
    got = session.run(list(results), {n: feeds[n] for n in names})
    return dict(zip(results, got, strict=True))


@quick
@given(st.integers(0, 2**16), shapes, st.booleans(), st.sampled_from([None, 0.0, 0.3]))
def test_dropout(seed: int, shape: tuple[int, ...], batched: bool, ratio: float | None) -> None:
    """In evaluation it is the identity, whatever the node says of training."""
    x = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    ratio = [] if ratio is None else [helper.make_node("Constant", [], ["ratio"], value_float=ratio)]
    training = helper.make_node("Constant", [], ["on"], value=helper.make_tensor("on", 9, [], [True]))
    inputs = ["x", "ratio" if ratio else "", "on"]
    nodes = [*ratio, training, helper.make_node("Dropout", inputs, ["y"])]
    check(nodes, {"x": x}, ["x"], batched=["x"] if batched else [], forward=lambda feeds: feeds["x"])


@quick
@given(st.integers(-(2**63), 2**63 - 1), shapes, st.floats(0.01, 0.99))
def test_what_is_kept_is_scaled_and_the_gradient_takes_the_same_way(
    seed: int, shape: tuple[int, ...], ratio: float
) -> None:
    x = np.random.default_rng(seed % 97).normal(size=shape).astype(np.float32)
    got = trained(ratio, x, seed)
    scale = np.float32(1 / (1 - np.float64(np.float32(ratio))))
    assert set(np.unique(got["dx"])) <= {np.float32(0), scale}
    np.testing.assert_array_equal(got["y"], x * got["dx"])
    np.testing.assert_array_equal(got["mask"], got["dx"] > 0)


@pytest.mark.parametrize(
    ("ratio", "inputs", "due"), [(None, ("x",), 0.5), (None, ("x", ""), 0.5), (0.1, ("x", "ratio"), 0.1)]
)
def test_the_share_that_is_dropped_is_the_ratio(
    ratio: float | None, inputs: Sequence[str], due: float
) -> None:
    got = trained(ratio, np.ones((256, 512), np.float32), 5, inputs)
    deviation = np.sqrt(due * (1 - due) / got["mask"].size)
    assert abs(got["mask"].mean() - (1 - due)) < 5 * deviation


def test_ratio_zero_keeps_all_and_ratio_one_nothing() -> None:
    x = np.arange(1, 7, dtype=np.float32).reshape(2, 3)
    all_kept, none_kept = trained(0.0, x, 1), trained(1.0, x, 1)
    np.testing.assert_array_equal(all_kept["y"], x)
    np.testing.assert_array_equal(all_kept["dx"], np.ones_like(x))
    assert all_kept["mask"].all()
    assert not none_kept["y"].any()
    assert not none_kept["dx"].any()
    assert not none_kept["mask"].any()


@pytest.mark.parametrize("ratio", [-0.5, 1.5, float("nan"), [0.5, 0.5]])
def test_a_ratio_that_is_no_share_is_refused(ratio: Any) -> None:
    with pytest.raises(ModelError, match="ratio of Dropout"):
        trained(ratio, np.ones((2, 2), np.float32), 1)


def test_a_ratio_that_is_computed_is_refused() -> None:
    with pytest.raises(ModelError, match="constant"):
        trained(None, np.ones((2, 2), np.float32), 1)
