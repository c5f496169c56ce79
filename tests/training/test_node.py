"""The same step graph on onnxruntime for JavaScript: what a phone's browser will run."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from small_models import normal, perceptron

from laconic.runtime import Bundle, Trainer
from laconic.training import adam, prepare, sgd
from laconic.training.models import digits_cnn

pytestmark = pytest.mark.node

STEPS = 6
BATCH = 8


def described(array: NDArray[Any]) -> dict[str, Any]:
    return {"type": str(array.dtype), "dims": list(array.shape), "data": array.ravel().tolist()}


@pytest.mark.parametrize("optimizer", [sgd(), adam()], ids=["sgd", "adam"])
@pytest.mark.parametrize("name", ["perceptron", "digits_cnn"])
def test_losses_are_those_of_python(
    name: str, optimizer: Any, onnxruntime_node: Path, tmp_path: Path
) -> None:
    model, sample, classes = {
        "perceptron": (perceptron(), (4,), 3),
        "digits_cnn": (digits_cnn(), (1, 8, 8), 10),
    }[name]
    bundle = Bundle.read(prepare(model, optimizer=optimizer))
    x = normal(1, STEPS * BATCH, *sample)
    y = np.random.default_rng(2).integers(0, classes, STEPS * BATCH)
    groups = [(x[i : i + BATCH], y[i : i + BATCH]) for i in range(0, len(x), BATCH)]
    training = Trainer(bundle).start_stream(
        bundle.initial, groups, batch_size=BATCH, learning_rate=0.05, seed=0
    )
    due = np.concatenate([progress.losses for progress in training])

    state = bundle.schema.unflatten(bundle.initial)
    for slot in bundle.manifest.optimizer.slots:
        state |= {f"opt/{slot}/{n}": np.zeros(w.shape, np.float32) for n, w in state.items() if "/" not in n}
    if bundle.manifest.optimizer.counts:
        state |= {"step": np.array(0, np.int64)}
    run = {
        "state": {n: described(a) for n, a in state.items()},
        "settings": {"lr": described(np.array(0.05, np.float32))},
        "feeds": [
            {bundle.manifest.inputs[0].name: described(part), "target": described(labels)}
            for part, labels in groups
        ],
    }
    (tmp_path / "step.onnx").write_bytes(bundle.parts["step"])
    (tmp_path / "run.json").write_text(json.dumps(run))
    script = Path(__file__).parent / "node" / "steps.js"
    environment = {**os.environ, "NODE_PATH": str(onnxruntime_node)}
    done = subprocess.run(
        ["node", str(script), str(tmp_path)],
        check=False,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = np.array(json.loads(done.stdout))
    assert found.shape == due.shape
    np.testing.assert_allclose(found, due, rtol=1e-6)
