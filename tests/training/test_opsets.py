"""The law of reading: what onnxruntime computes from a file, it computes from what was read of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from onnx import NodeProto, defs
from read_models import agree
from small_models import node, normal, onnx_file

OPSETS = range(7, defs.onnx_opset_version() + 1)


@dataclass(frozen=True)
class Case:
    """Nodes from `x` to `y` as they are written at some opset, their constants, and the shape of x."""

    nodes: Sequence[NodeProto]
    constants: Mapping[str, np.ndarray] = field(default_factory=dict)
    shape: tuple[int, ...] = (2, 3, 4, 6)


Write = Callable[[int], Case]


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def reduction(op: str, axes: Sequence[int], keepdims: int) -> Write:
    def write(opset: int) -> Case:
        as_input = opset >= (13 if op == "ReduceSum" else 18)
        if as_input:
            return Case([node(op, ["x", "axes"], ["y"], keepdims=keepdims)], {"axes": ints(*axes)})
        return Case([node(op, ["x"], ["y"], axes=axes, keepdims=keepdims)])

    return write


def softmax(op: str, axis: int | None) -> Write:
    given = {} if axis is None else {"axis": axis}
    return lambda opset: Case([node(op, ["x"], ["y"], **given)])


def arranged(op: str, axes: Sequence[int], shape: tuple[int, ...]) -> Write:
    def write(opset: int) -> Case:
        if opset >= 13:
            return Case([node(op, ["x", "axes"], ["y"])], {"axes": ints(*axes)}, shape)
        return Case([node(op, ["x"], ["y"], axes=axes)], {}, shape)

    return write


def split(sizes: Sequence[int] | None) -> Write:
    def write(opset: int) -> Case:
        joined = node("Concat", ["b", "a"], ["y"], axis=3)
        if sizes is None:
            more = {"num_outputs": 2} if opset >= 18 else {}
            return Case([node("Split", ["x"], ["a", "b"], axis=3, **more), joined])
        if opset >= 13:
            cut = node("Split", ["x", "sizes"], ["a", "b"], axis=3)
            return Case([cut, joined], {"sizes": ints(*sizes)})
        return Case([node("Split", ["x"], ["a", "b"], axis=3, split=sizes), joined])

    return write


def clip(opset: int) -> Case:
    if opset >= 11:
        bounds = {"low": np.array(-0.5, np.float32), "high": np.array(0.7, np.float32)}
        return Case([node("Clip", ["x", "low", "high"], ["y"])], bounds)
    return Case([node("Clip", ["x"], ["y"], min=-0.5, max=0.7)])


def pad(mode: str) -> Write:
    pads = [0, 0, 1, 2, 0, 0, 2, 1]

    def write(opset: int) -> Case:
        if opset >= 11:
            value = {"pads": ints(*pads), "value": np.array(1.5, np.float32)}
            return Case([node("Pad", ["x", "pads", "value"], ["y"], mode=mode)], value)
        return Case([node("Pad", ["x"], ["y"], pads=pads, value=1.5, mode=mode)])

    return write


def cut(opset: int) -> Case:
    if opset >= 10:
        values = {"s": ints(1, -5), "e": ints(3, 2**31), "a": ints(2, 3)}
        return Case([node("Slice", ["x", "s", "e", "a"], ["y"])], values)
    return Case([node("Slice", ["x"], ["y"], starts=[1, -5], ends=[3, 2**31], axes=[2, 3])])


def batch_normalization(extra: bool) -> Write:
    def write(opset: int) -> Case:
        values = {
            "scale": normal(1, 3),
            "bias": normal(2, 3),
            "mean": normal(3, 3),
            "var": normal(4, 3) ** 2 + 0.5,
        }
        inputs = ["x", *values]
        return Case([node("BatchNormalization", inputs, ["y"], epsilon=1e-3)], values)

    return write


def dropout(opset: int) -> Case:
    if opset >= 12:
        return Case([node("Dropout", ["x", "ratio"], ["y"])], {"ratio": np.array(0.3, np.float32)})
    return Case([node("Dropout", ["x"], ["y"], ratio=0.3)])


def upsampled(mode: str) -> Write:
    def write(opset: int) -> Case:
        scales = np.array([1, 1, 2, 3], np.float32)
        if opset < 9:
            return Case([node("Upsample", ["x"], ["y"], mode=mode, scales=scales.tolist())])
        if opset == 9:
            return Case([node("Upsample", ["x", "scales"], ["y"], mode=mode)], {"scales": scales})
        if opset == 10:
            return Case([node("Resize", ["x", "scales"], ["y"], mode=mode)], {"scales": scales})
        values = {"roi": np.zeros(0, np.float32), "scales": scales}
        how = "half_pixel" if mode == "linear" else "asymmetric"
        more = {"nearest_mode": "floor"} if mode == "nearest" else {}
        resize = node(
            "Resize", ["x", "roi", "scales"], ["y"], mode=mode, coordinate_transformation_mode=how, **more
        )
        return Case([resize], values)

    return write


def resized_to(opset: int) -> Case:
    if opset < 11:
        return upsampled("nearest")(opset)
    values = {"roi": np.zeros(0, np.float32), "none": np.zeros(0, np.float32), "sizes": ints(2, 3, 8, 9)}
    first = ["x", "roi", "none", "sizes"] if opset < 13 else ["x", "", "", "sizes"]
    how = "align_corners"
    return Case([node("Resize", first, ["y"], mode="linear", coordinate_transformation_mode=how)], values)


def top_k(opset: int) -> Case:
    if opset >= 10:
        return Case([node("TopK", ["x", "k"], ["y", "i"])], {"k": ints(2)})
    return Case([node("TopK", ["x"], ["y", "i"], k=2)])


def pooled(op: str, **attributes: Any) -> Write:
    return lambda opset: Case([node(op, ["x"], ["y"], kernel_shape=[2, 2], strides=[2, 2], **attributes)])


def plain(op: str, since: int = 7, **attributes: Any) -> Write:
    def write(opset: int) -> Case:
        assert opset >= since or not attributes
        return Case([node(op, ["x"], ["y"], **(attributes if opset >= since else {}))])

    return write


def exotic(
    op: str, extra: Mapping[str, np.ndarray] | None = None, shape: Sequence[int] = (2, 3, 4, 6), **how: Any
):
    """An operator that came later than opset 18."""
    values = dict(extra or {})
    return lambda opset: Case([node(op, ["x", *values], ["y"], **how)], values, tuple(shape))


def group_normalization(opset: int) -> Case:
    values = {"s": normal(1, 4), "b": normal(2, 4)}
    return Case([node("GroupNormalization", ["x", "s", "b"], ["y"], num_groups=2)], values, (2, 4, 3, 3))


def recurrent(op: str, gates: int) -> Write:
    def write(opset: int) -> Case:
        values = {
            "w": normal(1, 2, gates * 3, 5),
            "r": normal(2, 2, gates * 3, 3),
            "b": normal(3, 2, gates * 6),
        }
        run = node(op, ["x", "w", "r", "b"], ["y"], hidden_size=3, direction="bidirectional")
        return Case([run], values, (4, 2, 5))

    return write


CASES: Mapping[str, tuple[int, Write]] = {
    **{
        f"{op} {axes} {keep}": (7, reduction(op, axes, keep))
        for op in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceL2", "ReduceLogSumExp")
        for axes, keep in (((1,), 1), ((2, 3), 0), ((-1,), 0))
    },
    **{
        f"{op} {axis}": (7, softmax(op, axis))
        for op in ("Softmax", "LogSoftmax", "Hardmax")
        for axis in (None, 1, 2, 3)
    },
    "Softmax -1": (11, softmax("Softmax", -1)),
    "Squeeze": (7, arranged("Squeeze", [1, 3], (2, 1, 4, 1))),
    "Unsqueeze": (7, arranged("Unsqueeze", [0, 2], (2, 3))),
    "Split even": (7, split(None)),
    "Split sizes": (7, split((2, 4))),
    "Clip": (7, clip),
    "Pad constant": (7, pad("constant")),
    "Pad reflect": (7, pad("reflect")),
    "Pad edge": (7, pad("edge")),
    "Slice": (7, cut),
    "BatchNormalization": (7, batch_normalization(False)),
    "Dropout": (7, dropout),
    "Upsample nearest": (7, upsampled("nearest")),
    "Upsample linear": (7, upsampled("linear")),
    "Resize sizes": (7, resized_to),
    "TopK": (7, top_k),
    "MaxPool": (7, pooled("MaxPool")),
    "MaxPool padded": (7, pooled("MaxPool", pads=[1, 1, 1, 1])),
    "AveragePool": (7, pooled("AveragePool", pads=[1, 0, 1, 0], count_include_pad=1)),
    "AveragePool same": (7, pooled("AveragePool", auto_pad="SAME_UPPER")),
    "AveragePool ceil": (10, pooled("AveragePool", ceil_mode=1)),
    "LpPool": (7, pooled("LpPool", p=2)),
    "Flatten": (7, plain("Flatten", axis=2)),
    "Transpose": (7, plain("Transpose", perm=[0, 2, 3, 1])),
    "Elu": (7, plain("Elu", alpha=0.7)),
    "Selu": (7, plain("Selu")),
    "LeakyRelu": (7, plain("LeakyRelu", alpha=0.2)),
    "HardSigmoid": (7, plain("HardSigmoid", alpha=0.3)),
    "ThresholdedRelu": (10, plain("ThresholdedRelu", alpha=0.5)),
    "Softplus": (7, plain("Softplus")),
    "Softsign": (7, plain("Softsign")),
    "HardSwish": (14, plain("HardSwish")),
    "Mish": (18, plain("Mish")),
    "Erf": (9, plain("Erf")),
    "Celu": (12, plain("Celu", alpha=0.6)),
    "MeanVarianceNormalization": (9, plain("MeanVarianceNormalization")),
    "DepthToSpace": (7, lambda o: Case([node("DepthToSpace", ["x"], ["y"], blocksize=2)], {}, (2, 8, 3, 3))),
    "LRN": (7, plain("LRN", size=3)),
    "CumSum": (11, lambda o: Case([node("CumSum", ["x", "a"], ["y"])], {"a": np.array(2, np.int64)})),
    "InstanceNormalization": (
        7,
        lambda o: Case(
            [node("InstanceNormalization", ["x", "s", "b"], ["y"])], {"s": normal(1, 3), "b": normal(2, 3)}
        ),
    ),
    "LayerNormalization": (
        17,
        lambda o: Case([node("LayerNormalization", ["x", "s"], ["y"], axis=-1)], {"s": normal(1, 6)}),
    ),
    "GroupNormalization": (21, group_normalization),
    "Gelu": (20, exotic("Gelu")),
    "Gelu tanh": (20, exotic("Gelu", approximate="tanh")),
    "Swish": (24, exotic("Swish", alpha=1.3)),
    "RMSNormalization": (23, exotic("RMSNormalization", {"s": normal(1, 6)})),
    "RotaryEmbedding": (
        23,
        exotic("RotaryEmbedding", {"cos": normal(1, 2, 4, 3), "sin": normal(2, 2, 4, 3)}),
    ),
    "Attention": (23, exotic("Attention", {"k": normal(1, 2, 3, 5, 6), "v": normal(2, 2, 3, 5, 6)})),
    "GridSample": (
        16,
        lambda o: Case(
            [node("GridSample", ["x", "g"], ["y"], mode="bilinear" if o < 20 else "linear")],
            {"g": np.tanh(normal(1, 2, 5, 5, 2))},
        ),
    ),
    "Cast": (7, lambda o: Case([node("Cast", ["x"], ["i"], to=7), node("Cast", ["i"], ["y"], to=1)])),
    "Gemm": (
        7,
        lambda o: Case(
            [node("Gemm", ["x", "w", "b"], ["y"], transB=1, alpha=0.5)],
            {"w": normal(1, 5, 4), "b": normal(2, 5)},
            (3, 4),
        ),
    ),
    "PRelu": (7, lambda o: Case([node("PRelu", ["x", "w"], ["y"])], {"w": normal(1, 3, 1, 1)})),
    "ConvTranspose": (
        7,
        lambda o: Case(
            [node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2])], {"w": normal(1, 3, 2, 3, 3)}
        ),
    ),
    "Conv": (
        7,
        lambda o: Case(
            [node("Conv", ["x", "w"], ["y"], auto_pad="SAME_LOWER")], {"w": normal(1, 2, 3, 3, 3)}
        ),
    ),
    "LSTM": (7, recurrent("LSTM", 4)),
    "GRU": (7, recurrent("GRU", 3)),
    "RNN": (7, recurrent("RNN", 1)),
}


def file_of(case: Case, opset: int, batch: int | str) -> bytes:
    """The case behind a weight, so that operators lie on the way of a gradient."""
    nodes = [node("Mul", ["x", "w0"], ["x1"])]
    for n in case.nodes:
        copy = NodeProto()
        copy.CopyFrom(n)
        copy.input[:] = ["x1" if i == "x" else i for i in n.input]
        nodes.append(copy)
    weights = {"w0": normal(8, case.shape[-1]), **case.constants}
    return onnx_file(nodes, weights, (batch, *case.shape[1:]), opset=opset)


@pytest.mark.parametrize("name", CASES)
def test_every_opset_is_read_as_onnxruntime_reads_it(name: str) -> None:
    since, write = CASES[name]
    tried = 0
    for opset in (o for o in OPSETS if o >= since):
        case = write(opset)
        # The constants of some have a batch axis of their own.
        fixed = name in ("RotaryEmbedding", "GridSample", "Attention")
        file = file_of(case, opset, case.shape[0] if fixed else "n")
        try:
            agree(file, {"x": normal(9, *case.shape)})
        except Exception as e:
            if "Could not find an implementation" in str(e):
                continue  # onnxruntime has no kernel for the original
            raise AssertionError(f"opset {opset}") from e
        tried += 1
    assert tried
