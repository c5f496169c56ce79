"""Lays parts of a model with channels outermost, for the sake of its depthwise convolutions.

There a batch (samples, channels, height, width) becomes (1, channels, samples * height, width): one sample
whose planes are all samples' planes, one below the other. Normalisation by channel, 1x1 convolutions and
operators that act on each element alone mean the same in both layouts and stand as they are; depthwise
convolutions become products (`laconic.training.rules.depthwise`); a transposition stands where such a part
begins or ends. Only for training: the graphs of evaluation and inference keep the model's own nodes.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence

from onnx import NodeProto, helper

from laconic.training.builder import Dim, GraphBuilder, Shape, TensorType
from laconic.training.rules.application import Application
from laconic.training.rules.depthwise import PLANES, divides
from laconic.training.rules.window import Window, window_of

WIDEST = 14
"""Pixels in a row, for each column of the window, up to which a depthwise convolution is laid so.

Beyond, most of the product is zeros. A whole step of a depthwise and a 1x1 convolution at batch 8, laid so
and not: 3x3 windows on 14x14 pixels 5.9 and 7.1 ms, on 28x28 12.0 and 12.0, on 56x56 24.7 and 23.5; 5x5 on
14x14 7.4 and 13.0, on 28x28 15 and 22, on 56x56 71 and 101. At batch 1 the limit is about the same.
"""

FEWEST_CHANNELS = 8
"""With fewer channels, too, it stays as it is: there is little to gain."""

ELEMENTWISE = frozenset(
    {
        "Abs",
        "Add",
        "Clip",
        "Div",
        "Elu",
        "Exp",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "LeakyRelu",
        "Mish",
        "Mul",
        "Neg",
        "Relu",
        "Selu",
        "Sigmoid",
        "Softplus",
        "Sub",
        "Swish",
        "Tanh",
        "ThresholdedRelu",
    }
)
"""Operators that act on each element alone; their inputs have one shape, or one value, or one a channel."""


def channel_major(g: GraphBuilder, nodes: Sequence[NodeProto], moving: Collection[str]) -> list[NodeProto]:
    """`nodes` with the parts around depthwise convolutions whose weight is trained laid channel by channel.

    All tensors that existed still do, under their names; what nobody reads is dropped with the rest. `moving`
    are the tensors that depend on a trained weight; types of new tensors are entered in `g`.
    """
    windows = {i: w for i, n in enumerate(nodes) if (w := _depthwise(g, n, moving)) is not None}
    if not windows:
        return list(nodes)
    carriers = {i for i, n in enumerate(nodes) if i not in windows and _carries(g, n)}
    inside = windows.keys() | _between(nodes, windows.keys(), carriers)
    turned: dict[str, str] = {}
    laid: list[NodeProto] = []
    for i, node in enumerate(nodes):
        if i not in inside:
            laid.append(node)
            continue
        # A Conv's weight may have four axes too; what else these nodes read are values of channels.
        shown = [n for n in node.input if n and _shape(g, n) == g.shape(node.output[0])]
        moved = list(dict.fromkeys(shown if node.op_type in ELEMENTWISE else node.input[:1]))
        for name in (n for n in moved if n not in turned):
            laid += _entrance(g, name, turned)
        output = str(node.output[0])
        turned[output] = _twin(g, output)
        laid.append(_renamed(g, node, {n: turned[n] for n in (*moved, output)}, windows.get(i)))
        laid += _exit(g, output, turned[output])
    return laid


def _depthwise(g: GraphBuilder, node: NodeProto, moving: Collection[str]) -> Window | None:
    """The window of a depthwise convolution that gains by products with banded matrices."""
    if node.op_type != "Conv" or node.input[1] not in moving or not _planes(g, node.input[0]):
        return None
    kernel = g.shape(node.input[1])
    a = Application(g, node)
    group, channels = int(a.attribute("group", 1)), g.shape(node.input[0])[1]
    if not FEWEST_CHANNELS <= group == channels == kernel[0] or not _planes(g, node.output[0]):
        return None
    window = window_of(a, tuple(k for k in kernel[2:] if isinstance(k, int)))
    narrow = max(window.input[1], window.output[1]) <= WIDEST * window.kernel[1]
    return window if narrow and window.taps > 1 and divides(window) else None


def _carries(g: GraphBuilder, node: NodeProto) -> bool:
    """Whether the node means the same for planes laid channel by channel."""
    if len(node.output) != 1 or not _planes(g, node.output[0]):
        return False
    shape = g.shape(node.output[0])
    if node.op_type == "BatchNormalization":
        return True
    if node.op_type == "Conv":
        if _shape(g, node.input[1]) is None or not _planes(g, node.input[0]):
            return False
        kernel = tuple(k for k in g.shape(node.input[1])[2:] if isinstance(k, int))
        a = Application(g, node)
        return int(a.attribute("group", 1)) == 1 and kernel == (1, 1) and window_of(a, kernel).pointwise
    return node.op_type in ELEMENTWISE and all(
        _shape(g, n) == shape or _spread(g, n, shape[1]) for n in node.input if n
    )


def _planes(g: GraphBuilder, name: str) -> bool:
    """Whether a tensor is a batch of planes whose size is known, of more than one pixel."""
    known = g.types.get(name)
    if known is None or known.dtype != g.real or known.shape is None or len(known.shape) != 4:
        return False
    size = [d for d in known.shape[1:] if isinstance(d, int)]
    return len(size) == 3 and min(size) > 0 and math.prod(size[1:]) > 1


def _spread(g: GraphBuilder, name: str, channels: Dim) -> bool:
    """Whether a tensor has one value, or one for each channel, and so means the same in both layouts."""
    shape = _shape(g, name)
    return shape is not None and (
        set(shape) <= {1} or (shape[-3:] == (channels, 1, 1) and set(shape[:-3]) <= {1})
    )


def _shape(g: GraphBuilder, name: str) -> Shape | None:
    known = g.types.get(name)
    return None if known is None else known.shape


def _between(nodes: Sequence[NodeProto], seeds: Collection[int], carriers: Collection[int]) -> set[int]:
    """Those carriers that lie on a way from one depthwise convolution to another."""
    makers = {str(o): i for i, n in enumerate(nodes) for o in n.output}
    below, above = set(seeds), set(seeds)
    for i, node in enumerate(nodes):
        if i in carriers and any(makers.get(n, -1) in below for n in node.input):
            below.add(i)
    needed: set[str] = set()
    for i in reversed(range(len(nodes))):
        if i in carriers and nodes[i].output[0] in needed:
            above.add(i)
        if i in above:
            needed.update(nodes[i].input)
    return below & above - set(seeds)


def _twin(g: GraphBuilder, name: str) -> str:
    """A name for the same tensor laid channel by channel."""
    samples, channels, height, width = g.shape(name)
    twin = g.fresh(name)
    g.types[twin] = TensorType(g.real, (1, channels, _times(samples, height), width))
    return twin


def _times(samples: int | str, height: int | str) -> int | str:
    known = isinstance(samples, int) and isinstance(height, int)
    return int(samples) * int(height) if known else f"{samples}*{height}"


def _entrance(g: GraphBuilder, name: str, turned: dict[str, str]) -> Iterator[NodeProto]:
    samples, channels, height, width = g.shape(name)
    between, turned[name] = g.fresh(name), _twin(g, name)
    g.types[between] = TensorType(g.real, (channels, samples, height, width))
    yield helper.make_node("Transpose", [name], [between], perm=[1, 0, 2, 3])
    yield _reshape(g, between, turned[name], (1, channels, -1, width))


def _exit(g: GraphBuilder, name: str, twin: str) -> Iterator[NodeProto]:
    samples, channels, height, width = g.shape(name)
    between = g.fresh(name)
    g.types[between] = TensorType(g.real, (channels, samples, height, width))
    yield _reshape(g, twin, between, (channels, -1, height, width))
    yield helper.make_node("Transpose", [between], [name], perm=[1, 0, 2, 3])


def _reshape(g: GraphBuilder, x: str, y: str, target: Shape) -> NodeProto:
    return helper.make_node("Reshape", [x, g.ints(*(int(d) for d in target))], [y])


def _renamed(g: GraphBuilder, node: NodeProto, names: Mapping[str, str], window: Window | None) -> NodeProto:
    out = NodeProto()
    out.CopyFrom(node)
    out.input[:] = [names.get(n, n) for n in node.input]
    out.output[:] = [names[n] for n in node.output]
    if node.op_type == "Conv":
        own = {"strides", "dilations", "pads", "auto_pad"}
        kept = [a for a in node.attribute if a.name not in own]
        del out.attribute[:]
        out.attribute.extend(kept)
        size = [d for n in (node.input[0], node.output[0]) for d in g.static(n, 2)]
        out.attribute.append(helper.make_attribute(PLANES, size))
        if window is not None:
            pads = [*window.before, *(max(0, p) for p in window.after)]
            for key, value in (("strides", window.strides), ("dilations", window.dilations), ("pads", pads)):
                out.attribute.append(helper.make_attribute(key, list(value)))
    return out
