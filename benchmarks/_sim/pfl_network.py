"""The network of the comparison on images, in PyTorch. Runs in the peers' environments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

Arrays = list[np.ndarray[Any, Any]]


def network() -> nn.Sequential:
    """Two convolutions and one hidden layer: what `_sim.learning.COHORT_NETWORK` describes."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 3),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.25),
        nn.Flatten(),
        nn.Linear(64 * 14 * 14, 128),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(128, 10),
    )


def initial(folder: Path) -> Arrays:
    """The weights that all begin with, in the order of the network's parameters."""
    with np.load(folder / "initial.npz") as kept:
        return [kept[name] for name in kept.files]


def put(model: nn.Module, arrays: Arrays) -> None:
    """Copy `arrays` into the model's parameters."""
    with torch.no_grad():
        for parameter, array in zip(model.parameters(), arrays, strict=True):
            parameter.copy_(torch.from_numpy(array))


@torch.no_grad()
def scored(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> tuple[float, float]:
    """Loss and accuracy, without dropout; the model is left in its training mode."""
    model.eval()
    logits = model(x)
    model.train()
    loss = nn.functional.cross_entropy(logits, y)
    return float(loss), float((logits.argmax(1) == y).float().mean())


def held_out(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """The examples that nobody trains on."""
    return tuple(torch.from_numpy(np.load(folder / f"held_out_{part}.npy")) for part in "xy")  # type: ignore[return-value]
