"""Laws of RNN, GRU and LSTM: gradients in every variant, either way forward, and PyTorch's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from gradient_check import check
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

from laconic.errors import ModelError
from laconic.training.assemble import assemble, model
from laconic.training.backward import gradients
from laconic.training.builder import Dim, GraphBuilder, TensorType
from laconic.training.exact import evaluator
from laconic.training.forward import lay
from laconic.training.rules import Training
from laconic.training.rules.recurrent.lstm import MANY
from often import examples

COVERED: dict[str, str] = {"RNN": "test_rnn", "GRU": "test_gru", "LSTM": "test_lstm"}

quick = settings(max_examples=examples(12), deadline=None)
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
WAYS = ["forward", "reverse", "bidirectional"]
Arrays = dict[str, NDArray[Any]]

ways = st.sampled_from(WAYS)
seeds = st.integers(0, 2**16)
optional = st.sets(st.sampled_from(["b", "lengths", "h0", "c0"]))
read_outputs = st.lists(st.sampled_from(["y", "h", "c"]), min_size=1, max_size=3, unique=True)


def tensors(
    kind: str, seed: int, way: str, given_: set[str], steps: int, batch: int, inputs: int, hidden: int
) -> Arrays:
    rng = np.random.default_rng(seed)
    count, height = 1 + (way == "bidirectional"), GATES[kind] * hidden

    def normal(scale: float, *shape: int) -> NDArray[np.float32]:
        return (scale * rng.standard_normal(shape)).astype(np.float32)

    values: Arrays = {
        "x": normal(1, steps, batch, inputs),
        "w": normal(0.5, count, height, inputs),
        "r": normal(0.5, count, height, hidden),
    }
    if "b" in given_:
        values["b"] = normal(0.5, count, 2 * height)
    if "lengths" in given_:
        values["lengths"] = rng.integers(1, steps + 1, batch).astype(np.int32)
    if "h0" in given_:
        values["h0"] = normal(0.5, count, batch, hidden)
    if "c0" in given_ and kind == "LSTM":
        values["c0"] = normal(0.5, count, batch, hidden)
    return values


def layer(
    kind: str, values: Mapping[str, Any], way: str, outputs: Sequence[str], **attributes: Any
) -> NodeProto:
    names = ["x", "w", "r", *(n if n in values else "" for n in ("b", "lengths", "h0", "c0"))]
    while not names[-1]:
        names.pop()
    made = [o if o in outputs else "" for o in ("y", "h", "c")[: 3 if kind == "LSTM" else 2]]
    while not made[-1]:
        made.pop()
    hidden = values["r"].shape[2]
    return helper.make_node(kind, names, made, hidden_size=hidden, direction=way, **attributes)


def joined(outputs: Sequence[str]) -> list[NodeProto]:
    """One tensor of all outputs, along the axis of steps."""
    nodes = [helper.make_node("Unsqueeze", [o, "first"], [f"{o}4"]) if o != "y" else None for o in outputs]
    names = ["y" if o == "y" else f"{o}4" for o in outputs]
    return [*filter(None, nodes), helper.make_node("Concat", names, ["all"], axis=0)]


def hold(
    kind: str,
    seed: int,
    way: str,
    given_: set[str],
    outputs: Sequence[str],
    free: bool,
    steps: int = 3,
    **attributes: Any,
) -> None:
    if kind != "LSTM":
        outputs = [o for o in outputs if o != "c"] or ["h"]
    values = tensors(kind, seed, way, given_, steps, 2, 2, 3)
    clear_of_kinks(kind, values, way, attributes)
    values["first"] = np.array([0])
    wanted = [n for n, a in values.items() if a.dtype == np.float32]
    nodes = [layer(kind, values, way, outputs, **attributes), *joined(outputs)]
    batched: list[str] = []
    if free:
        # The batch is the free axis, which a check knows as the first.
        values["x"] = np.ascontiguousarray(values["x"].transpose(1, 0, 2))
        nodes = [helper.make_node("Transpose", ["x"], ["turned"], perm=[1, 0, 2]), *nodes]
        nodes[1].input[0] = "turned"
        batched = ["x"]
        if {"h0", "c0", "lengths"} & set(values):
            batched = []
    check(nodes, values, wanted, batched=batched, seed=seed)


def clear_of_kinks(kind: str, values: Arrays, way: str, attributes: Mapping[str, Any]) -> None:
    """Shift the bias until no Relu is near its kink."""
    if "Relu" not in attributes.get("activations", []):
        return
    values["w"], values["r"] = abs(values["w"]), abs(values["r"])
    values["x"] = abs(values["x"]) + 0.1
    values["b"] = np.full((len(values["w"]), 2 * values["r"].shape[2]), 0.1, np.float32)
    if "h0" in values:
        values["h0"] = abs(values["h0"])
    # One unit never opens: its slope is 0 all along.
    values["b"][:, 0] = -50.0


@quick
@given(seeds, ways, optional, read_outputs, st.booleans(), st.sampled_from(["Tanh", "Sigmoid", "Relu", None]))
def test_rnn(
    seed: int, way: str, given_: set[str], outputs: list[str], free: bool, activation: str | None
) -> None:
    names = [activation] * (1 + (way == "bidirectional"))
    attributes: dict[str, Any] = {"activations": names} if activation else {}
    hold("RNN", seed, way, given_, outputs, free, **attributes)


@quick
@given(seeds, ways, optional, read_outputs, st.booleans(), st.integers(0, 1))
def test_gru(
    seed: int, way: str, given_: set[str], outputs: list[str], free: bool, linear_before_reset: int
) -> None:
    hold("GRU", seed, way, given_, outputs, free, linear_before_reset=linear_before_reset)


@settings(max_examples=examples(8), deadline=None)
@given(seeds, ways, optional, read_outputs, st.booleans(), st.sampled_from([1, 3, 16, 26]))
def test_lstm(seed: int, way: str, given_: set[str], outputs: list[str], free: bool, steps: int) -> None:
    """Lengths with and without small divisors, which decide how the cell's state is found."""
    hold("LSTM", seed, way, given_, outputs, free, steps)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("steps", [(-1,), (3,), (0,), (2,), (2, 3)])
@settings(max_examples=examples(3), deadline=None)
@given(
    seeds,
    st.sampled_from(sorted(GATES)),
    st.sampled_from(["forward", "forward", "reverse"]),
    st.sampled_from([set(), {"h0", "b"}, {"lengths"}]),
)
def test_one_step_read(
    steps: tuple[int, ...], batch_first: bool, seed: int, kind: str, way: str, given_: set[str]
) -> None:
    """A classifier reads one step of Y, in most cases the last: then the others get no gradient."""
    values = tensors(kind, seed, way, given_, 4, 2, 2, 3)
    values |= {"directions": np.array([1]), "index": np.array(steps[0])}
    values |= {
        "from": np.array([steps[0]]),
        "to": np.array([steps[-1] + 1]),
        "axis": np.array([int(batch_first)]),
    }
    wanted = [n for n, a in values.items() if a.dtype == np.float32]
    nodes = [layer(kind, values, way, ["y"]), helper.make_node("Squeeze", ["y", "directions"], ["steps"])]
    if batch_first:
        nodes.append(helper.make_node("Transpose", ["steps"], ["turned"], perm=[1, 0, 2]))
    read = "turned" if batch_first else "steps"
    if len(steps) == 1:
        nodes.append(helper.make_node("Gather", [read, "index"], ["some"], axis=int(batch_first)))
    else:
        nodes.append(helper.make_node("Slice", [read, "from", "to", "axis"], ["some"]))
    check(nodes, values, wanted, seed=seed, double=False)


@quick
@given(seeds, st.sampled_from(sorted(GATES)), ways, optional, st.integers(0, 1))
def test_definitions_agree_with_onnxruntime(
    seed: int, kind: str, way: str, given_: set[str], linear_before_reset: int
) -> None:
    """The definitions that gradients are checked against are what onnxruntime runs."""
    values = tensors(kind, seed, way, given_, 4, 3, 2, 5)
    extra = {"linear_before_reset": linear_before_reset} if kind == "GRU" else {}
    outputs = ["y", "h", "c"][: 3 if kind == "LSTM" else 2]
    node = layer(kind, values, way, outputs, **extra)
    g = GraphBuilder([node], {n: TensorType(_code(a), a.shape) for n, a in values.items()})
    results = {f"{o}!": (o, TensorType(TensorProto.FLOAT, ("?",) * (3 + (o == "y")))) for o in outputs}
    encoded = model(assemble(g, "forward", list(values), results))
    for got, due in zip(
        ort.InferenceSession(encoded).run(None, values), evaluator(encoded).run(None, values), strict=True
    ):
        np.testing.assert_allclose(got, due, atol=1e-6)


def _code(array: NDArray[Any]) -> int:
    return int(helper.np_dtype_to_tensor_dtype(array.dtype))


def step_gradients(
    node: NodeProto, values: Arrays, dys: Arrays, shape: tuple[Dim, Dim], training: bool
) -> dict[str, NDArray[Any]]:
    """Outputs and gradients of one layer in a training step, or as laid for evaluation; `shape` is what is
    known of length and batch."""
    length, batch = shape
    real = TensorProto.FLOAT
    types = {n: TensorType(_code(a), a.shape) for n, a in values.items()}
    types["x"] = TensorType(real, (length, batch, values["x"].shape[2]))
    for state in {"h0", "c0"} & set(values):
        types[state] = TensorType(real, (values[state].shape[0], batch, values[state].shape[2]))
    g = GraphBuilder((), types)
    saved = lay(g, [node], Training((), {}, lambda: "seed") if training else None)
    for name, dy in dys.items():
        g.declare(f"d{name}!", real, dy.shape)
    wanted = [n for n, a in values.items() if a.dtype == np.float32]
    found = gradients(g, [node], {n: f"d{n}!" for n in dys}, wanted, saved)
    results = {f"d{n}": (found[n], types[n]) for n in wanted}
    results |= {f"{n}!": (n, TensorType(real, ("?",) * dy.ndim)) for n, dy in dys.items()}
    encoded = model(assemble(g, "step", [*values, *(f"d{n}!" for n in dys)], results))
    session = ort.InferenceSession(encoded, providers=["CPUExecutionProvider"])
    got = session.run(list(results), {**values, **{f"d{n}!": dy for n, dy in dys.items()}})
    return dict(zip(results, got, strict=True))


@quick
@given(seeds, ways, optional, read_outputs, st.sampled_from([1, 3, 20]), st.booleans(), st.booleans())
def test_both_ways_forward_agree(
    seed: int, way: str, given_: set[str], outputs: list[str], steps: int, many: bool, known: bool
) -> None:
    """An LSTM in a training step takes the loop or the operator by the size of its batch, known or not, and
    gives the same."""
    hidden, count = 64, 1 + (way == "bidirectional")
    batch = MANY // hidden + (0 if many else -1)
    values = tensors("LSTM", seed, way, given_ - {"lengths"}, steps, batch, 3, hidden)
    values = {n: a / 4 if n in "wr" else a for n, a in values.items()}
    rng = np.random.default_rng(seed)
    shapes = {"y": (steps, count, batch, hidden), "h": (count, batch, hidden), "c": (count, batch, hidden)}
    dys = {n: rng.standard_normal(shapes[n]).astype(np.float32) for n in outputs}
    node = layer("LSTM", values, way, outputs)
    due = step_gradients(node, values, dys, (steps, batch), training=False)
    got = step_gradients(node, values, dys, (steps, batch) if known else ("steps", "batch"), training=True)
    for name in due:
        scale = np.abs(due[name]).max()
        np.testing.assert_allclose(got[name], due[name], atol=3e-6 * max(1, scale), err_msg=name)


@pytest.mark.torch
@pytest.mark.parametrize("kind", sorted(GATES))
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("batch", [2, 40])
def test_torch_agrees(kind: str, bidirectional: bool, batch: int) -> None:
    """Both axes free, all inputs and outputs."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(1)
    steps, inputs, hidden, count = 7, 5, 32, 1 + bidirectional
    net = getattr(torch.nn, kind)(inputs, hidden, bidirectional=bidirectional)
    x = torch.randn(steps, batch, inputs, requires_grad=True)
    states = [
        torch.randn(count, batch, hidden, requires_grad=True) for _ in range(2 if kind == "LSTM" else 1)
    ]
    y, last = net(x, tuple(states) if kind == "LSTM" else states[0])
    outputs = [y, *last] if kind == "LSTM" else [y, last]
    douts = [torch.randn_like(o) for o in outputs]
    torch.autograd.backward(outputs, douts)

    # PyTorch's order of gates is i, f, g, o and r, z, n.
    order = {"RNN": [0], "GRU": [1, 0, 2], "LSTM": [0, 3, 1, 2]}[kind]
    ends = ["", "_reverse"][:count]

    def stacked(name: str, gradient: bool) -> NDArray[np.float32]:
        found = [getattr(net, f"{name}_l0{end}") for end in ends]
        arrays = [(p.grad if gradient else p.detach()).numpy() for p in found]
        parts = [a.reshape(len(order), hidden, *a.shape[1:])[order].reshape(a.shape) for a in arrays]
        return np.stack(parts)

    def laid(gradient: bool) -> Arrays:
        data = [x, *states]
        named = {
            n: (t.grad if gradient else t.detach()).numpy()
            for n, t in zip(("x", "h0", "c0"), data, strict=False)
        }
        b = np.concatenate([stacked("bias_ih", gradient), stacked("bias_hh", gradient)], axis=1)
        return named | {"w": stacked("weight_ih", gradient), "r": stacked("weight_hh", gradient), "b": b}

    values = laid(False)
    way = "bidirectional" if bidirectional else "forward"
    extra = {"linear_before_reset": 1} if kind == "GRU" else {}
    node = layer(kind, values, way, ["y", "h", "c"], **extra)
    dys = dict(zip("yhc", [d.numpy() for d in douts], strict=False))
    dys["y"] = np.ascontiguousarray(dys["y"].reshape(steps, batch, count, hidden).transpose(0, 2, 1, 3))
    got = step_gradients(node, values, dys, ("steps", "batch"), training=True)
    for name, due in laid(True).items():
        np.testing.assert_allclose(got[f"d{name}"], due, atol=2e-5 * np.abs(due).max(), err_msg=name)


@pytest.mark.parametrize(
    ("kind", "attributes"),
    [
        ("LSTM", {"clip": 1.0}),
        ("LSTM", {"input_forget": 1}),
        ("GRU", {"layout": 1}),
        ("LSTM", {"activations": ["Sigmoid", "Relu", "Tanh"]}),
        ("GRU", {"activations": ["HardSigmoid", "Tanh"]}),
        ("RNN", {"activations": ["Elu"]}),
    ],
)
def test_refusals_name_the_node_and_a_way_out(kind: str, attributes: dict[str, Any]) -> None:
    values = tensors(kind, 0, "forward", set(), 3, 2, 2, 3)
    node = layer(kind, values, "forward", ["y"], **attributes)
    dys = {"y": np.zeros((3, 1, 2, 3), np.float32)}
    with pytest.raises(ModelError, match=f"of {kind} 'y'.*; export"):
        step_gradients(node, values, dys, (3, 2), training=True)
