"""Laws of the exact evaluator: its operators agree with onnxruntime, and keep the precision of inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, RuntimeException

from laconic.training.assemble import IR_VERSION, OPSET
from laconic.training.exact import OPERATORS, evaluator
from often import examples

quick = settings(max_examples=examples(60), deadline=None)
seeds = st.integers(0, 2**16)
AUTOMATIC = ["NOTSET", "NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]


def by_onnxruntime(node: NodeProto, values: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
    element = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info(n, element[str(a.dtype)], a.shape) for n, a in values.items()],
        [
            helper.make_tensor_value_info(o, TensorProto.INT64 if o == "i" else TensorProto.FLOAT, None)
            for o in node.output
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, values))


def agree(node: NodeProto, values: dict[str, NDArray[Any]]) -> None:
    try:
        due = by_onnxruntime(node, values)
    except (Fail, InvalidArgument, RuntimeException):
        reject()  # onnxruntime takes less than the specification: some paddings and empty results.
    found: Any = evaluator(node).run(None, values)
    real = due[0] > np.finfo(np.float32).min  # A window that sees nothing but padding has no place.
    for got, wanted in zip(found, due, strict=True):
        assert got.dtype == wanted.dtype
        assert got.shape == wanted.shape
        np.testing.assert_allclose(got[real], wanted[real], rtol=1e-4, atol=1e-5)
    double = {n: a.astype(np.float64) if a.dtype == np.float32 else a for n, a in values.items()}
    found = evaluator(node).run(None, double)
    assert all(a.dtype in (np.float64, np.int64) for a in found)


def normal(seed: int, *shape: int) -> NDArray[np.float32]:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


@st.composite
def windows(draw: st.DrawFn, pooling: bool = True) -> dict[str, Any]:
    rank = draw(st.sampled_from([1, 2, 2, 3]))

    def each(low: int, high: int) -> list[int]:
        return draw(st.lists(st.integers(low, high), min_size=rank, max_size=rank))

    kernel, size = each(1, 3), each(1, 7)
    found: dict[str, Any] = {"kernel_shape": kernel, "strides": each(1, 3), "dilations": each(1, 2)}
    automatic = draw(st.sampled_from(AUTOMATIC))
    pads = [min(p, k - 1) for p, k in zip(each(0, 2) + each(0, 2), kernel * 2, strict=True)]
    found |= {"pads": pads} if automatic == "NOTSET" else {"auto_pad": automatic}
    room = [s + (b + a) * (automatic == "NOTSET") for s, b, a in zip(size, pads, pads[rank:], strict=False)]
    extent = [d * (k - 1) + 1 for d, k in zip(found["dilations"], kernel, strict=True)]
    assume(automatic.startswith("SAME") or all(r >= e for r, e in zip(room, extent, strict=True)))
    if pooling and automatic.startswith("SAME"):
        # Here onnxruntime forgets the dilation when it pads, and crops where a stride passes over elements.
        found["dilations"] = [1] * rank
        found["strides"] = [min(s, k + 1) for s, k in zip(found["strides"], kernel, strict=True)]
    return {"size": size, "attributes": found}


@quick
@given(
    seeds,
    windows(pooling=False),
    st.sampled_from([(1, 1), (1, 3), (2, 1), (2, 2), (4, 1), (4, 2)]),
    st.booleans(),
)
def test_conv(seed: int, drawn: dict[str, Any], groups: tuple[int, int], bias: bool) -> None:
    group, multiplier = groups
    values = {
        "x": normal(seed, 2, 4, *drawn["size"]),
        "w": normal(seed, 4 * multiplier, 4 // group, *drawn["attributes"]["kernel_shape"]),
    }
    if bias:
        values["b"] = normal(seed, 4 * multiplier)
    agree(helper.make_node("Conv", list(values), ["y"], group=group, **drawn["attributes"]), values)


@quick
@given(
    seeds,
    windows(pooling=False),
    st.sampled_from([1, 2, 4]),
    st.integers(1, 2),
    st.booleans(),
    st.lists(st.integers(0, 2), min_size=3, max_size=3),
    st.one_of(st.none(), st.lists(st.integers(-2, 2), min_size=3, max_size=3)),
)
def test_conv_transpose(
    seed: int,
    drawn: dict[str, Any],
    group: int,
    multiplier: int,
    bias: bool,
    extra: list[int],
    change: list[int] | None,
) -> None:
    size, attributes = drawn["size"], dict(drawn["attributes"])
    values = {
        "x": normal(seed, 2, 4, *size),
        "w": normal(seed, 4, multiplier, *attributes["kernel_shape"]),
    }
    if bias:
        values["b"] = normal(seed, group * multiplier)
    limits = zip(extra, attributes["strides"], attributes["dilations"], strict=False)
    attributes["output_padding"] = [min(e, max(s, d) - 1) for e, s, d in limits]
    if change is not None:
        attributes["output_shape"] = [
            n * s + c for n, s, c in zip(size, attributes["strides"], change, strict=False)
        ]
        assume(min(attributes["output_shape"]) > 0)
    agree(helper.make_node("ConvTranspose", list(values), ["y"], group=group, **attributes), values)


@quick
@given(seeds, windows(), st.booleans(), st.booleans(), st.booleans(), st.booleans())
def test_max_pool(
    seed: int, drawn: dict[str, Any], ceil: bool, places: bool, column_major: bool, few: bool
) -> None:
    x = normal(seed, 2, 3, *drawn["size"])
    if few:
        x = np.sign(x)
    node = helper.make_node(
        "MaxPool",
        ["x"],
        ["y", "i"] if places else ["y"],
        ceil_mode=int(ceil),
        storage_order=int(column_major),
        **drawn["attributes"],
    )
    agree(node, {"x": x})


@quick
@given(seeds, windows(), st.booleans(), st.booleans())
def test_average_pool(seed: int, drawn: dict[str, Any], ceil: bool, padding: bool) -> None:
    attributes = {n: v for n, v in drawn["attributes"].items() if n != "dilations"}
    attributes |= {"ceil_mode": int(ceil), "count_include_pad": int(padding)}
    agree(
        helper.make_node("AveragePool", ["x"], ["y"], **attributes), {"x": normal(seed, 2, 3, *drawn["size"])}
    )


@quick
@given(seeds, windows(), st.booleans(), st.integers(1, 4))
def test_lp_pool(seed: int, drawn: dict[str, Any], ceil: bool, p: int) -> None:
    node = helper.make_node("LpPool", ["x"], ["y"], ceil_mode=int(ceil), p=p, **drawn["attributes"])
    agree(node, {"x": normal(seed, 2, 3, *drawn["size"])})


@quick
@given(seeds, st.lists(st.integers(1, 4), min_size=1, max_size=3), st.integers(1, 4))
def test_global_pools(seed: int, size: list[int], p: int) -> None:
    values = {"x": normal(seed, 2, 3, *size)}
    agree(helper.make_node("GlobalAveragePool", ["x"], ["y"]), values)
    agree(helper.make_node("GlobalMaxPool", ["x"], ["y"]), values)
    agree(helper.make_node("GlobalLpPool", ["x"], ["y"], p=p), values)


@quick
@given(seeds)
def test_erf(seed: int) -> None:
    agree(helper.make_node("Erf", ["x"], ["y"]), {"x": normal(seed, 3, 4)})


def test_erf_has_all_digits() -> None:
    """Abramowitz & Stegun (1964), table 7.1."""
    erf = evaluator(helper.make_node("Erf", ["x"], ["y"]))
    found = np.asarray(next(iter(erf.run(None, {"x": np.array([0.5, 1.0])}))))
    np.testing.assert_allclose(found, [0.5204998778, 0.8427007929], atol=1e-10)


@pytest.mark.parametrize("operator", [o.__name__ for o in OPERATORS])
def test_every_operator_is_held_to_onnxruntime(operator: str) -> None:
    assert f'make_node("{operator}"' in Path(__file__).read_text().replace("(\n        ", "(")
