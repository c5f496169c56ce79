"""Runs the comparison on images in pfl-research's simulator and prints one JSON line.

Usage: pfl_run.py SETTINGS, in pfl-research's environment, by itself or once for each core by torchrun.
"""

from __future__ import annotations

import json
import sys
import time
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByUser
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.hyperparam.base import NNEvalHyperParams, NNTrainHyperParams
from pfl.internal.ops import pytorch_ops
from pfl.metrics import Metrics, Weighted
from pfl.model.pytorch import PyTorchModel
from pfl_network import held_out, initial, network, put, scored
from torch import nn

SEED = 0


class Scores(TrainingProcessCallback):
    """Scores the held-out examples after each round, in every process as the simulator's own callbacks do."""

    def __init__(self, folder: Path) -> None:
        self.found: dict[str, list[float]] = {"at_s": [], "loss": [], "accuracy": []}
        self._held_out = held_out(folder)

    def on_train_begin(self, *, model: PyTorchModel) -> Metrics:
        """Before the first round."""
        return self._look(model)

    def after_central_iteration(
        self, aggregate_metrics: Metrics, model: PyTorchModel, *, central_iteration: int
    ) -> tuple[bool, Metrics]:
        """After each; never a reason to stop."""
        return False, self._look(model)

    def _look(self, model: PyTorchModel) -> Metrics:
        loss, accuracy = scored(model.pytorch_model, *self._held_out)
        for name, value in (("at_s", time.monotonic()), ("loss", loss), ("accuracy", accuracy)):
            self.found[name].append(value)
        return Metrics()


def main(settings: dict[str, Any]) -> None:
    """All rounds; times are of the machine's monotonic clock."""
    torch.set_num_threads(settings["threads"])
    torch.manual_seed(SEED)
    np.random.seed(SEED)  # noqa: NPY002 (the simulator draws from it)
    folder, samples = Path(settings["folder"]), settings["samples"]
    x, y = np.load(folder / "x.npy", mmap_mode="c"), np.load(folder / "y.npy")
    clients = settings["clients"]
    draw = np.random.RandomState(SEED)
    shuffle, waiting = np.random.default_rng(SEED), list[int]()

    def sampler() -> int:
        # A round's users without repeats; the same in all processes.
        if not waiting:
            waiting.extend(draw.choice(clients, settings["cohort"], replace=False).tolist())
        return waiting.pop()

    def user(number: int) -> Dataset:
        rows = number * samples + shuffle.permutation(samples)
        tensors = [torch.from_numpy(x[rows]), torch.from_numpy(y[rows])]
        return Dataset(tensors, user_id=str(number))

    users = FederatedDataset(user, sampler)
    model = _with_loss(network())
    put(model, initial(folder))
    central = torch.optim.SGD(model.parameters(), lr=1.0)
    scores = Scores(folder)
    FederatedAveraging().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=settings["rounds"],
            # Users' own metrics, before and after training, only in the first round: nobody else takes them.
            evaluation_frequency=settings["rounds"] + 1,
            train_cohort_size=settings["cohort"],
            val_cohort_size=None,
        ),
        backend=SimulatedBackend(users, users, postprocessors=[WeightByUser()]),
        model=PyTorchModel(model, torch.optim.SGD, central),
        model_train_params=NNTrainHyperParams(
            local_learning_rate=settings["learning_rate"],
            local_num_epochs=1,
            local_batch_size=settings["batch_size"],
        ),
        model_eval_params=NNEvalHyperParams(local_batch_size=samples),
        callbacks=[scores],
        send_metrics_to_platform=False,
    )
    if pytorch_ops.distributed.global_rank == 0:
        print(json.dumps(scores.found), flush=True)


def _with_loss(model: nn.Sequential) -> nn.Sequential:
    """The two methods that the simulator wants of a module."""

    def loss(self: nn.Module, x: torch.Tensor, y: torch.Tensor, eval: bool = False) -> torch.Tensor:
        self.train(not eval)
        return nn.functional.cross_entropy(self(x), y)

    def metrics(self: nn.Module, x: torch.Tensor, y: torch.Tensor, eval: bool = True) -> dict[str, Weighted]:
        found, _ = scored(self, x, y)
        return {"loss": Weighted(found * len(y), len(y))}

    model.loss = types.MethodType(loss, model)
    model.metrics = types.MethodType(metrics, model)
    return model


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
