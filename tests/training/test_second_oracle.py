"""Gradients of single operators by our rules and by onnx-ad, a differentiator written by others.

Central differences say whether a formula is right at a point; onnx-ad says the same of conventions, and is
itself held to central differences wherever the two disagree.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from gradient_check import check, rule_gradients
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, shape_inference

from laconic.training.assemble import IR_VERSION, OPSET
from laconic.training.rules import RULES
from often import examples

onnx_ad = pytest.importorskip("onnx_ad", reason="the dev extra brings onnx-ad")
lowered = pytest.importorskip("onnx_ad.lower").LOWERINGS
reversed_ = pytest.importorskip("onnx_ad.rules").REVERSE

LIMIT = 1e-5
"""The largest difference of an element, as a share of the gradient's largest (or of 1)."""

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Drawn:
    """Real numbers between two bounds."""

    shape: tuple[int, ...]
    low: float
    high: float


@dataclass(frozen=True)
class Case:
    """One node. Inputs that are drawn have their gradients compared; arrays are as they are."""

    op: str
    inputs: Mapping[str, Drawn | NDArray[Any] | None]
    attributes: Mapping[str, Any]
    outputs: Sequence[str] = ("y",)
    still: Sequence[str] = field(default=())

    @property
    def node(self) -> NodeProto:
        names = [n if v is not None else "" for n, v in self.inputs.items()]
        return helper.make_node(self.op, names, list(self.outputs), **self.attributes)

    @property
    def wanted(self) -> list[str]:
        return [n for n, v in self.inputs.items() if isinstance(v, Drawn) and n not in self.still]

    def values(self, seed: int) -> dict[str, NDArray[Any]]:
        rng = np.random.default_rng(seed)
        return {
            n: rng.uniform(v.low, v.high, v.shape).astype(np.float32) if isinstance(v, Drawn) else v
            for n, v in self.inputs.items()
            if v is not None
        }


def r(*shape: int) -> Drawn:
    """Of both signs."""
    return Drawn(shape, -2.0, 2.0)


def between(low: float, high: float, *shape: int) -> Drawn:
    return Drawn(shape, low, high)


def ints(*values: Any) -> NDArray[np.int64]:
    return np.array(values, np.int64)


def one(value: float) -> NDArray[np.float32]:
    return np.array(value, np.float32)


def case(op: str, inputs: Mapping[str, Drawn | NDArray[Any] | None], **attributes: Any) -> Case:
    return Case(op, inputs, attributes)


X = r(2, 3, 4)
POSITIVE = between(0.3, 2.5, 2, 3, 4)
INSIDE = between(-0.9, 0.9, 2, 3, 4)
IMAGE = r(2, 4, 6, 7)


def elementwise() -> Iterator[Case]:
    for op in [
        "Abs",
        "Atan",
        "Asinh",
        "Cos",
        "Cosh",
        "Erf",
        "Exp",
        "HardSwish",
        "Identity",
        "Mish",
        "Neg",
        "Relu",
    ]:
        yield case(op, {"x": X})
    for op in ["Sigmoid", "Sin", "Sinh", "Softplus", "Softsign", "Tanh"]:
        yield case(op, {"x": X})
    for op in ("Log", "Reciprocal", "Sqrt"):
        yield case(op, {"x": POSITIVE})
    for op in ("Acos", "Asin", "Atanh", "Tan"):
        yield case(op, {"x": INSIDE})
    yield case("Acosh", {"x": between(1.3, 3, 2, 3)})
    yield case("Cast", {"x": X}, to=TensorProto.FLOAT)
    yield case("CastLike", {"x": X, "like": one(0)})
    for alpha in (0.3, 1.7):
        for op in ("Celu", "Elu", "LeakyRelu", "ThresholdedRelu"):
            yield case(op, {"x": X}, alpha=alpha)
        yield case("Swish", {"x": X}, alpha=alpha)
    yield case("Gelu", {"x": X})
    yield case("Gelu", {"x": X}, approximate="tanh")
    yield case("HardSigmoid", {"x": X})
    yield case("HardSigmoid", {"x": X}, alpha=0.4, beta=0.3)
    yield case("Selu", {"x": X})
    yield case("Selu", {"x": X}, alpha=1.2, gamma=0.8)
    yield case("PRelu", {"x": X, "slope": r(3, 1)})
    yield case("PRelu", {"x": X, "slope": r(4)})
    yield case("Clip", {"x": X, "low": one(-0.7), "high": one(1.1)})
    yield case("Clip", {"x": X, "low": None, "high": one(0.4)})
    yield case("Dropout", {"x": X})


def several() -> Iterator[Case]:
    for other in ((2, 3, 4), (4,), (3, 1), (1, 3, 1), ()):
        for op in ("Add", "Sub", "Mul"):
            yield case(op, {"a": X, "b": r(*other)})
            yield case(op, {"a": r(*other), "b": X})
        yield case("Div", {"a": X, "b": between(0.4, 2, *other)})
        yield case("Pow", {"a": POSITIVE, "b": r(*other)})
        for op in ("Max", "Min", "Mean", "Sum"):
            yield case(op, {"a": X, "b": r(*other), "c": r(3, 4)})
        condition = np.arange(24).reshape(2, 3, 4) % 3 == 0
        yield case("Where", {"c": condition, "a": X, "b": r(*other)})
    for exponent in (2.0, 3.0, 0.5, -1.5):
        yield case("Pow", {"a": POSITIVE, "b": one(exponent)})


def products() -> Iterator[Case]:
    for a, b in (((3, 4), (4, 5)), ((2, 3, 4), (4, 5)), ((2, 3, 4), (2, 4, 5)), ((4,), (2, 4, 5))):
        yield case("MatMul", {"a": r(*a), "b": r(*b)})
    yield case("MatMul", {"a": r(2, 1, 3, 4), "b": r(5, 4, 2)})
    yield case("MatMul", {"a": r(2, 3, 4), "b": r(4)})
    for left in (0, 1):
        for right in (0, 1):
            a, b = (4, 3) if left else (3, 4), (5, 4) if right else (4, 5)
            for bias in ((5,), (3, 5), (3, 1), ()):
                how = {"transA": left, "transB": right, "alpha": 0.7, "beta": 1.3}
                yield case("Gemm", {"a": r(*a), "b": r(*b), "c": r(*bias)}, **how)
    yield case("Gemm", {"a": r(3, 4), "b": r(4, 5)})
    for equation, shapes in (
        ("ij,jk->ik", ((3, 4), (4, 5))),
        ("bhqd,bhkd->bhqk", ((2, 3, 4, 5), (2, 3, 6, 5))),
        ("bi,i->b", ((3, 4), (4,))),
        ("ij->ji", ((3, 4),)),
        ("bij->b", ((2, 3, 4),)),
        ("i,j->ij", ((3,), (4,))),
        ("...ij,...jk->...ik", ((2, 3, 4), (2, 4, 5))),
    ):
        yield case("Einsum", {f"x{i}": r(*s) for i, s in enumerate(shapes)}, equation=equation)


def convolutions() -> Iterator[Case]:
    for how in (
        {},
        {"pads": [1, 2, 0, 1]},
        {"strides": [2, 3], "pads": [1, 1, 1, 1]},
        {"dilations": [2, 1]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"auto_pad": "SAME_LOWER"},
        {"auto_pad": "VALID"},
    ):
        yield case("Conv", {"x": IMAGE, "w": r(5, 4, 3, 2), "b": r(5)}, **how)
        for groups, per_group, outputs in ((2, 2, 6), (4, 1, 8)):
            grouped = {"x": IMAGE, "w": r(outputs, per_group, 3, 2), "b": r(outputs)}
            yield case("Conv", grouped, group=groups, **how)
            yield Case("Conv", grouped, {"group": groups, **how}, still=("w",))
    yield case("Conv", {"x": r(2, 3, 9), "w": r(4, 3, 3)}, pads=[1, 1], strides=[2])
    yield case("Conv", {"x": r(1, 2, 4, 5, 4), "w": r(3, 2, 2, 2, 2)})
    for how in (
        {},
        {"pads": [1, 0, 1, 1]},
        {"strides": [2, 3]},
        {"strides": [2, 2], "output_padding": [1, 1]},
    ):
        for groups in (1, 2):
            inputs = {"x": r(2, 4, 3, 4), "w": r(4, 3, 3, 2), "b": r(3 * groups)}
            yield case("ConvTranspose", inputs, group=groups, **how)
            yield Case("ConvTranspose", inputs, {"group": groups, **how}, still=("w",))
    yield Case("ConvTranspose", {"x": r(2, 4, 6), "w": r(4, 3, 3)}, {"dilations": [2]}, still=("w",))


def pools() -> Iterator[Case]:
    for how in (
        {"kernel_shape": [2, 2], "strides": [2, 2]},
        {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 1, 1, 1]},
        {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
    ):
        yield case("MaxPool", {"x": IMAGE}, **how)
        yield case("AveragePool", {"x": IMAGE}, **how)
        yield case("AveragePool", {"x": IMAGE}, count_include_pad=1, **how)
        yield case("LpPool", {"x": IMAGE}, p=2, **how)
    yield case("MaxPool", {"x": r(2, 3, 9)}, kernel_shape=[3], strides=[2])
    yield case("AveragePool", {"x": r(2, 3, 9)}, kernel_shape=[3])
    for op in ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"):
        yield case(op, {"x": IMAGE})


def reductions() -> Iterator[Case]:
    names = ["L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"]
    for name in names:
        data = POSITIVE if name == "LogSum" else X
        for axes in ([0], [1, 2], [-1]):
            for keepdims in (0, 1):
                yield case(f"Reduce{name}", {"x": data, "axes": ints(*axes)}, keepdims=keepdims)
        yield case(f"Reduce{name}", {"x": data})
    for axis in (0, 1, -1):
        yield case("Softmax", {"x": X}, axis=axis)
        yield case("LogSoftmax", {"x": X}, axis=axis)
        for p in (1, 2):
            yield case("LpNormalization", {"x": X}, axis=axis, p=p)
        for exclusive in (0, 1):
            for reverse in (0, 1):
                how = {"exclusive": exclusive, "reverse": reverse}
                yield case("CumSum", {"x": X, "axis": np.array(axis, np.int64)}, **how)
    for largest in (0, 1):
        top = case("TopK", {"x": X, "k": ints(2)}, largest=largest, axis=1)
        yield Case(top.op, top.inputs, top.attributes, ("y", "i"))


def normalisations() -> Iterator[Case]:
    statistics = {"mean": r(4), "var": between(0.5, 2, 4)}
    inputs = {"x": IMAGE, "scale": r(4), "bias": r(4)}
    yield Case("BatchNormalization", {**inputs, **statistics}, {"epsilon": 1e-3}, still=("mean", "var"))
    yield case("InstanceNormalization", inputs, epsilon=1e-3)
    for axis, shape in ((-1, (4,)), (1, (3, 4))):
        yield case("LayerNormalization", {"x": X, "scale": r(*shape)}, axis=axis, epsilon=1e-3)
        yield case("LayerNormalization", {"x": X, "scale": r(*shape), "bias": r(*shape)}, axis=axis)
    yield case("LRN", {"x": IMAGE}, size=3, alpha=0.1, beta=0.6, bias=1.2)


def arrangements() -> Iterator[Case]:
    yield case("Concat", {"a": r(2, 3), "b": r(2, 4)}, axis=1)
    yield case("Concat", {"a": r(2, 3), "b": r(1, 3), "c": r(3, 3)}, axis=-2)
    for mode in ("DCR", "CRD"):
        yield case("DepthToSpace", {"x": r(2, 8, 3, 2)}, blocksize=2, mode=mode)
    yield case("SpaceToDepth", {"x": r(2, 2, 4, 6)}, blocksize=2)
    yield case("Expand", {"x": r(3, 1), "shape": ints(2, 3, 4)})
    for axis in (0, 1, 2):
        yield case("Flatten", {"x": X}, axis=axis)
        yield case("Gather", {"x": X, "i": ints([0, 1], [1, 0])}, axis=axis)
        yield case("GatherElements", {"x": X, "i": np.zeros((2, 3, 4), np.int64)}, axis=axis)
        yield case(
            "ScatterElements", {"x": X, "i": np.zeros((1, 1, 1), np.int64), "u": r(1, 1, 1)}, axis=axis
        )
        how = {"axis": axis, "reduction": "add"}
        yield case("ScatterElements", {"x": X, "i": np.zeros((2, 2, 2), np.int64), "u": r(2, 2, 2)}, **how)
    yield case("GatherND", {"x": X, "i": ints([0, 1], [1, 2], [0, 1])})
    yield case("GatherND", {"x": X, "i": ints([1], [0])}, batch_dims=1)
    yield case("ScatterND", {"x": X, "i": ints([0, 1], [1, 2]), "u": r(2, 4)})
    yield case("ScatterND", {"x": X, "i": ints([0, 1], [0, 1]), "u": r(2, 4)}, reduction="add")
    for mode in ("constant", "edge", "reflect"):
        yield case("Pad", {"x": X, "pads": ints(0, 1, 2, 0, 0, 1)}, mode=mode)
    yield case("Pad", {"x": X, "pads": ints(0, 1, 2, 0, 0, 1), "value": one(1.5)})
    yield case("Reshape", {"x": X, "shape": ints(0, -1)})
    yield case("Reshape", {"x": X, "shape": ints(4, 3, 2)})
    for batch, time in ((1, 0), (0, 1)):
        lengths = ints(*([2, 1, 2] if batch == 1 else [3, 1]))
        yield case("ReverseSequence", {"x": X, "n": lengths}, batch_axis=batch, time_axis=time)
    yield case("Slice", {"x": X, "s": ints(1, 0), "e": ints(3, 2), "a": ints(1, 2)})
    yield case("Slice", {"x": X, "s": ints(-1), "e": ints(-9), "a": ints(2), "t": ints(-2)})
    yield Case("Split", {"x": X, "n": ints(1, 3)}, {"axis": 2}, ("y", "z"))
    yield Case("Split", {"x": X}, {"axis": 2, "num_outputs": 2}, ("y", "z"))
    yield case("Squeeze", {"x": r(1, 3, 1), "axes": ints(0, -1)})
    yield case("Squeeze", {"x": r(1, 3, 1)})
    yield case("Unsqueeze", {"x": r(2, 3), "axes": ints(0, -1)})
    yield case("Tile", {"x": X, "n": ints(2, 1, 3)})
    yield case("Transpose", {"x": X})
    yield case("Transpose", {"x": X}, perm=[1, 2, 0])
    for upper in (0, 1):
        yield case("Trilu", {"x": r(2, 4, 5), "k": np.array(1, np.int64)}, upper=upper)
    scales = np.array([1, 1, 2, 2], np.float32)
    for mode, where in (
        ("nearest", "asymmetric"),
        ("nearest", "half_pixel"),
        ("linear", "half_pixel"),
        ("linear", "align_corners"),
        ("linear", "asymmetric"),
        ("cubic", "half_pixel"),
    ):
        how = {"mode": mode, "coordinate_transformation_mode": where}
        yield case("Resize", {"x": r(1, 2, 3, 4), "": None, "scales": scales}, **how)


def losses() -> Iterator[Case]:
    target = ints(0, 2, 1)
    for reduction in ("none", "sum", "mean"):
        yield case("SoftmaxCrossEntropyLoss", {"x": r(3, 4), "t": target}, reduction=reduction)
        yield case("NegativeLogLikelihoodLoss", {"x": r(3, 4), "t": target}, reduction=reduction)


def recurrent() -> Iterator[Case]:
    for op, gates in (("RNN", 1), ("GRU", 3), ("LSTM", 4)):
        for direction, ways in (("forward", 1), ("reverse", 1), ("bidirectional", 2)):
            inputs: dict[str, Drawn | NDArray[Any] | None] = {
                "x": r(3, 2, 4),
                "w": r(ways, gates * 3, 4),
                "r": r(ways, gates * 3, 3),
                "b": r(ways, 2 * gates * 3),
                "": None,
                "h": r(ways, 2, 3),
            }
            if op == "LSTM":
                inputs["c"] = r(ways, 2, 3)
            how = {"direction": direction, "hidden_size": 3}
            for more in ({}, {"linear_before_reset": 1}) if op == "GRU" else ({},):
                yield Case(op, inputs, {**how, **more})
                yield Case(op, inputs, {**how, **more}, ("", "y"))


FAMILIES = (
    *(elementwise, several, products, convolutions, pools, reductions),
    *(normalisations, arrangements, losses, recurrent),
)
CASES: dict[str, list[Case]] = {}
for _case in (c for family in FAMILIES for c in family()):
    CASES.setdefault(_case.op, []).append(_case)

FLAT = ("Ceil", "Floor", "Round", "Sign")

UNCOMPARED = {
    "EyeLike": "its output does not depend on what its input holds",
    "RandomNormalLike": "its output is random",
    "RandomUniformLike": "its output is random",
    "MeanVarianceNormalization": "onnx 1.23 finds its function body at opset 18 malformed",
}
"""Rules of ours that are not compared, and why."""

REFUSES = (
    "grouped Conv is not differentiated with respect to its weight",
    "ConvTranspose is not differentiated with respect to its weight",
    "with auto_pad=SAME_",
    "GatherND with batch_dims",
    "only constant-mode Pad",
    "Slice with a step other than 1",
)
"""What onnx-ad 0.3 says where it refuses a case of this table."""

WRONG = {
    "AveragePool, another padding at the end": case(
        "AveragePool", {"x": IMAGE}, kernel_shape=[2, 2], pads=[0, 0, 1, 1]
    ),
    "AveragePool, another padding at the end, counted": case(
        "AveragePool", {"x": IMAGE}, kernel_shape=[3, 2], pads=[1, 0, 1, 1], count_include_pad=1
    ),
    "LpPool, another padding at the end": case(
        "LpPool", {"x": IMAGE}, kernel_shape=[3, 2], pads=[1, 0, 1, 1], p=2
    ),
    "Pad that cuts": case("Pad", {"x": X, "pads": ints(0, -1, 2, 0, 0, -1)}),
}
"""What onnx-ad 0.3 gets wrong, by central differences, or makes an invalid graph of."""


def file_of(c: Case, values: Arrays) -> ModelProto:
    """A model of the node, all shapes in numbers: onnx-ad asks for that."""
    fed = [n for n in values if isinstance(c.inputs[n], Drawn)]
    graph = helper.make_graph(
        [c.node],
        "single",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, values[n].shape) for n in fed],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        initializer=[numpy_helper.from_array(a, n) for n, a in values.items() if n not in fed],
    )
    opset = {"Gelu": 20, "Swish": 24}.get(c.op, OPSET)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=IR_VERSION)
    return shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)


def by_onnx_ad(c: Case, values: Arrays, dy: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """The gradients of sum(y * dy); raises onnx-ad's own refusal."""
    model = file_of(c, values)
    del model.graph.value_info[:]
    adjoint = onnx_ad.reverse(model, inputs=c.wanted, outputs=["y"], layout="onnx")
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(adjoint.SerializeToString(), options, providers=["CPUExecutionProvider"])
    seeds = {"adj_y": dy[..., None]}
    feeds = {i.name: {**values, **seeds}[i.name] for i in session.get_inputs()}
    found = session.run([f"adj_{n}" for n in c.wanted], feeds)
    return {n: np.asarray(g)[..., 0] for n, g in zip(c.wanted, found, strict=True)}


def combination(c: Case, values: Arrays, seed: int) -> NDArray[np.float32]:
    """Factors of the output's elements, at random."""
    inferred = file_of(c, values).graph.output[0].type.tensor_type.shape
    shape = [d.dim_value for d in inferred.dim]
    return np.random.default_rng(seed + 1).standard_normal(shape).astype(np.float32)


def by_our_rules(c: Case, values: Arrays, dy: NDArray[Any]) -> dict[str, NDArray[Any]]:
    constant = [n for n in values if not isinstance(c.inputs[n], Drawn)]
    return rule_gradients([c.node], values, dy, c.wanted, constant=constant)


def distance(a: NDArray[Any], b: NDArray[Any]) -> float:
    assert a.shape == b.shape
    return float(np.max(np.abs(a - b), initial=0)) / max(1.0, float(np.max(np.abs(a), initial=0)))


@pytest.mark.parametrize("op", CASES)
@settings(max_examples=examples(2), deadline=None)
@given(seed=st.integers(0, 2**16))
def test_both_give_the_same_gradients(op: str, seed: int) -> None:
    compared = 0
    for c in CASES[op]:
        values = c.values(seed)
        dy = combination(c, values, seed)
        try:
            theirs = by_onnx_ad(c, values, dy)
        except onnx_ad.UnsupportedOperator as e:
            if not any(why in str(e) for why in REFUSES):
                raise
            continue
        ours = by_our_rules(c, values, dy)
        for name in c.wanted:
            assert distance(ours[name], theirs[name]) <= LIMIT, (c, name)
        compared += 1
    assert compared


@pytest.mark.parametrize("op", FLAT)
def test_both_find_no_gradient_where_a_function_is_flat(op: str) -> None:
    c = case(op, {"x": X})
    values = c.values(0)
    dy = combination(c, values, 0)
    assert not by_onnx_ad(c, values, dy)["x"].any()
    with pytest.raises(KeyError):
        by_our_rules(c, values, dy)


def _cut(feeds: Arrays) -> NDArray[np.float64]:
    """Pad that cuts, which the reference implementation does not know."""
    return np.pad(feeds["x"][:, 1:, :-1], ((0, 0), (0, 0), (2, 0)))


@pytest.mark.parametrize("name", WRONG)
def test_where_the_two_differ_central_differences_agree_with_ours(name: str) -> None:
    c = WRONG[name]
    values = c.values(0)
    cut = name == "Pad that cuts"
    check([c.node], values, c.wanted, forward=_cut if cut else None)
    dy = combination(c, values, 0)
    try:
        theirs = by_onnx_ad(c, values, dy)
    except Exception as e:  # onnxruntime's exceptions share no base below Exception
        if not cut or "Incompatible dimensions" not in str(e):
            raise
        return
    # Once this fails, onnx-ad has been mended: the case belongs in the table above.
    assert max(distance(g, theirs[n]) for n, g in by_our_rules(c, values, dy).items()) > 100 * LIMIT


def test_every_rule_that_both_have_is_compared() -> None:
    both = set(RULES) & {*reversed_, *lowered, "RNN", "GRU", "LSTM"}
    assert both - set(CASES) - set(FLAT) == set(UNCOMPARED) & both
    assert set(CASES) <= set(RULES)
