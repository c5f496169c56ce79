"""RNN, GRU and LSTM for `laconic.training.exact`, and the loop Scan: by their definitions in the ONNX
specification (opset 14 and 16), with numpy.

onnx's own reference has no second direction, no sequence lengths and no loop that runs backwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from onnx.reference.op_run import OpRun

Array: TypeAlias = NDArray[Any]
States: TypeAlias = tuple[Array, ...]
Step: TypeAlias = Callable[[Array, States], States]
"""`step(x, states)`: the states after one step; the first of them is the output."""


def _sigmoid(x: Array) -> Array:
    half: Array = np.tanh(x / 2) / 2 + 0.5
    return half


_ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "relu": lambda x: np.maximum(x, 0),
    "sigmoid": _sigmoid,
    "tanh": np.tanh,
}


def _run_direction(
    x: Array, lengths: Array | None, first: States, reverse: bool, step: Step
) -> tuple[Array, States]:
    """The output of every step, zero after a sequence's end, and the last states."""
    states, y = first, np.zeros((len(x), *first[0].shape), x.dtype)
    for t in reversed(range(len(x))) if reverse else range(len(x)):
        moved = step(x[t], states)
        if lengths is not None:
            inside = (t < lengths)[:, None]
            states = tuple(np.where(inside, new, old) for new, old in zip(moved, states, strict=True))
            y[t] = np.where(inside, moved[0], 0)
        else:
            states, y[t] = moved, moved[0]
    return y, states


class _Recurrent(OpRun):
    """Runs one direction after the other; what a step does is the subclass's."""

    op_domain = ""
    gates = 1
    default: tuple[str, ...] = ("Tanh",)

    def step(self, w: Array, r: Array, b: Array, f: Sequence[Callable[[Array], Array]]) -> Step:
        """One step of a direction with these weights, biases of input and recurrence, and activations."""
        raise NotImplementedError

    def _run(
        self,
        x: Array,
        w: Array,
        r: Array,
        b: Array | None = None,
        lengths: Array | None = None,
        h0: Array | None = None,
        c0: Array | None = None,
        *_: Array,
        activations: Sequence[str] | None = None,
        direction: str | None = None,
        **attributes: Any,
    ) -> tuple[Array, ...]:
        if attributes.get("layout") or attributes.get("clip") or attributes.get("input_forget"):
            raise NotImplementedError(f"attributes {attributes}")
        self.linear_before_reset = bool(attributes.get("linear_before_reset"))
        hidden, carried = r.shape[2], 2 if self.gates == 4 else 1
        none = np.zeros((x.shape[1], hidden), x.dtype)
        names = list(activations or [*self.default] * len(r))
        count = len(names) // len(r)
        ys, last = [], []
        for k in range(len(r)):
            f = [_ACTIVATIONS[n.lower()] for n in names[k * count : (k + 1) * count]]
            bias = np.zeros(2 * self.gates * hidden, x.dtype) if b is None else b[k]
            first = tuple(none if s is None else s[k] for s in (h0, c0)[:carried])
            reverse = direction == "reverse" or k == 1
            y, states = _run_direction(x, lengths, first, reverse, self.step(w[k], r[k], bias, f))
            ys.append(y)
            last.append(states)
        return np.stack(ys, 1), *(np.stack(s) for s in zip(*last, strict=True))


class RNN(_Recurrent):
    """h' = f(W x + R h + b)."""

    def step(self, w: Array, r: Array, b: Array, f: Sequence[Callable[[Array], Array]]) -> Step:
        bias = b.reshape(2, -1).sum(0)
        return lambda x, s: (f[0](x @ w.T + s[0] @ r.T + bias),)


class GRU(_Recurrent):
    """h' = (1 - z) n + z h, in two variants of n."""

    gates = 3
    default = ("Sigmoid", "Tanh")

    def step(self, w: Array, r: Array, b: Array, f: Sequence[Callable[[Array], Array]]) -> Step:
        (wz, wr, wn), (rz, rr, rn) = np.split(w, 3), np.split(r, 3)
        bz, br, bn, cz, cr, cn = np.split(b, 6)

        def step(x: Array, states: States) -> States:
            h = states[0]
            z = f[0](x @ wz.T + h @ rz.T + bz + cz)
            reset = f[0](x @ wr.T + h @ rr.T + br + cr)
            if self.linear_before_reset:
                n = f[1](x @ wn.T + bn + reset * (h @ rn.T + cn))
            else:
                n = f[1](x @ wn.T + bn + (reset * h) @ rn.T + cn)
            return ((1 - z) * n + z * h,)

        return step


class LSTM(_Recurrent):
    """c' = f c + i g, h' = o tanh c'; gates in the order i, o, f, g."""

    gates = 4
    default = ("Sigmoid", "Tanh", "Tanh")

    def step(self, w: Array, r: Array, b: Array, f: Sequence[Callable[[Array], Array]]) -> Step:
        bias = b.reshape(2, -1).sum(0)

        def step(x: Array, states: States) -> States:
            h, c = states
            i, o, forget, g = np.split(x @ w.T + h @ r.T + bias, 4, axis=1)
            c = f[0](forget) * c + f[0](i) * f[1](g)
            return f[0](o) * f[2](c), c

        return step


class Scan(OpRun):
    """A loop over axis 0 of its sequences, each in its own direction."""

    op_domain = ""

    def need_context(self) -> bool:
        """The body may read tensors of the graph around it."""
        return True

    def _run(
        self,
        *args: Array,
        context: Mapping[str, Array] | None = None,
        body: Any = None,
        num_scan_inputs: int = 0,
        scan_input_directions: Sequence[int] | None = None,
        scan_output_directions: Sequence[int] | None = None,
        attributes: Any = None,
        **axes: Any,
    ) -> tuple[Array, ...]:
        if any(a is not None and any(a) for a in axes.values()):
            raise NotImplementedError(f"axes {axes}")
        states, sequences = list(args[: len(args) - num_scan_inputs]), args[len(args) - num_scan_inputs :]
        sequences = tuple(_ordered(s, scan_input_directions, k) for k, s in enumerate(sequences))
        turns = []
        for items in zip(*sequences, strict=True):
            fed = dict(zip(body.input_names, [*states, *items], strict=True))
            results = body.run(None, {**(context or {}), **fed}, attributes=attributes)
            states = list(results[: len(states)])
            turns.append(results[len(states) :])
        stacked = [np.stack(r) for r in zip(*turns, strict=True)]
        return *states, *(_ordered(s, scan_output_directions, k) for k, s in enumerate(stacked))


def _ordered(items: Array, directions: Sequence[int] | None, k: int) -> Array:
    return items[::-1] if directions is not None and directions[k] else items


OPERATORS: tuple[type[OpRun], ...] = (GRU, LSTM, RNN, Scan)
"""Taken in by `laconic.training.exact`."""
