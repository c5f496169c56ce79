"""Laws of the rule of Einsum, for equations made at random and those that models have."""

from __future__ import annotations

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
from laconic.training.optimizers import added
from laconic.training.rules import RULES, Application
from often import examples

COVERED: dict[str, str] = {"Einsum": "test_einsum"}

seeds = st.integers(0, 2**16)
SIZES = dict(zip("abcdef", (2, 3, 4, 2, 3, 1), strict=True))


def normal(seed: int, *shape: int) -> NDArray[np.float32]:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def operands(seed: int, terms: list[str], sizes: dict[str, int]) -> dict[str, NDArray[np.float32]]:
    return {f"x{i}": normal(seed + i, *(sizes[c] for c in t)) for i, t in enumerate(terms)}


@st.composite
def equations(draw: st.DrawFn) -> tuple[list[str], str]:
    """Terms of one to three operands, and the letters of the result."""
    letter = st.sampled_from(sorted(SIZES))
    terms = draw(st.lists(st.lists(letter, max_size=4, unique=True), min_size=1, max_size=3))
    every = sorted({c for t in terms for c in t})
    result = draw(st.lists(st.sampled_from(every), max_size=4, unique=True)) if every else []
    return ["".join(t) for t in terms], "".join(result)


@settings(max_examples=examples(60), deadline=None)
@given(seeds, equations(), st.booleans())
def test_einsum(seed: int, equation: tuple[list[str], str], batched: bool) -> None:
    terms, result = equation
    values = operands(seed, terms, SIZES)
    node = helper.make_node("Einsum", list(values), ["y"], equation=",".join(terms) + "->" + result)
    # One letter has an unknown size: wherever it stands, it stands first.
    leads = {t.find("a") for t in (*terms, result)} <= {-1, 0}
    names = [n for n, t in zip(values, terms, strict=True) if t.startswith("a")]
    check(node, values, list(values), batched=names if batched and leads else [])


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ij,jk->ik", [(3, 4), (4, 5)]),
        ("ij , jk", [(3, 4), (4, 5)]),
        ("bij,bjk->bik", [(2, 3, 4), (2, 4, 5)]),
        ("bhid,bhjd->bhij", [(2, 2, 3, 4), (2, 2, 5, 4)]),
        ("bhij,bhjd->bhid", [(2, 2, 3, 5), (2, 2, 5, 4)]),
        ("bihd,bjhd->bhij", [(2, 3, 2, 4), (2, 5, 2, 4)]),
        ("abc,cde->abde", [(2, 3, 4), (4, 2, 5)]),
        ("abcd,cde->abe", [(2, 3, 2, 4), (2, 4, 5)]),
        ("bi,bj->bij", [(2, 3), (2, 4)]),
        ("bn,anm,bm->ba", [(2, 3), (4, 3, 5), (2, 5)]),
        ("...ij,...jk->...ik", [(2, 3, 4), (2, 4, 5)]),
        ("...ij,...jk", [(2, 2, 3, 4), (2, 2, 4, 5)]),
        ("...ij,jk->...ik", [(2, 2, 3, 4), (4, 5)]),
        ("b...,...->b", [(2, 3, 4), (3, 4)]),
        ("...i->...", [(2, 3, 4)]),
        ("bij->bji", [(2, 3, 4)]),
        ("bij->b", [(2, 3, 4)]),
    ],
)
def test_equations_of_models(equation: str, shapes: list[tuple[int, ...]]) -> None:
    values = {f"x{i}": normal(i, *s) for i, s in enumerate(shapes)}
    node = helper.make_node("Einsum", list(values), ["y"], equation=equation)
    check(node, values, list(values))
    if equation[0] in "ba.":
        shared = [n for n, v in values.items() if len(v.shape) == len(shapes[0]) and v.shape[0] == 2]
        check(node, values, list(values), batched=shared)


@settings(max_examples=examples(60), deadline=None)
@given(seeds, equations())
def test_the_form_gives_what_einsum_gives(seed: int, equation: tuple[list[str], str]) -> None:
    terms, result = equation
    values = operands(seed, terms, SIZES)
    node = helper.make_node("Einsum", list(values), ["y"], equation=",".join(terms) + "->" + result)
    g = GraphBuilder()
    for name, value in values.items():
        g.declare(name, TensorProto.FLOAT, value.shape)
    lay(g, [node])
    kind = TensorType(TensorProto.FLOAT, tuple(SIZES[c] for c in result))
    encoded = model(assemble(g, "forward", list(values), {"y": ("y", kind)}))
    (found,) = ort.InferenceSession(encoded, providers=["CPUExecutionProvider"]).run(None, dict(values))
    due = np.einsum(",".join(terms) + "->" + result, *(v.astype(np.float64) for v in values.values()))
    np.testing.assert_allclose(found, due, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [("...ij,...jk->...ik", [(2, 3, 4), (1, 4, 5)]), ("...i,...i->...", [(1, 3), (2, 3)])],
)
def test_axes_of_length_one_are_repeated(equation: str, shapes: list[tuple[int, ...]]) -> None:
    values = {f"x{i}": normal(i, *s) for i, s in enumerate(shapes)}
    node = helper.make_node("Einsum", list(values), ["y"], equation=equation)
    check(node, values, list(values))


def test_two_unknown_sizes() -> None:
    nodes = [
        helper.make_node("Einsum", ["x", "w"], ["h"], equation="bi,ijk->bjk"),
        helper.make_node("Einsum", ["h", "h"], ["y"], equation="bjk,cjk->bc"),
    ]
    check(nodes, {"x": normal(0, 3, 2), "w": normal(1, 2, 4, 3)}, ["x", "w"], batched=["x"])


def test_the_gradient_of_a_dense_layers_weight_is_added_inside_its_gemm() -> None:
    shapes: dict[str, tuple[int | str, ...]] = {"x": ("batch", 7, 4), "w": (4, 2, 5), "y": ("batch", 7, 2, 5)}
    g = GraphBuilder((), {n: TensorType(TensorProto.FLOAT, s) for n, s in shapes.items()})
    g.declare("dy", TensorProto.FLOAT, shapes["y"])
    node = helper.make_node("Einsum", ["x", "w"], ["y"], equation="abc,cde->abde")
    _, dw = RULES["Einsum"](Application(g, node, (False, True)), ("dy",))
    assert dw is not None
    updated = g.producer(added(g, dw, onto="w"))
    assert updated is not None
    product = g.producer(updated.input[0])
    assert product is not None
    assert (updated.op_type, product.op_type, len(product.input)) == ("Reshape", "Gemm", 3)


def test_a_diagonal_is_refused_by_the_name_of_the_node() -> None:
    node = helper.make_node("Einsum", ["x"], ["y"], equation="ii->i", name="trace")
    with pytest.raises(ModelError, match="trace"):
        check(node, {"x": normal(0, 3, 3)}, ["x"])


@pytest.mark.torch
@pytest.mark.parametrize("equation", ["bhid,bhjd->bhij", "abc,cde->abde", "bn,anm,bm->ba", "bij->b"])
def test_einsum_agrees_with_torch(equation: str) -> None:
    torch = pytest.importorskip("torch")
    sizes = dict(zip("abcdehijnm", (2, 3, 4, 5, 3, 2, 4, 3, 3, 4), strict=True))
    terms = equation.partition("->")[0].split(",")
    values: dict[str, NDArray[Any]] = dict(operands(0, terms, sizes))
    tensors = [torch.tensor(v, requires_grad=True) for v in values.values()]
    y = torch.einsum(equation, *tensors)
    dy = normal(9, *y.shape)
    y.backward(torch.tensor(dy))
    node = helper.make_node("Einsum", list(values), ["y"], equation=equation)
    found = rule_gradients([node], values, dy, list(values))
    for name, tensor in zip(values, tensors, strict=True):
        np.testing.assert_allclose(found[name], tensor.grad.numpy(), rtol=1e-4, atol=1e-5)
