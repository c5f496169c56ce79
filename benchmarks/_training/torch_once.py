"""A fresh process that trains with PyTorch: time to the first finished step, and peak memory."""

from __future__ import annotations

import time

BEGAN = time.perf_counter()

from typing import Any  # noqa: E402 (the clock starts before anything is imported)

import torch  # noqa: E402
from torch import nn  # noqa: E402
from worker import Task, memory_mb, tell  # noqa: E402
from zoo import ZOO  # noqa: E402

STEPS = 200


def main() -> None:
    """One line of JSON."""
    torch.set_num_threads(1)
    task = Task.given()
    x, y = (torch.from_numpy(a) for a in task.data())
    batches = [torch.from_numpy(rows) for rows in task.batches()]
    module = ZOO[task.model].build(0).train()
    criterion: Any = nn.MSELoss() if task.loss == "mse" else nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(module.parameters(), lr=task.learning_rate)
    first_step_s = 0.0
    for i in range(STEPS):
        rows = batches[i % len(batches)]
        optimizer.zero_grad(set_to_none=True)
        criterion(module(x[rows]), y[rows]).backward()
        optimizer.step()
        first_step_s = first_step_s or time.perf_counter() - BEGAN
    tell({"first_step_s": first_step_s, "peak_mb": memory_mb("VmHWM"), "steps": STEPS})


if __name__ == "__main__":
    main()
