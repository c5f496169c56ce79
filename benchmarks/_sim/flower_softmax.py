"""Softmax regression as a Flower app with a NumPy client. Runs in Flower's environment.

Flower's actors import it: what they read of the data stays in their memory from one message to the next.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

Arrays = list[np.ndarray[Any, Any]]

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """One epoch of plain SGD over the partition's own examples, in an order of its own."""
    config = message.content["config"]
    x, y = _data(config["folder"])
    number, size = context.node_config["partition-id"], config["samples"]
    x, y = x[number * size : (number + 1) * size], y[number * size : (number + 1) * size]
    w, b = (np.array(a) for a in message.content["arrays"].to_numpy_ndarrays())
    order = np.random.default_rng((number, config["server-round"])).permutation(size)
    batch = config["batch_size"]
    for start in range(0, size, batch):
        rows = order[start : start + batch]
        xb = x[rows]
        gradient = _softmax(xb @ w + b)
        gradient[np.arange(len(rows)), y[rows]] -= 1.0
        gradient *= config["learning_rate"] / len(rows)
        w -= xb.T @ gradient
        b -= gradient.sum(0)
    told = {"arrays": ArrayRecord([w, b]), "metrics": MetricRecord({"num-examples": size})}
    return Message(content=RecordDict(told), reply_to=message)


def initial(folder: Path) -> Arrays:
    """Zeros, as the scenario's own model begins."""
    return [np.zeros((784, 10), np.float32), np.zeros(10, np.float32)]


def scorer(folder: Path) -> Callable[[Arrays], tuple[float, float]]:
    """Loss and accuracy on the held-out examples."""
    x, y = np.load(folder / "held_out_x.npy"), np.load(folder / "held_out_y.npy")

    def score(arrays: Arrays) -> tuple[float, float]:
        p = _softmax(x @ arrays[0] + arrays[1])
        loss = -np.log(np.maximum(p[np.arange(len(y)), y], 1e-30)).mean()
        return float(loss), float((p.argmax(1) == y).mean())

    return score


def _softmax(z: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    p: np.ndarray[Any, Any] = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    return p


@cache
def _data(folder: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    return np.load(f"{folder}/x.npy", mmap_mode="r"), np.load(f"{folder}/y.npy")
