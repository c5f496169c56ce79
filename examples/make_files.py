"""Writes what the other examples need into this folder: a model, examples for three devices, held-out ones.

`python make_files.py`, once. Needs the demo extra: the digits are those that scikit-learn ships.
"""

from pathlib import Path

from laconic.demo.data import split_digits
from laconic.training.models import digits_cnn

folder = Path(__file__).resolve().parent
(folder / "digits.onnx").write_bytes(digits_cnn(seed=0))
split = split_digits(3, skew=0.9, seed=0)
split.held_out.save(folder / "held-out.npz")
for number, part in enumerate(split.devices):
    part.save(folder / f"pi-{number}.npz")
print(f"{folder}: digits.onnx, held-out.npz, pi-0.npz to pi-{len(split.devices) - 1}.npz")
