"""Laws of the gradient rules of convolutions: they agree with central differences, whatever the lowering."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from gradient_check import check, rule_gradients
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from laconic.errors import ModelError
from laconic.runtime import Bundle
from laconic.training import graphs, prepare
from laconic.training.assemble import OPSET, assemble, live_nodes, model
from laconic.training.backward import gradients
from laconic.training.builder import GraphBuilder, TensorType, value_info
from laconic.training.channel_major import channel_major
from laconic.training.rules import convolution, convolution_weight, depthwise
from laconic.training.rules.convolution_weight import LOWERINGS, Correlation, choice, shifts
from laconic.training.rules.depthwise import PLANES
from laconic.training.rules.window import Window
from often import examples

quick = settings(max_examples=examples(20), deadline=None)
seeds = st.integers(0, 2**16)

COVERED: dict[str, str] = {"Conv": "test_conv", "ConvTranspose": "test_conv_transpose"}


def test_every_rule_has_a_gradient_check() -> None:
    assert COVERED.keys() == convolution.RULES.keys()
    assert all(callable(globals()[name]) for name in COVERED.values())


def normal(seed: int, *shape: int) -> NDArray[np.float32]:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


@st.composite
def windows(draw: st.DrawFn) -> tuple[list[int], dict[str, Any]]:
    """A size of the input and the attributes of windows that fit into it."""
    rank = draw(st.sampled_from([1, 2, 2, 2, 3]))

    def each(low: int, high: int) -> list[int]:
        return draw(st.lists(st.integers(low, high), min_size=rank, max_size=rank))

    size, kernel = [5, 4, 5][:rank], each(1, 3)
    found: dict[str, Any] = {"kernel_shape": kernel, "strides": each(1, 3), "dilations": each(1, 2)}
    automatic = draw(st.sampled_from(["NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    pads = each(0, 2) + each(0, 2)
    found |= {"pads": pads} if automatic == "NOTSET" else {"auto_pad": automatic}
    extent = [d * (k - 1) + 1 for d, k in zip(found["dilations"], kernel, strict=True)]
    padded = [s + (b + a) * (automatic == "NOTSET") for s, b, a in zip(size, pads, pads[rank:], strict=False)]
    assume(automatic.startswith("SAME") or all(p >= e for p, e in zip(padded, extent, strict=True)))
    return size, found


channels = st.sampled_from(
    [(1, 4, 4), (1, 2, 6), (2, 4, 4), (2, 4, 2), (4, 4, 4), (4, 4, 8), (1, 1, 3), (6, 6, 6)]
)
"""Groups, channels in, channels out: one for all, some, depthwise with and without a multiplier."""


@settings(max_examples=examples(60), deadline=None)
@given(seeds, windows(), channels, st.booleans(), st.booleans(), st.data())
def test_conv(
    seed: int,
    window: tuple[list[int], dict[str, Any]],
    grouped: tuple[int, int, int],
    bias: bool,
    batched: bool,
    data: st.DataObject,
) -> None:
    (size, attributes), (group, inside, outside) = window, grouped
    values = {
        "x": normal(seed, 2, inside, *size),
        "w": normal(seed, outside, inside // group, *attributes["kernel_shape"]),
    }
    if bias:
        values["b"] = normal(seed, outside)
    node = helper.make_node("Conv", list(values), ["y"], group=group, **attributes)

    def drawn(c: Correlation) -> str:
        return data.draw(
            st.sampled_from(["chosen", *applicable(c)]).map(lambda n: choice(c) if n == "chosen" else n)
        )

    with patch.object(convolution_weight, "choice", drawn):
        check(node, values, list(values), batched=["x"] if batched else [])


def applicable(c: Correlation) -> list[str]:
    if c.group == 1:
        pointwise = ["at_once", "each_sample"] if c.window.pointwise else []
        rows = ["rows_at_once", "rows_each"] if c.window.rank == 2 else []
        shifted = ["shifted_each"] if shifts(c) else []
        return ["sliced", "sliced_each", "gathered", "gathered_each", *rows, *shifted, *pointwise]
    if c.group == c.channels_in == c.channels_out:
        return ["sliced", "sliced_each", "depthwise_each"]
    return ["sliced", "sliced_each"]


@settings(max_examples=examples(60), deadline=None)
@given(
    seeds,
    windows(),
    channels,
    st.booleans(),
    st.booleans(),
    st.lists(st.integers(0, 2), min_size=3, max_size=3),
    st.one_of(st.none(), st.lists(st.integers(-2, 1), min_size=3, max_size=3)),
)
def test_conv_transpose(
    seed: int,
    window: tuple[list[int], dict[str, Any]],
    grouped: tuple[int, int, int],
    bias: bool,
    batched: bool,
    extra: list[int],
    change: list[int] | None,
) -> None:
    (size, attributes), (group, outside, inside) = window, grouped
    size = [n - 1 for n in size]
    steps, dilations, kernel = (attributes[n] for n in ("strides", "dilations", "kernel_shape"))
    padding = [min(e, max(s, d) - 1) for e, s, d in zip(extra, steps, dilations, strict=False)]
    extent = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    full = [s * (n - 1) + e + p for s, n, e, p in zip(steps, size, extent, padding, strict=True)]
    pads = attributes.get("pads", [0] * (2 * len(size)))
    attributes = attributes | {"output_padding": padding}
    if change is not None:
        output = [n * s + c for n, s, c in zip(size, steps, change, strict=False)]
        attributes["output_shape"] = output
        assume(all(o >= n for o, n in zip(output, size, strict=True)))  # Shape inference gives up on others.
    elif attributes.get("auto_pad", "").startswith("SAME"):
        attributes["output_padding"] = [0] * len(size)
    else:
        left = [f - b - a for f, b, a in zip(full, pads, pads[len(size) :], strict=False)]
        assume(min(left) > 0)
    values = {
        "x": normal(seed, 2, inside, *size),
        "w": normal(seed, inside, outside // group, *kernel),
    }
    if bias:
        values["b"] = normal(seed, outside)
    node = helper.make_node("ConvTranspose", list(values), ["y"], group=group, **attributes)
    check(node, values, list(values), batched=["x"] if batched else [])


def test_an_output_whose_size_is_not_certain_is_refused() -> None:
    settings: dict[str, Any] = {"dilations": [2], "output_padding": [1], "auto_pad": "SAME_UPPER"}
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], **settings)
    with pytest.raises(ModelError, match="explicit pads"):
        rule_gradients([node], {"x": normal(0, 1, 2, 4), "w": normal(0, 2, 2, 1)}, normal(0, 1, 2, 4), ["x"])


CHANNELS = 8


@st.composite
def depthwise_windows(draw: st.DrawFn) -> tuple[list[int], dict[str, Any]]:
    """A size of the input and the attributes of a depthwise convolution that is laid channel by channel."""

    def each(low: int, high: int) -> list[int]:
        return [draw(st.integers(low, high)), draw(st.integers(low, high))]

    kernel, strides, dilations = (
        draw(st.sampled_from([[3, 3], [3, 3], [1, 3], [5, 3], [2, 2]])),
        each(1, 3),
        each(1, 2),
    )
    size = [strides[0] * draw(st.integers(1, 8 // strides[0])), draw(st.integers(2, 7))]
    found: dict[str, Any] = {"kernel_shape": kernel, "strides": strides, "dilations": dilations}
    automatic = draw(st.sampled_from(["NOTSET", "NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    pads = each(0, 3) + each(0, 3)
    found |= {"pads": pads} if automatic == "NOTSET" else {"auto_pad": automatic}
    window = zip(size, kernel, strides, dilations, pads, pads[2:], strict=False)
    free = [n + (b + a) * (automatic == "NOTSET") - d * (k - 1) - 1 for n, k, _, d, b, a in window]
    assume(automatic.startswith("SAME") or min(free) >= 0)
    steps = zip(size, free, strides, strict=True)
    made = [-(-n // s) if automatic.startswith("SAME") else f // s + 1 for n, f, s in steps]
    assume(made != [1, 1])
    return size, found


@settings(max_examples=examples(80), deadline=None)
@given(
    seeds,
    depthwise_windows(),
    st.booleans(),
    st.booleans(),
    st.sampled_from([0, 1024]),
    st.sampled_from([4, 16]),
    st.sampled_from([["w"], ["x", "w"]]),
)
def test_depthwise_by_banded_matrices(
    seed: int,
    window: tuple[list[int], dict[str, Any]],
    bias: bool,
    batched: bool,
    whole: int,
    wide: int,
    wanted: list[str],
) -> None:
    size, attributes = window
    values = {
        "x": normal(seed, 2, CHANNELS, *size),
        "w": normal(seed, CHANNELS, 1, *attributes["kernel_shape"]),
    }
    if bias:
        values["b"] = normal(seed, CHANNELS)
    node = helper.make_node("Conv", list(values), ["y"], group=CHANNELS, **attributes)
    laid: list[Any] = []

    def layout(*arguments: Any) -> list[Any]:
        laid.extend(channel_major(*arguments))
        return laid[-5:]

    with patch.object(depthwise, "WHOLE_ENTRIES", whole), patch.object(depthwise, "WIDE", wide):
        check(node, values, [*wanted, *(["b"] if bias else [])], batched=["x"] * batched, layout=layout)
    assert len(laid) == 10  # In each precision two nodes before, the marked convolution, two after.
    assert any(a.name == PLANES for a in laid[2].attribute)


def separable(mixed: str, tail: int, joined: bool) -> list[Any]:
    """Depthwise, an operator on each element, 1x1, scale and shift by channel, depthwise, with a shortcut."""
    spread: dict[str, Any] = {"group": CHANNELS, "kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], **spread),
        helper.make_node(mixed, ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2", "b2"], ["c"], kernel_shape=[1, 1]),
        helper.make_node("BatchNormalization", ["c", "scale", "shift", "mean", "var"], ["d"]),
        helper.make_node("Mul", ["d", "half"], ["e"]),
        helper.make_node("Add", ["e", "by_channel"], ["f"]),
        helper.make_node("Add", ["f", "b"], ["g"]),
        helper.make_node("Conv", ["g", "w3"], ["h"], **spread),
        helper.make_node("Add", ["h", "f"], ["i"]),
        helper.make_node("Conv", ["i", "w4"], ["y"], kernel_shape=[1, 1]),
    ]
    nodes = nodes[:tail]
    if joined:  # A tensor of the part is read outside of it too.
        last = nodes[-1].output[0]
        nodes.append(helper.make_node("GlobalAveragePool", ["d"], ["p"]))
        nodes.append(helper.make_node("Add", [last, "p"], ["z"]))
    return nodes


def test_a_part_is_entered_once() -> None:
    shapes = {n: v.shape for n, v in separable_values(0, (4, 4)).items()}
    made = {n.output[0]: ("batch", CHANNELS, 4, 4) for n in separable("Relu", 10, False)}
    known = {**shapes, **made, "x": ("batch", CHANNELS, 4, 4)}
    g = GraphBuilder((), {n: TensorType(onnx.TensorProto.FLOAT, s) for n, s in known.items()})
    nodes = channel_major(g, separable("Relu", 10, False), {"w1", "w3", *made})
    assert [n.input[0] for n in nodes if n.op_type == "Transpose" and n.input[0] in known] == ["x"]


def separable_values(seed: int, size: tuple[int, int]) -> dict[str, NDArray[np.float32]]:
    return {
        "x": normal(seed, 3, CHANNELS, *size),
        "w1": normal(seed, CHANNELS, 1, 3, 3),
        "w2": 0.3 * normal(seed, CHANNELS, CHANNELS, 1, 1),
        "b2": normal(seed, CHANNELS),
        "scale": normal(seed + 1, CHANNELS),
        "shift": normal(seed + 2, CHANNELS),
        "mean": normal(seed + 3, CHANNELS),
        "var": 1 + normal(seed + 4, CHANNELS) ** 2,
        "half": np.array(0.5, np.float32),
        "by_channel": normal(seed, 1, CHANNELS, 1, 1),
        "w3": normal(seed + 1, CHANNELS, 1, 3, 3),
        "w4": 0.3 * normal(seed + 1, CHANNELS, CHANNELS, 1, 1),
    }


@quick
@given(
    seeds,
    st.tuples(st.integers(2, 5), st.integers(2, 5)),
    st.sampled_from(["Sigmoid", "Tanh", "Softplus", "Identity"]),
    st.integers(4, 10),
    st.booleans(),
)
def test_a_part_laid_channel_by_channel(
    seed: int, size: tuple[int, int], mixed: str, tail: int, joined: bool
) -> None:
    nodes = separable(mixed, tail, joined)
    values = separable_values(seed, size)
    used = [n for n in values if any(n in node.input for node in nodes)]
    values = {n: values[n] for n in used}
    wanted = [n for n in used if n not in ("half", "mean", "var")]
    check(nodes, values, wanted, batched=["x"], layout=channel_major)


@quick
@given(
    seed=seeds, size=st.sampled_from([(2, 3), (4, 4), (6, 5)]), batch=st.integers(1, 4), joined=st.booleans()
)
def test_a_step_is_the_same_in_both_layouts(
    seed: int, size: tuple[int, int], batch: int, joined: bool
) -> None:
    nodes = [*separable("Relu", 10, joined)]
    values = separable_values(seed, size)
    x = normal(seed, batch, *values.pop("x").shape[1:])
    nodes += [
        helper.make_node("Flatten", [nodes[-1].output[0]], ["flat"]),
        helper.make_node("Gemm", ["flat", "head"], ["out"]),
    ]
    values["head"] = 0.1 * normal(seed, CHANNELS * size[0] * size[1], 3)
    real = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "separable",
        [value_info("x", real, ("n", *x.shape[1:]))],
        [value_info("out", real, ("n", 3))],
        initializer=[numpy_helper.from_array(a, n) for n, a in values.items()],
    )
    file = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    y = np.arange(batch) % 3

    def stepped(layout: Any) -> dict[str, NDArray[Any]]:
        with patch.object(graphs, "channel_major", layout):
            bundle = Bundle.read(prepare(file.SerializeToString(), loss="cross_entropy"))
        session = ort.InferenceSession(bundle.parts["step"], providers=["CPUExecutionProvider"])
        start = {**bundle.schema.unflatten(bundle.initial), **bundle.frozen}
        given = {"x": x, bundle.manifest.targets[0].name: y, "lr": np.array(1.0, np.float32)}
        feeds: dict[str, Any] = {}
        for i in session.get_inputs():
            blank = np.zeros(
                [d if isinstance(d, int) else 1 for d in i.shape], "int64" if "int" in i.type else "float32"
            )
            feeds[i.name] = {**start, **given}.get(i.name, blank)
        names = [o.name for o in session.get_outputs()]
        return dict(zip(names, session.run(names, feeds), strict=True))

    found, due = stepped(channel_major), stepped(lambda g, nodes, moving: list(nodes))
    assert found.keys() == due.keys()
    for name, value in due.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-4, err_msg=name)


@pytest.mark.parametrize(
    ("change", "trained"),
    [
        ({"group": 1, "w": (8, 8, 3, 3)}, ["w"]),  # not depthwise
        ({"group": 8, "w": (16, 1, 3, 3)}, ["w"]),  # several filters a channel
        ({"group": 8, "w": (8, 1, 3, 3)}, ["x"]),  # the weight is frozen
        ({"group": 8, "w": (8, 1, 3, 3), "x": (43, 43)}, ["w"]),  # long rows
        ({"group": 8, "w": (8, 1, 3, 3), "x": (5, 4), "strides": [2, 2]}, ["w"]),  # groups that differ
        ({"group": 8, "w": (8, 1, 1, 1)}, ["w"]),  # nothing to sum
        ({"group": 8, "w": (8, 1, 3), "x": (6,)}, ["w"]),  # one axis
    ],
)
def test_what_gains_nothing_stays_as_it_is(change: dict[str, Any], trained: list[str]) -> None:
    size, strides = change.get("x", (6, 6)), change.get("strides", [1] * len(change.get("x", (6, 6))))
    made = [(n - k) // s + 1 for n, k, s in zip(size, change["w"][2:], strides, strict=True)]
    shapes = {"x": ("batch", 8, *size), "w": change["w"], "y": ("batch", change["w"][0], *made)}
    g = GraphBuilder((), {n: TensorType(onnx.TensorProto.FLOAT, s) for n, s in shapes.items()})
    node = helper.make_node("Conv", ["x", "w"], ["y"], group=change["group"], strides=strides)
    assert channel_major(g, [node], {*trained, "y"}) == [node]


@quick
@given(
    seed=seeds,
    size=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    taps=st.tuples(st.integers(1, 3), st.integers(1, 4)),
    dilations=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    above=st.integers(0, 3),
    left=st.integers(0, 7),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    batch=st.integers(1, 3),
)
def test_shifting_flat_images_is_unfolding_them(
    seed: int,
    size: tuple[int, int],
    taps: tuple[int, int],
    dilations: tuple[int, int],
    above: int,
    left: int,
    channels: tuple[int, int],
    batch: int,
) -> None:
    reach = [d * (k - 1) for d, k in zip(dilations, taps, strict=True)]
    made = (size[0] + 2 * above - reach[0], size[1])
    assume(made[0] > 0 and left <= reach[1])
    window = Window(taps, (1, 1), dilations, (above, left), size, made)
    c = Correlation(window, 1, *channels, "batch")
    assert shifts(c)
    shapes = {"x": ("batch", channels[0], *size), "dy": ("batch", channels[1], *made)}
    g = GraphBuilder((), {n: TensorType(onnx.TensorProto.FLOAT, s) for n, s in shapes.items()})
    kind = TensorType(onnx.TensorProto.FLOAT, c.weight)
    ways = ("sliced", "shifted_each")
    file = model(assemble(g, "both", ("x", "dy"), {w: (LOWERINGS[w](g, "x", "dy", c), kind) for w in ways}))
    session = ort.InferenceSession(file, providers=["CPUExecutionProvider"])
    feeds = {n: normal(seed, batch, *s[1:]) for n, s in shapes.items()}
    due, found = session.run(list(ways), feeds)
    np.testing.assert_allclose(found, due, rtol=1e-4, atol=1e-4)


def correlation(
    inside: int, outside: int, kernel: int, size: int, group: int = 1, stride: int = 1
) -> Correlation:
    window = Window(
        (kernel,) * 2, (stride,) * 2, (1, 1), (kernel // 2,) * 2, (size,) * 2, (size // stride,) * 2
    )
    return Correlation(window, group, inside, outside, "batch")


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("at_once", correlation(256, 256, 1, 4)),
        ("each_sample", correlation(32, 64, 1, 32)),
        ("sliced", correlation(4, 8, 3, 14, group=2)),
        ("sliced_each", correlation(4, 8, 3, 64, group=2)),
        ("rows_at_once", correlation(1, 8, 3, 14)),
        ("rows_at_once", correlation(6, 16, 5, 10)),
        ("rows_each", correlation(3, 16, 3, 32)),
        ("shifted_each", correlation(16, 16, 3, 32)),
        ("gathered", correlation(8, 16, 3, 8)),
        ("gathered_each", correlation(32, 64, 5, 14)),
        ("depthwise_each", correlation(128, 128, 3, 16, group=128, stride=2)),
    ],
)
def test_every_lowering_is_the_choice_for_some_layer(name: str, layer: Correlation) -> None:
    assert choice(layer) == name
    assert name in LOWERINGS


@pytest.mark.torch
@quick
@given(
    seeds,
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(0, 2),
    st.integers(1, 2),
    st.sampled_from([(1, 3, 4), (2, 4, 6), (8, 8, 8), (4, 4, 8), (1, 8, 4)]),
    st.booleans(),
)
def test_autograd_agrees(
    seed: int,
    kernel: int,
    stride: int,
    pad: int,
    dilation: int,
    grouped: tuple[int, int, int],
    transposed: bool,
) -> None:
    torch = pytest.importorskip("torch")
    group, inside, outside = grouped
    weight = (inside, outside // group) if transposed else (outside, inside // group)
    values = {
        "x": normal(seed, 2, inside, 7, 6),
        "w": normal(seed, *weight, kernel, kernel),
        "b": normal(seed, outside),
    }
    settings: dict[str, Any] = {
        "strides": [stride] * 2,
        "pads": [pad] * 4,
        "dilations": [dilation] * 2,
        "group": group,
    }
    leaves = {n: torch.tensor(a, requires_grad=True) for n, a in values.items()}
    apply = torch.nn.functional.conv_transpose2d if transposed else torch.nn.functional.conv2d
    y = apply(*leaves.values(), stride=stride, padding=pad, dilation=dilation, groups=group)
    assume(y.numel() > 0)
    dy = normal(seed, *y.shape)
    y.backward(torch.tensor(dy))
    node = helper.make_node("ConvTranspose" if transposed else "Conv", list(values), ["y"], **settings)
    found = rule_gradients([node], values, dy, list(values))
    for name, leaf in leaves.items():
        np.testing.assert_allclose(found[name], leaf.grad.numpy(), rtol=1e-4, atol=1e-4)


def normalised(attributes: dict[str, Any]) -> list[onnx.NodeProto]:
    """A convolution, and a normalisation of each channel after it."""
    inputs = ["c", "scale", "bias", "mean", "var"]
    return [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], **attributes),
        helper.make_node("BatchNormalization", inputs, ["y"], epsilon=1e-3),
    ]


def normalised_values(
    seed: int, size: list[int], kernel: list[int], channels: tuple[int, int]
) -> dict[str, NDArray[Any]]:
    seen, made = channels
    values = {"x": normal(seed, 2, seen, *size), "w": normal(seed, made, seen, *kernel)}
    values |= {n: normal(seed + i, made) for i, n in enumerate(("b", "scale", "bias", "mean"))}
    return values | {"var": np.square(normal(seed, made)) + np.float32(0.2)}


@quick
@given(seeds, windows(), st.booleans(), st.booleans())
def test_a_factor_for_each_channel_goes_through_the_weight(
    seed: int, window: tuple[list[int], dict[str, Any]], batched: bool, always: bool
) -> None:
    size, attributes = window
    # onnxruntime runs no forward pass with both.
    assume(not attributes.get("auto_pad", "").startswith("SAME") or set(attributes["dilations"]) == {1})
    values = normalised_values(seed, size, attributes["kernel_shape"], (2, 3))
    many = (lambda _: True) if always else convolution._many_windows
    with patch.object(convolution, "_many_windows", many):
        wanted = ["x", "w", "b", "scale", "bias"]
        check(normalised(attributes), values, wanted, batched=["x"] if batched else [])


@pytest.mark.parametrize(("pixels", "channels", "passes"), [(8, (4, 4), 0), (2, (16, 8), 1)])
def test_the_pass_over_the_data_for_that_factor_is_spared(
    pixels: int, channels: tuple[int, int], passes: int
) -> None:
    attributes: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1] * 4}
    values = normalised_values(0, [pixels] * 2, [3, 3], channels)
    nodes = normalised(attributes)
    types = {n: TensorType(onnx.TensorProto.FLOAT, a.shape) for n, a in values.items()}
    made = TensorType(onnx.TensorProto.FLOAT, (2, channels[1], pixels, pixels))
    g = GraphBuilder((), {**types, "c": made, "y": made, "dy": made})
    found = gradients(g, nodes, {"y": "dy"}, ["x", "w"])
    used = [n.op_type for n in live_nodes(g.nodes, list(found.values()))]
    assert used.count("BatchNormalization") == passes


@quick
@given(
    seeds, st.lists(st.tuples(st.integers(1, 6), st.integers(1, 3)), min_size=1, max_size=3), st.booleans()
)
def test_a_convolution_that_skips_pixels(seed: int, axes: list[tuple[int, int]], batched: bool) -> None:
    size, strides = zip(*axes, strict=True)
    ones = [1] * len(axes)
    values = {"x": normal(seed, 2, 3, *size), "w": normal(seed, 4, 3, *ones)}
    node = helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=ones, strides=strides)
    check(node, values, ["x", "w"], batched=["x"] if batched else [])
