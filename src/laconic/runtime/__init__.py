"""Runs a training bundle on a device: numpy, onnxruntime and msgspec, nothing else.

`Bundle` reads the file that `laconic.training.prepare` wrote; `Trainer` trains, evaluates and predicts.
"""

from laconic.runtime.arrays import read_arrays
from laconic.runtime.bundle import Bundle, pack
from laconic.runtime.checkpoint import Checkpoint
from laconic.runtime.inference import Predictor
from laconic.runtime.manifest import Manifest
from laconic.runtime.optimizer_state import OptimizerState
from laconic.runtime.trainer import Metrics, Trainer
from laconic.runtime.training import Progress, Training, TrainResult

__all__ = [
    "Bundle",
    "Checkpoint",
    "Manifest",
    "Metrics",
    "OptimizerState",
    "Predictor",
    "Progress",
    "TrainResult",
    "Trainer",
    "Training",
    "pack",
    "read_arrays",
]
