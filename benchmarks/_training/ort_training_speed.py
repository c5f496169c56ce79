"""Time of a training step in onnxruntime-training-cpu, the discontinued library for training on devices."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import onnx
import onnxruntime as ort
from onnxruntime.training import api, artifacts
from worker import Task, seconds_per_step, serve


def main() -> None:
    """Serve measurements of `step`."""
    task = Task.given()
    x, y = task.data()
    batches = [(x[rows], y[rows]) for rows in task.batches()]
    model = onnx.load(str(task.folder / f"{task.model}.onnx"))
    loss = artifacts.LossType.MSELoss if task.loss == "mse" else artifacts.LossType.CrossEntropyLoss
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        artifacts.generate_artifacts(
            model,
            requires_grad=[i.name for i in model.graph.initializer if "running_" not in i.name],
            loss=loss,
            optimizer=artifacts.OptimType.SGD,
            artifact_directory=folder,
        )
        files = {name: str(Path(folder) / f"{name}_model.onnx") for name in ("training", "eval", "optimizer")}
        state = api.CheckpointState.load_checkpoint(str(Path(folder) / "checkpoint"))
        module = api.Module(files["training"], state, files["eval"], session_options=options)
        optimizer = api.Optimizer(files["optimizer"], module)
    optimizer.set_learning_rate(task.learning_rate)
    module.train()

    def step(i: int) -> None:
        module(*batches[i % len(batches)])
        optimizer.step()
        module.lazy_reset_grad()

    def measure() -> Mapping[str, float]:
        return {"step": seconds_per_step(step, task.seconds)}

    measure()
    serve(measure)


if __name__ == "__main__":
    main()
