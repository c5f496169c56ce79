"""FedAvg in numpy, to hold a simulated fleet against: nothing of the package is in it.

McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017,
algorithm 1 with all clients in every round: dense layers, ReLU between them, softmax and cross-entropy.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Examples: TypeAlias = tuple[Array, Array]  # float32 (samples, inputs); classes from 0 (samples,)
Layers: TypeAlias = list[tuple[Array, Array]]  # of each the matrix (outputs, inputs), and the bias


def fedavg(
    layers: Layers, parts: Sequence[Examples], test: Examples, *, rounds: int, epochs: int, batch: int,
    rate: float, decay: float, seed: int,
) -> list[float]:  # fmt: skip
    """Accuracy on `test` after each round."""
    rng = np.random.default_rng(seed)
    samples = np.array([len(y) for _, y in parts], np.float32)
    found = []
    for number in range(rounds):
        now = np.float32(rate * decay**number)
        trained = [trained_on(x, y, layers, epochs, batch, now, rng) for x, y in parts]
        by_layer = [zip(*layer, strict=True) for layer in zip(*trained, strict=True)]
        layers = [(np.average(w, 0, samples), np.average(b, 0, samples)) for w, b in by_layer]
        found.append(float((forward(layers, test[0])[-1].argmax(1) == test[1]).mean()))
    return found


def forward(layers: Layers, x: Array) -> list[Array]:
    """What goes into each layer, and the logits."""
    seen = [x]
    for i, (w, b) in enumerate(layers):
        logits = seen[-1] @ w.T + b
        seen.append(np.maximum(logits, 0) if i < len(layers) - 1 else logits)
    return seen


def trained_on(
    x: Array, y: Array, layers: Layers, epochs: int, batch: int, rate: Any, rng: np.random.Generator
) -> Layers:
    """What a client's epochs of stochastic gradient descent make of the layers."""
    layers = [(w.copy(), b.copy()) for w, b in layers]
    orders = (rng.permutation(len(y)) for _ in range(epochs))
    for picked in (p for order in orders for p in np.split(order, range(batch, len(y), batch))):
        seen = forward(layers, x[picked])
        odds = np.exp(seen[-1] - seen[-1].max(1, keepdims=True))
        error = odds / odds.sum(1, keepdims=True) - np.eye(odds.shape[1], dtype=np.float32)[y[picked]]
        error /= len(picked)
        for (w, b), below in zip(reversed(layers), reversed(seen[:-1]), strict=True):
            back = (error @ w) * (below > 0)
            w -= rate * (error.T @ below)
            b -= rate * error.sum(0)
            error = back
    return layers
