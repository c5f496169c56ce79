"""The comparison on images as a Flower app with a PyTorch client. Runs in Flower's environment.

Flower's actors import it: model and data stay in their memory from one message to the next.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from pfl_network import Arrays, held_out, initial, network, put, scored
from torch import nn

__all__ = ["app", "initial", "scorer"]

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """One epoch of plain SGD over the partition's own examples, in an order of its own."""
    config = message.content["config"]
    x, y = _data(config["folder"])
    model = _model()
    put(model, message.content["arrays"].to_numpy_ndarrays())
    optimizer = torch.optim.SGD(model.parameters(), lr=config["learning_rate"])
    number, size = context.node_config["partition-id"], config["samples"]
    generator = torch.Generator().manual_seed(number * 1_000 + config["server-round"])
    order = number * size + torch.randperm(size, generator=generator)
    for rows in order.split(config["batch_size"]):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
    arrays = [p.detach().numpy() for p in model.parameters()]
    told = {"arrays": ArrayRecord(arrays), "metrics": MetricRecord({"num-examples": size})}
    return Message(content=RecordDict(told), reply_to=message)


def scorer(folder: Path) -> Callable[[Arrays], tuple[float, float]]:
    """Loss and accuracy on the held-out examples."""
    torch.set_num_threads(1)
    model, (x, y) = network(), held_out(folder)

    def score(arrays: Arrays) -> tuple[float, float]:
        put(model, arrays)
        return scored(model, x, y)

    return score


@cache
def _model() -> nn.Sequential:
    torch.set_num_threads(1)
    return network()


@cache
def _data(folder: str) -> tuple[torch.Tensor, torch.Tensor]:
    # Mapped copy-on-write: PyTorch wants memory that it may write to, and nobody does.
    x, y = (torch.from_numpy(np.load(f"{folder}/{part}.npy", mmap_mode="c")) for part in "xy")
    return x, y
