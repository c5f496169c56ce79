"""Ten thousand steps in a process of their own: memory stays where it was after the first thousand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from small_models import perceptron

from laconic.training import prepare
from laconic.training.models import digits_cnn

TRAIN = """
import sys
from pathlib import Path
import numpy as np, psutil
from laconic.runtime import Bundle, Trainer

path, form, predict, *shape = sys.argv[1:]
bundle = Bundle.read(Path(path).read_bytes())
trainer = Trainer(bundle, form=form)
rng = np.random.default_rng(0)
x = rng.standard_normal((200 * 8, *map(int, shape)), np.float32)
y = rng.integers(0, 3, len(x))
weights = bundle.initial
process = psutil.Process()
for _ in range(50):
    result = trainer.train(weights, x, y, epochs=1, batch_size=8, learning_rate=0.01, seed=0)
    assert result.steps == 200
    weights = result.weights
    if int(predict):
        trainer.predict(weights, x)
        trainer.evaluate(weights, x, y)
    print(process.memory_info().rss)
"""


def resident(bundle: Path, form: str, predict: bool, *shape: int) -> list[int]:
    """Bytes after every 200 of 10,000 steps."""
    command = [sys.executable, "-c", TRAIN, str(bundle), form, str(int(predict)), *map(str, shape)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [int(line) for line in done.stdout.split()]


@pytest.mark.soak
@pytest.mark.parametrize("form", ["epoch", "step"])
@pytest.mark.parametrize("predict", [False, True])
def test_ten_thousand_steps_leak_nothing(tmp_path: Path, form: str, predict: bool) -> None:
    for name, model, shape in (("dense", perceptron(), (4,)), ("images", digits_cnn(), (1, 8, 8))):
        path = tmp_path / f"{name}.bundle"
        path.write_bytes(prepare(model))
        held = resident(path, form, predict, *shape)
        assert len(held) == 50
        # From one look to the next the allocator gives pages back or does not: one look alone says little.
        assert max(held[5:]) <= 1.02 * max(held[:5]), name
