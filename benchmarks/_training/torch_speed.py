"""Time of a training step in PyTorch's eager mode: plain SGD in its fastest form, batches cut beforehand."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from worker import Step, Task, seconds_per_step, serve
from zoo import ZOO

FORMS: Mapping[str, Mapping[str, bool]] = {"foreach": {"foreach": True}, "fused": {"fused": True}}


def main() -> None:
    """Serve measurements of `step`."""
    torch.set_num_threads(1)
    task = Task.given()
    model = ZOO[task.model]
    x, y = (torch.from_numpy(a) for a in task.data())
    batches = [(x[rows], y[rows]) for rows in map(torch.from_numpy, task.batches())]
    module = model.build(0).train()
    criterion: Any = nn.MSELoss() if task.loss == "mse" else nn.CrossEntropyLoss()
    start = copy.deepcopy(module.state_dict())

    def stepper(form: str) -> Step:
        module.load_state_dict(start)
        optimizer = torch.optim.SGD(module.parameters(), lr=task.learning_rate, **FORMS[form])

        def step(i: int) -> None:
            inputs, targets = batches[i % len(batches)]
            optimizer.zero_grad(set_to_none=True)
            criterion(module(inputs), targets).backward()
            optimizer.step()

        return step

    # The first turn warms up, the second chooses.
    for _ in range(2):
        trials = {form: seconds_per_step(stepper(form), task.seconds / 2) for form in FORMS}
    fastest = min(trials, key=trials.__getitem__)

    def measure() -> Mapping[str, float]:
        return {"step": seconds_per_step(stepper(fastest), task.seconds)}

    serve(measure)


if __name__ == "__main__":
    main()
