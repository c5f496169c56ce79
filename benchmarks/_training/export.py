"""Writes models of the zoo as ONNX files, and their data, into a folder; tells how each is trained."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from worker import tell
from zoo import ZOO, example, export

SAMPLES = 256


def main() -> None:
    """Arguments: the folder, then names of models."""
    folder, *names = sys.argv[1:]
    for name in names:
        model = ZOO[name]
        (Path(folder) / f"{name}.onnx").write_bytes(export(model.build(0), example(model)))
        x, y = model.data(SAMPLES, seed=1)
        np.save(Path(folder) / f"{name}.x.npy", x)
        np.save(Path(folder) / f"{name}.y.npy", y)
    tell({n: {"learning_rate": ZOO[n].learning_rate, "loss": ZOO[n].loss} for n in names})


if __name__ == "__main__":
    main()
