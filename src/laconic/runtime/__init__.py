"""Runs a training bundle on a device: numpy, onnxruntime and msgspec, nothing else.

`Bundle` reads the file that `laconic.training.prepare` wrote; `Trainer` trains, evaluates and predicts.
"""

from laconic.runtime.arrays import read_arrays
from laconic.runtime.bundle import Bundle, pack
from laconic.runtime.manifest import Manifest
from laconic.runtime.trainer import Metrics, Trainer, TrainResult

__all__ = ["Bundle", "Manifest", "Metrics", "TrainResult", "Trainer", "pack", "read_arrays"]
