"""Laws of the rules of operators that reshape, repeat, join, cut, pad and reorder."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gradient_check import check, rule_gradients
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper

from laconic.errors import ModelError
from laconic.training.builder import GraphBuilder, TensorType
from laconic.training.optimizers import added
from laconic.training.rules import RULES, Application
from often import examples

COVERED: dict[str, str] = {
    "Concat": "test_concat",
    "DepthToSpace": "test_depth_to_space",
    "Expand": "test_expand",
    "EyeLike": "test_what_uses_only_the_shape_has_no_gradient",
    "Flatten": "test_flatten",
    "Identity": "test_identity",
    "Pad": "test_pad",
    "RandomNormalLike": "test_what_uses_only_the_shape_has_no_gradient",
    "RandomUniformLike": "test_what_uses_only_the_shape_has_no_gradient",
    "Reshape": "test_reshape",
    "ReverseSequence": "test_reverse_sequence",
    "Slice": "test_slice",
    "SpaceToDepth": "test_space_to_depth",
    "Split": "test_split",
    "Squeeze": "test_squeeze",
    "Tile": "test_tile",
    "Transpose": "test_transpose",
    "Trilu": "test_trilu",
    "Unsqueeze": "test_unsqueeze",
}

quick = settings(max_examples=examples(20), deadline=None)
seeds = st.integers(0, 2**16)


def normal(seed: int, *shape: int) -> NDArray[np.float32]:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def ints(*values: int) -> NDArray[np.int64]:
    return np.array(values, np.int64)


@quick
@given(seeds, st.integers(0, 4))
def test_flatten(seed: int, axis: int) -> None:
    node = helper.make_node("Flatten", ["x"], ["y"], axis=axis)
    check(node, {"x": normal(seed, 2, 3, 2, 2)}, ["x"], batched=["x"] if axis == 1 else [])


@quick
@given(seeds, st.sampled_from([(0, -1), (0, 12), (-1, 4), (2, 3, 4), (24,), (0, 2, 0, 3)]))
def test_reshape(seed: int, target: tuple[int, ...]) -> None:
    x = normal(seed, 2, 3, 2, 2)
    values: dict[str, NDArray[Any]] = {"x": x, "shape": ints(*target)}
    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    check(node, values, ["x"], batched=["x"] if target[0] in (0, -1) else [])


def test_reshape_to_a_shape_that_is_computed_with_the_batch_in_it() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["size"], start=0, end=1),
        helper.make_node("Concat", ["size", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["y"]),
    ]
    check(nodes, {"x": normal(0, 2, 3, 4), "rest": ints(4, 3)}, ["x"], batched=["x"])


def test_identity() -> None:
    check(helper.make_node("Identity", ["x"], ["y"]), {"x": normal(0, 3, 2)}, ["x"], batched=["x"])


@quick
@given(seeds, st.sampled_from([None, (1,), (-1,), (1, 3), (3, -3)]), st.booleans())
def test_squeeze(seed: int, axes: tuple[int, ...] | None, batched: bool) -> None:
    values: dict[str, NDArray[Any]] = {"x": normal(seed, 2, 1, 3, 1)}
    if axes is not None:
        values["axes"] = ints(*axes)
    batched = batched and axes is not None
    check(helper.make_node("Squeeze", list(values), ["y"]), values, ["x"], batched=["x"] * batched)


@quick
@given(seeds, st.sampled_from([(0,), (1,), (-1,), (0, 2), (-1, 1)]), st.booleans())
def test_unsqueeze(seed: int, axes: tuple[int, ...], batched: bool) -> None:
    values: dict[str, NDArray[Any]] = {"x": normal(seed, 2, 3), "axes": ints(*axes)}
    check(helper.make_node("Unsqueeze", list(values), ["y"]), values, ["x"], batched=["x"] * batched)


@quick
@given(
    seeds,
    st.sampled_from([(3, 4), (1, 4), (3, 1), (4,), (1,), (1, 1)]),
    st.sampled_from([(3, 4), (2, 3, 4), (1, 3, 1), (2, 1, 1, 4)]),
)
def test_expand(seed: int, shape: tuple[int, ...], target: tuple[int, ...]) -> None:
    values: dict[str, NDArray[Any]] = {"x": normal(seed, *shape), "target": ints(*target)}
    check(helper.make_node("Expand", ["x", "target"], ["y"]), values, ["x"])


@quick
@given(seeds, st.sampled_from([(4,), (1, 4), (2, 4), (1, 1, 4), (2, 1), (3, 2, 4)]), st.booleans())
def test_expand_to_a_shape_known_only_at_run_time(seed: int, shape: tuple[int, ...], batched: bool) -> None:
    nodes = [
        helper.make_node("Shape", ["like"], ["target"]),
        helper.make_node("Expand", ["x", "target"], ["wide"]),
        helper.make_node("Identity", ["wide"], ["y"]),
    ]
    values: dict[str, NDArray[Any]] = {"like": normal(seed, 2, 4), "x": normal(seed, *shape)}
    check(nodes, values, ["x"], batched=["like", "x"] if batched and shape[0] == 2 else ["like"])


@quick
@given(seeds, st.permutations(range(4)), st.booleans(), st.booleans())
def test_transpose(seed: int, perm: list[int], batched: bool, explicit: bool) -> None:
    attributes: dict[str, Any] = {"perm": perm} if explicit else {}
    node = helper.make_node("Transpose", ["x"], ["y"], **attributes)
    check(node, {"x": normal(seed, 2, 3, 4, 2)}, ["x"], batched=["x"] * batched)


@quick
@given(seeds, st.booleans(), st.booleans(), st.sampled_from([1.0, -0.5]))
def test_a_weight_transposed_before_its_product_has_a_gradient_that_is_one_product(
    seed: int, ta: bool, tb: bool, alpha: float
) -> None:
    nodes = [
        helper.make_node("Transpose", ["w"], ["t"]),
        helper.make_node("Gemm", ["x", "t"], ["y"], transA=int(ta), transB=int(tb), alpha=alpha),
    ]
    values: dict[str, NDArray[Any]] = {"x": normal(seed, *((5, 3) if ta else (3, 5)))}
    values["w"] = normal(seed, *((5, 4) if tb else (4, 5)))
    check(nodes, values, ["w", "x"], batched=[] if ta else ["x"])


def test_the_gradient_of_a_transposed_weight_is_added_inside_its_gemm() -> None:
    g = GraphBuilder((), {"w": TensorType(1, (4, 5)), "t": TensorType(1, (5, 4))})
    g.declare("x", 1, ("batch", 5))
    g.declare("dy", 1, ("batch", 4))
    dt = g.op("Gemm", "x", "dy", transA=1, shape=(5, 4))
    (dw,) = RULES["Transpose"](Application(g, helper.make_node("Transpose", ["w"], ["t"]), (True,)), (dt,))
    assert dw is not None
    made = g.producer(added(g, dw, onto="w"))
    assert made is not None
    assert (made.op_type, list(made.input)) == ("Gemm", ["dy", "x", "w"])


@quick
@given(seeds, st.lists(st.integers(1, 3), min_size=3, max_size=3), st.booleans(), st.booleans())
def test_tile(seed: int, repeats: list[int], batched: bool, computed: bool) -> None:
    values: dict[str, NDArray[Any]] = {"x": normal(seed, 2, 1, 3)}
    node = helper.make_node("Tile", ["x", "repeats"], ["y"])
    if not computed:
        values["repeats"] = ints(*repeats)
        check(node, values, ["x"], batched=["x"] * batched)
        return
    values["r"] = np.array(repeats, np.float32)
    nodes = [helper.make_node("Cast", ["r"], ["repeats"], to=7), node]
    nodes.append(helper.make_node("Identity", ["y"], ["z"]))
    check(nodes, values, ["x"], batched=["x"] * batched)


@pytest.mark.parametrize("operator", ["EyeLike", "RandomNormalLike", "RandomUniformLike"])
def test_what_uses_only_the_shape_has_no_gradient(operator: str) -> None:
    nodes = [
        helper.make_node(operator, ["x"], ["e"]),
        helper.make_node("Reshape", ["e", "flat"], ["f"]),
        helper.make_node("Reshape", ["x", "flat"], ["g"]),
        helper.make_node("Concat", ["f", "g"], ["y"], axis=0),
    ]
    x = normal(0, 3, 3)
    dy = np.arange(18, dtype=np.float32)
    found = rule_gradients(nodes, {"x": x, "flat": ints(-1)}, dy, ["x"])
    assert found["x"].tolist() == dy[9:].reshape(3, 3).tolist()


@quick
@given(
    seeds,
    st.lists(st.integers(1, 3), min_size=1, max_size=4),
    st.integers(-3, 2),
    st.integers(1, 15),
    st.booleans(),
)
def test_concat(seed: int, sizes: list[int], axis: int, chosen: int, batched: bool) -> None:
    shapes = [tuple(n if i == axis % 3 else 2 for i in range(3)) for n in sizes]
    values: dict[str, NDArray[Any]] = {f"x{i}": normal(seed + i, *s) for i, s in enumerate(shapes)}
    names = [n for i, n in enumerate(values) if chosen >> i & 1] or ["x0"]
    node = helper.make_node("Concat", list(values), ["y"], axis=axis)
    check(node, values, names, batched=list(values) if batched and axis % 3 else [])


def test_concat_along_an_axis_of_unknown_size() -> None:
    node = helper.make_node("Concat", ["a", "b", "a"], ["y"], axis=0)
    values: dict[str, NDArray[Any]] = {"a": normal(0, 2, 3), "b": normal(1, 4, 3)}
    check(node, values, ["a", "b"], batched=["a"])
    check(node, values, ["b"], batched=["a"])


@quick
@given(
    seeds,
    st.lists(st.integers(1, 3), min_size=1, max_size=4),
    st.booleans(),
    st.integers(1, 15),
    st.booleans(),
)
def test_split(seed: int, sizes: list[int], first: bool, used: int, batched: bool) -> None:
    total = sum(sizes)
    values: dict[str, NDArray[Any]] = {"x": normal(seed, *((total, 2) if first else (2, total)))}
    values["sizes"] = ints(*sizes)
    outputs = [f"y{i}" for i in range(len(sizes))]
    axis = 0 if first else -1
    chosen = [n for i, n in enumerate(outputs) if used >> i & 1] or outputs[:1]
    nodes = [
        helper.make_node("Split", ["x", "sizes"], outputs, axis=axis),
        helper.make_node("Concat", chosen[::-1], ["y"], axis=axis),
    ]
    check(nodes, values, ["x"], batched=["x"] if batched and not first else [])


def test_split_by_number_of_outputs() -> None:
    for count, used in [(3, "ac"), (3, "b"), (2, "b")]:
        outputs = list("abc"[:count])
        nodes = [
            helper.make_node("Split", ["x"], outputs, axis=1, num_outputs=count),
            helper.make_node("Concat", list(used), ["y"], axis=1),
        ]
        check(nodes, {"x": normal(count, 2, 2 * count + 1)}, ["x"], batched=["x"])


@st.composite
def cut(draw: st.DrawFn, length: int) -> tuple[int, int, int]:
    """Start, end and step of something of an axis, in any spelling."""
    step = draw(st.sampled_from([1, 1, 2, 3, -1, -2]))
    first = draw(st.integers(0, length - 1))
    end = draw(st.integers(first + 1, length) if step > 0 else st.integers(-1, first - 1))
    if end == length:
        end = draw(st.sampled_from([length, length + 3, 2**31 - 1, 2**63 - 1]))
    elif end == -1:
        end = draw(st.sampled_from([-length - 1, -(2**31), -(2**63) + 1]))
    else:
        end -= draw(st.sampled_from([0, length]))
    if first == length - 1 and step < 0:
        first = draw(st.sampled_from([length - 1, length + 1, 2**31 - 1]))
    return first - draw(st.sampled_from([0, length])) * (first < length), end, step


@settings(max_examples=examples(50), deadline=None)
@given(
    seed=seeds,
    cuts=st.tuples(cut(4), cut(5), cut(6)),
    axes=st.sampled_from([(0, 1, 2), (1, 2), (2, 1), (-1, 0), (0, -2), (2,), (1,), (0,)]),
    batched=st.booleans(),
    computed=st.booleans(),
)
def test_slice(
    seed: int, cuts: tuple[tuple[int, int, int], ...], axes: tuple[int, ...], batched: bool, computed: bool
) -> None:
    starts, ends, steps = zip(*(cuts[axis] for axis in axes), strict=True)
    values: dict[str, NDArray[Any]] = {"x": normal(seed, 4, 5, 6)}
    values |= {"starts": ints(*starts), "ends": ints(*ends)}
    if axes != (0, 1, 2) or set(steps) != {1}:
        values |= {"axes": ints(*axes), "steps": ints(*steps)}
    nodes = [helper.make_node("Slice", list(values), ["y"])]
    if computed:
        values["as_real"] = np.clip(values.pop("starts"), -9, 9).astype(np.float32)
        nodes.insert(0, helper.make_node("Cast", ["as_real"], ["starts"], to=7))
        nodes.append(helper.make_node("Identity", ["y"], ["z"]))
    check(nodes, values, ["x"], batched=["x"] * batched)


def test_slice_that_takes_nothing() -> None:
    nodes = [
        helper.make_node("Slice", ["x", "start", "end"], ["a"]),
        helper.make_node("Concat", ["a", "x"], ["y"], axis=0),
    ]
    check(nodes, {"x": normal(0, 3, 2), "start": ints(2), "end": ints(1)}, ["x"])


@settings(max_examples=examples(40), deadline=None)
@given(
    seed=seeds,
    mode=st.sampled_from(["constant", "reflect", "edge"]),
    pads=st.lists(st.integers(-2, 3), min_size=6, max_size=6),
    axes=st.sampled_from([None, (1, 2), (-1, 1), (2,), (0, 2)]),
    batched=st.booleans(),
    value=st.booleans(),
)
def test_pad(
    seed: int, mode: str, pads: list[int], axes: tuple[int, ...] | None, batched: bool, value: bool
) -> None:
    n = 3 if axes is None else len(axes)
    before, after = pads[:n], pads[3 : 3 + n]
    x = normal(seed, 3, 4, 5)
    values: dict[str, NDArray[Any]] = {"x": x}
    limits = [x.shape[i] - 1 for i in (axes or range(3))]
    if mode != "constant":
        before, after = ([min(abs(p), m) for p, m in zip(s, limits, strict=True)] for s in (before, after))
        batched = batched and all(
            p == 0 or axis % 3 for p, axis in zip(before, axes or range(3), strict=True)
        )
        batched = batched and all(p == 0 or axis % 3 for p, axis in zip(after, axes or range(3), strict=True))
    else:
        before, after = ([max(-1, p) for p in s] for s in (before, after))
    values["pads"] = ints(*before, *after)
    if value:
        values["value"] = np.array(0.5, np.float32)
    names = ["x", "pads", "value" if value else ""]
    if axes is not None:
        values["axes"] = ints(*axes)
        names.append("axes")
    node = helper.make_node("Pad", names, ["y"], mode=mode)
    wanted = ["x", "value"] if value and mode == "constant" else ["x"]
    full = [(0, 0)] * 3
    for axis, b, e in zip(axes or range(3), before, after, strict=True):
        full[axis] = (b, e)

    def by_definition(feeds: Any) -> NDArray[np.float64]:
        y: NDArray[np.float64] = feeds["x"]
        crop = tuple(slice(max(0, -b), n - max(0, -e)) for (b, e), n in zip(full, y.shape, strict=True))
        wide = [(max(0, b), max(0, e)) for b, e in full]
        if mode == "constant":
            return np.pad(y[crop], wide, constant_values=float(feeds["value"]) if value else 0.0)
        return np.pad(y[crop], wide, mode=mode)  # type: ignore[call-overload,no-any-return]

    check(node, values, wanted, batched=["x"] * batched, forward=by_definition)


def test_pad_with_pads_known_only_at_run_time() -> None:
    nodes = [
        helper.make_node("Cast", ["p"], ["pads"], to=7),
        helper.make_node("Pad", ["x", "pads"], ["y"]),
        helper.make_node("Identity", ["y"], ["z"]),
    ]
    values: dict[str, NDArray[Any]] = {"x": normal(0, 3, 4), "p": np.array([0, 1, 2, -1], np.float32)}

    def by_definition(feeds: Any) -> NDArray[np.float64]:
        return np.pad(feeds["x"][:, :3], [(0, 2), (1, 0)])

    # The reference implementation does not know negative pads, here or in the gradient.
    check(nodes, values, ["x"], batched=["x"], forward=by_definition, double=False)


def test_pad_refuses_what_it_cannot_fold_and_names_the_node() -> None:
    node = helper.make_node("Pad", ["x", "pads"], ["y"], mode="reflect", name="border")
    values: dict[str, NDArray[Any]] = {"x": normal(0, 3, 4), "pads": ints(1, 0, 1, 0)}
    with pytest.raises(ModelError, match="border"):
        check(node, values, ["x"], batched=["x"])


@quick
@given(seeds, st.sampled_from([1, 2, 3]), st.sampled_from(["DCR", "CRD"]), st.booleans())
def test_depth_to_space(seed: int, block: int, mode: str, batched: bool) -> None:
    node = helper.make_node("DepthToSpace", ["x"], ["y"], blocksize=block, mode=mode)
    check(node, {"x": normal(seed, 2, 2 * block * block, 3, 2)}, ["x"], batched=["x"] * batched)


@quick
@given(seeds, st.sampled_from([1, 2, 3]), st.booleans())
def test_space_to_depth(seed: int, block: int, batched: bool) -> None:
    node = helper.make_node("SpaceToDepth", ["x"], ["y"], blocksize=block)
    check(node, {"x": normal(seed, 2, 2, 3 * block, 2 * block)}, ["x"], batched=["x"] * batched)


@quick
@given(seeds, st.lists(st.integers(1, 4), min_size=4, max_size=4), st.booleans())
def test_reverse_sequence(seed: int, lengths: list[int], batch_first: bool) -> None:
    values: dict[str, NDArray[Any]] = {"x": normal(seed, 4, 4, 2), "lengths": ints(*lengths)}
    node = helper.make_node(
        "ReverseSequence", ["x", "lengths"], ["y"], batch_axis=1 - batch_first, time_axis=int(batch_first)
    )
    check(node, values, ["x"], batched=["x"] if not batch_first else [])


@quick
@given(seeds, st.one_of(st.none(), st.integers(-3, 3)), st.booleans(), st.booleans())
def test_trilu(seed: int, k: int | None, upper: bool, batched: bool) -> None:
    values: dict[str, NDArray[Any]] = {"x": normal(seed, 2, 3, 4)}
    if k is not None:
        values["k"] = np.array(k, np.int64)
    node = helper.make_node("Trilu", list(values), ["y"], upper=int(upper))
    check(node, values, ["x"], batched=["x"] * batched)


@pytest.mark.torch
def test_padding_and_pixel_shuffle_agree_with_torch() -> None:
    torch = pytest.importorskip("torch")
    x = normal(0, 2, 8, 4, 5)
    for mode, name in [("reflect", "reflect"), ("edge", "replicate"), ("constant", "constant")]:
        t = torch.tensor(x, requires_grad=True)
        y = torch.nn.functional.pad(t, (1, 3, 2, 0), mode=name)
        dy = normal(1, *y.shape)
        y.backward(torch.tensor(dy))
        node = helper.make_node("Pad", ["x", "pads"], ["y"], mode=mode)
        values: dict[str, NDArray[Any]] = {"x": x, "pads": ints(0, 0, 2, 1, 0, 0, 0, 3)}
        found = rule_gradients([node], values, dy, ["x"], ["x"])["x"]
        np.testing.assert_allclose(found, t.grad.numpy(), rtol=1e-5, atol=1e-6)
    t = torch.tensor(x, requires_grad=True)
    y = torch.nn.functional.pixel_shuffle(t, 2)
    dy = normal(2, *y.shape)
    y.backward(torch.tensor(dy))
    node = helper.make_node("DepthToSpace", ["x"], ["y"], blocksize=2, mode="CRD")
    assert np.array_equal(rule_gradients([node], {"x": x}, dy, ["x"], ["x"])["x"], t.grad.numpy())
