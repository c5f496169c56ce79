"""Laws of the gradient rules of convolutions: they agree with central differences, whatever the lowering."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from gradient_check import check, rule_gradients
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper

from laconic.errors import ModelError
from laconic.training.rules import convolution, convolution_weight
from laconic.training.rules.convolution_weight import LOWERINGS, Correlation, choice
from laconic.training.rules.window import Window

quick = settings(max_examples=20, deadline=None)
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


@settings(max_examples=60, deadline=None)
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
        return ["sliced", "sliced_each", "gathered", "gathered_each", "gathered_batch_last", *pointwise]
    if c.group == c.channels_in == c.channels_out:
        return ["sliced", "sliced_each", "depthwise_each"]
    return ["sliced", "sliced_each"]


@settings(max_examples=60, deadline=None)
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
        ("sliced", correlation(1, 8, 3, 14)),
        ("sliced_each", correlation(3, 16, 3, 32)),
        ("gathered_batch_last", correlation(1, 6, 5, 28)),
        ("gathered", correlation(6, 16, 5, 10)),
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
