"""Turns an ONNX inference model into a training bundle, at build time; needs onnx.

`prepare` is the way in; `plan`, `bundle`, `check_gradients` and `explained` are its parts. The training step
it writes is itself an ONNX graph: the gradient rules in `laconic.training.rules` are applied to the model
node by node, in reverse.
"""

from laconic.training.build import bundle, prepare
from laconic.training.check import ParameterCheck, check_gradients
from laconic.training.explain import Explained, explained
from laconic.training.losses import (
    Loss,
    binary_cross_entropy,
    cross_entropy,
    huber,
    mean_absolute_error,
    mean_squared_error,
    model_output,
)
from laconic.training.optimizers import Optimizer, adam, adamw, momentum, sgd
from laconic.training.plan import Lora, Plan, plan

__all__ = [
    "Explained",
    "Lora",
    "Loss",
    "Optimizer",
    "ParameterCheck",
    "Plan",
    "adam",
    "adamw",
    "binary_cross_entropy",
    "bundle",
    "check_gradients",
    "cross_entropy",
    "explained",
    "huber",
    "mean_absolute_error",
    "mean_squared_error",
    "model_output",
    "momentum",
    "plan",
    "prepare",
    "sgd",
]
