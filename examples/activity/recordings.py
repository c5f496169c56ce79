"""Windows of people's days from files, in place of a sensor: UCI HAR, 30 people, six activities, 50 Hz.

Reyes-Ortiz, Anguita, Ghio, Oneto and Parra, Human Activity Recognition Using Smartphones, UCI Machine
Learning Repository, 2012. In a folder, or `uci-har/` in it: `total_acc_body_gyro_f4.npy.xz`, float32
(windows, 128, 6), total acceleration in g and rotation in rad/s; `labels.npz` with `y` (0 to 5) and `subject`
(1 to 30).
"""

from __future__ import annotations

import lzma
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from window import STEP_S

HELD_OUT = (2, 4, 9, 10, 12, 13, 18, 20, 24)
"""The people of the data set's own test set."""


def of_people(folder: Path, people: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Windows and labels of some people, in the order of their days; those who are not there are left out."""
    folder = folder / "uci-har" if (folder / "uci-har").is_dir() else folder
    try:
        with np.load(folder / "labels.npz") as labels:
            chosen, y = np.isin(labels["subject"], people), labels["y"].astype(np.int64)
        with lzma.open(folder / "total_acc_body_gyro_f4.npy.xz") as file:
            return np.load(file)[chosen], y[chosen]
    except OSError as e:
        sys.exit(f"no recordings in {folder}: {e}")


def windows(folder: Path, person: int, speed: float) -> Iterator[tuple[np.ndarray, int | None]]:
    """One person's day, with labels the first time and again without, `speed` times as fast as it was."""
    x, y = of_people(folder, (person,))
    if not len(y):
        sys.exit(f"nobody has the number {person} in {folder}")
    labels: list[int | None] = [int(label) for label in y]
    while True:
        for window, label in zip(x, labels, strict=True):
            time.sleep(STEP_S / speed)
            yield window, label
        labels = [None] * len(y)
