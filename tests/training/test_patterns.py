"""Laws of the recognition of composites: nothing changes in value, and what has another use stays."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, shape_inference

from laconic.training.assemble import assemble, model
from laconic.training.builder import BATCH, GraphBuilder, TensorType, value_info
from laconic.training.forward import lay
from laconic.training.inferred import tensor_types
from laconic.training.patterns import recognised
from laconic.training.source import load
from often import examples

Arrays = Mapping[str, NDArray[Any]]
Draw = Callable[[st.SearchStrategy[Any]], Any]
WIDTH = 6
SHAPE = (BATCH, 3, WIDTH)


class Formula:
    """Writes a formula down node by node, its operands in any order."""

    def __init__(self, draw: Draw | None = None) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, NDArray[Any]] = {}
        self.draw = draw

    def __call__(self, op_type: str, *inputs: str | float, **attributes: Any) -> str:
        names = [i if isinstance(i, str) else self.number(i) for i in inputs]
        if op_type in ("Add", "Mul") and self.draw is not None and self.draw(st.booleans()):
            names.reverse()
        if op_type == "Add" and self.draw is not None and self.draw(st.booleans()):
            op_type = "Sum"
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, names, [name], name=f"node {name}", **attributes))
        return name

    def number(self, value: float) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.array(value, np.float32)
        return name

    def ints(self, *values: int) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.array(values, np.int64)
        return name

    def product(self, *factors: str | float) -> str:
        """All factors in any order, any grouping; a number may be divided by instead."""
        rest = list(factors)
        while len(rest) > 1:
            i, j = self.pair(len(rest))
            a, b = rest[i], rest[j]
            if isinstance(a, float) and isinstance(b, float):
                made: str | float = a * b
            elif isinstance(b, float) and self.draw is not None and self.draw(st.booleans()):
                made = self("Div", a, 1 / b)
            else:
                made = self("Mul", a, b)
            rest = [r for k, r in enumerate(rest) if k not in (i, j)] + [made]
        assert isinstance(rest[0], str)
        return rest[0]

    def pair(self, count: int) -> tuple[int, int]:
        if self.draw is None:
            return 0, 1
        i = self.draw(st.integers(0, count - 1))
        j = (i + self.draw(st.integers(1, count - 1))) % count
        return i, j


def exact_gelu(f: Formula, x: str) -> str:
    risen = f("Add", f("Erf", f.product(x, math.sqrt(0.5))), 1.0)
    return f.product(x, risen, 0.5)


def tanh_gelu(f: Formula, x: str) -> str:
    cubic = f.draw is not None and f.draw(st.booleans())
    cube = f("Pow", x, 3.0) if cubic else f.product(x, x, x)
    inner = f("Add", x, f.product(cube, 0.044715))
    return f.product(x, f("Add", f("Tanh", f.product(inner, math.sqrt(2 / math.pi))), 1.0), 0.5)


def factored_tanh_gelu(f: Formula, x: str) -> str:
    k = math.sqrt(2 / math.pi)
    inner = f.product(x, f("Add", k, f.product(x, x, 0.044715 * k)))
    return f.product(x, f("Add", f.product(f("Tanh", inner), 0.5), 0.5))


def hard_swish(f: Formula, x: str) -> str:
    return f.product(x, f("Clip", f("Add", x, 3.0), f.number(0.0), f.number(6.0)), 1 / 6)


def gated_hard_swish(f: Formula, x: str) -> str:
    return f.product(x, f("HardSigmoid", x, alpha=1 / 6, beta=0.5))


def hard_sigmoid(f: Formula, x: str) -> str:
    return f.product(f("Clip", f("Add", x, 3.0), f.number(0.0), f.number(6.0)), 1 / 6)


def logistic(f: Formula, x: str) -> str:
    return f("Div", 1.0, f("Add", f("Exp", f("Neg", x)), 1.0))


def reciprocal_logistic(f: Formula, x: str) -> str:
    return f("Reciprocal", f("Add", 1.0, f("Exp", f("Mul", x, -1.0))))


def mish(f: Formula, x: str) -> str:
    return f("Mul", x, f("Tanh", f("Softplus", x)))


def swish(f: Formula, x: str) -> str:
    return f("Mul", x, f("Sigmoid", x))


def mean(f: Formula, x: str) -> str:
    return f("ReduceMean", x, f.ints(-1))


def layer_normalization(f: Formula, x: str) -> str:
    """As PyTorch up to opset 16 writes it; numerator and square from one difference, or one each."""
    average = mean(f, x)
    above = below = f("Sub", x, average)
    draw = f.draw or (lambda _: False)
    if draw(st.booleans()):
        below = f("Sub", x, average)
    square = f("Mul", below, below) if draw(st.booleans()) else f("Pow", below, 2.0)
    shifted = f("Add", mean(f, square), 1e-5)
    way = draw(st.sampled_from(["Div", "Reciprocal", "One", "Pow"])) or "Div"
    if way == "Div":
        y = f("Div", above, f("Sqrt", shifted))
    elif way == "Pow":
        y = f("Mul", above, f("Pow", shifted, -0.5))
    else:
        root = f("Sqrt", shifted)
        y = f("Mul", above, f("Reciprocal", root) if way == "Reciprocal" else f("Div", 1.0, root))
    if f.draw is None or draw(st.booleans()):
        y = f("Mul", y, "scale")
    if f.draw is None or draw(st.booleans()):
        y = f("Add", y, "bias")
    return y


def keras_layer_normalization(f: Formula, x: str) -> str:
    """Multiplied out: x (r scale) + (bias - mean (r scale)); the variance perhaps as mean(x^2) - mean^2."""
    average = mean(f, x)
    if f.draw is not None and f.draw(st.booleans()):
        var = f("Sub", mean(f, f("Mul", x, x)), f("Mul", average, average))
    else:
        difference = f("Sub", x, average)
        var = mean(f, f("Mul", difference, difference))
    root = f("Sqrt", f("Add", var, 1e-3))
    factor = f("Mul", f("Reciprocal", root), "scale")
    return f("Add", f("Mul", x, factor), f("Sub", "bias", f("Mul", average, factor)))


FORMULAS: dict[Callable[[Formula, str], str], str] = {
    exact_gelu: "Gelu",
    tanh_gelu: "Gelu",
    factored_tanh_gelu: "Gelu",
    hard_swish: "HardSwish",
    gated_hard_swish: "HardSwish",
    hard_sigmoid: "HardSigmoid",
    logistic: "Sigmoid",
    reciprocal_logistic: "Sigmoid",
    mish: "Mish",
    swish: "Swish",
    layer_normalization: "LayerNormalization",
    keras_layer_normalization: "LayerNormalization",
}

formulas = st.sampled_from(list(FORMULAS))


def described(f: Formula, results: Sequence[str]) -> tuple[dict[str, TensorType], dict[str, NDArray[Any]]]:
    """Types by shape inference; weights of a normalisation are inputs."""
    graph = helper.make_graph(
        f.nodes,
        "formula",
        [value_info("x", TensorProto.FLOAT, SHAPE), *(value_info(n, 1, (WIDTH,)) for n in ("scale", "bias"))],
        [value_info(n, TensorProto.FLOAT, None) for n in results],
        initializer=[
            helper.make_tensor(n, 1 if a.dtype == np.float32 else 7, a.shape, a.ravel().tolist())
            for n, a in f.constants.items()
        ],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return tensor_types(
        shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True).graph
    ), f.constants


def values_of(
    nodes: Sequence[NodeProto], types: Mapping[str, TensorType], constants: Arrays, results: Sequence[str]
) -> list[NDArray[np.float32]]:
    g = GraphBuilder((), types, constants)
    lay(g, nodes)
    inputs = ["x", "scale", "bias"]
    file = model(assemble(g, "formula", inputs, {f"out/{n}": (n, types[n]) for n in results}))
    rng = np.random.default_rng(0)
    feeds = {
        "x": rng.normal(0, 3, (4, 3, WIDTH)),
        "scale": rng.normal(size=WIDTH),
        "bias": rng.normal(size=WIDTH),
    }
    found: list[NDArray[np.float32]] = ort.InferenceSession(file).run(
        None, {n: v.astype(np.float32) for n, v in feeds.items()}
    )
    return found


def kinds(nodes: Sequence[NodeProto]) -> list[str]:
    return [n.op_type for n in nodes if n.op_type != "Constant"]


@settings(max_examples=examples(150), deadline=None)
@given(formulas, st.data())
def test_a_formula_in_any_order_is_one_operator_of_the_same_value(
    formula: Callable[[Formula, str], str], data: st.DataObject
) -> None:
    f = Formula(data.draw)
    before = f("Add", f("Mul", "x", 1.5), 0.25) if data.draw(st.booleans()) else "x"
    y = formula(f, before)
    if data.draw(st.booleans()):
        y = f("Mul", f("Add", y, before), 2.0)
    types, constants = described(f, [y])
    nodes = recognised(f.nodes, types, constants, ["scale", "bias"], [y])
    around = [k for k in kinds(nodes) if k not in ("Add", "Mul", "Sum")]
    assert around == [FORMULAS[formula]]
    assert len(kinds(nodes)) <= 5
    for found, due in zip(
        values_of(nodes, types, constants, [y]), values_of(f.nodes, types, constants, [y]), strict=True
    ):
        np.testing.assert_allclose(found, due, rtol=1e-5, atol=2e-5)


@settings(max_examples=examples(60), deadline=None)
@given(formulas, st.data())
def test_what_has_another_use_stays(formula: Callable[[Formula, str], str], data: st.DataObject) -> None:
    """Whether as an output of the graph, or as the input of a further node."""
    f = Formula()
    y = formula(f, "x")
    inner = data.draw(st.sampled_from([n.output[0] for n in f.nodes if n.output[0] != y]))
    results = [y, inner]
    if data.draw(st.booleans()):
        results = [y, f("Exp", f("Neg", f("Abs", inner)))]
    types, constants = described(f, results)
    nodes = recognised(f.nodes, types, constants, ["scale", "bias"], results)
    made = {o for node in nodes for o in node.output}
    assert {i for node in nodes for i in node.input if i} <= made | constants.keys() | {"x", "scale", "bias"}
    assert set(results) <= made
    for found, due in zip(
        values_of(nodes, types, constants, results),
        values_of(f.nodes, types, constants, results),
        strict=True,
    ):
        np.testing.assert_allclose(found, due, rtol=1e-5, atol=2e-5)


@settings(max_examples=examples(60), deadline=None)
@given(formulas, st.data())
def test_a_constant_that_is_another_one_makes_another_formula(
    formula: Callable[[Formula, str], str], data: st.DataObject
) -> None:
    f = Formula()
    y = formula(f, "x")
    numbers = [n for n, a in f.constants.items() if a.dtype == np.float32]
    if not numbers:
        return
    changed = data.draw(st.sampled_from(numbers))
    f.constants[changed] = f.constants[changed] * np.float32(1.01) + np.float32(0.01)
    if f.constants[changed] == -0.5:
        return
    types, constants = described(f, [y])
    nodes = recognised(f.nodes, types, constants, ["scale", "bias"], [y])
    for found, due in zip(
        values_of(nodes, types, constants, [y]), values_of(f.nodes, types, constants, [y]), strict=True
    ):
        np.testing.assert_allclose(found, due, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("formula", FORMULAS)
def test_a_weight_is_no_constant_of_a_formula(formula: Callable[[Formula, str], str]) -> None:
    f = Formula()
    y = formula(f, "x")
    types, constants = described(f, [y])
    weights = [n for n, a in constants.items() if a.dtype == np.float32]
    if weights:
        nodes = recognised(f.nodes, types, constants, weights, [y])
        assert FORMULAS[formula] not in kinds(nodes)


def test_a_residual_sum_after_a_normalisation_is_not_its_bias() -> None:
    f = Formula()
    y = f("Add", layer_normalization(f, "x"), "x")
    types, constants = described(f, [y])
    assert kinds(recognised(f.nodes, types, constants, ["scale", "bias"], [y])) == [
        "LayerNormalization",
        "Add",
    ]


def test_formulas_one_after_the_other_are_all_recognised() -> None:
    f = Formula()
    y = "x"
    for formula in FORMULAS:
        y = formula(f, y)
    types, constants = described(f, [y])
    nodes = recognised(f.nodes, types, constants, ["scale", "bias"], [y])
    assert kinds(nodes) == list(FORMULAS.values())


@pytest.mark.torch
@pytest.mark.parametrize("opset", [11, 13, 14, 16, 17, 18])
def test_what_pytorch_exports_is_recognised(opset: int) -> None:
    """By the exporter that needs nothing but onnx; what the other one writes is below."""
    torch = pytest.importorskip("torch")
    nn = torch.nn

    class Net(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.dense, self.norm = nn.Linear(6, 6), nn.LayerNorm(6)
            self.norm.weight.data.uniform_(0.5, 1.5)
            self.plain = nn.LayerNorm(6, elementwise_affine=False)

        def forward(self, x: Any) -> Any:
            x = nn.functional.gelu(self.dense(x))
            x = self.norm(nn.functional.gelu(x, approximate="tanh"))
            x = nn.functional.silu(nn.functional.hardswish(self.plain(x + 1)))
            return nn.functional.mish(x)

    data = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Net(),
            (torch.randn(2, 3, 6),),
            data,
            dynamo=False,
            opset_version=opset,
            input_names=["x"],
            dynamic_axes={"x": {0: "batch"}},
        )
    source = load(data.getvalue())
    weights = [p.name for p in source.parameters]
    nodes = recognised(source.nodes, source.types, source.constants, weights, source.outputs)
    found = kinds(nodes)
    for op_type, times in {"Gelu": 2, "LayerNormalization": 2, "HardSwish": 1, "Swish": 1, "Mish": 1}.items():
        assert found.count(op_type) == times, (op_type, found)
    assert not {"Erf", "Sqrt", "Sigmoid", "Softplus", "Pow"} & set(found)


def test_the_order_of_pytorchs_newer_exporter_is_recognised() -> None:
    f = Formula()
    risen = f("Add", f("Erf", f("Div", "x", 1.4142135381698608)), 1.0)
    y = f("Mul", "x", f("Mul", 0.5, risen))
    inner = f("Add", y, f("Mul", 0.044714998453855515, f("Pow", y, 3.0)))
    risen = f("Add", f("Tanh", f("Mul", 0.7978845834732056, inner)), 1.0)
    z = f("Mul", y, f("Mul", 0.5, risen))
    types, constants = described(f, [z])
    nodes = recognised(f.nodes, types, constants, [], [z])
    assert [(n.op_type, [a.s for a in n.attribute]) for n in nodes] == [
        ("Gelu", [b"none"]),
        ("Gelu", [b"tanh"]),
    ]
