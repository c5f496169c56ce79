"""What a scenario trains: a bundle from a file, made of an ONNX file, or built in."""

from __future__ import annotations

from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Final

import numpy as np

from laconic.config import read_file
from laconic.device_sim.scenario.examples import Array, Examples
from laconic.device_sim.scenario.settings import ModelSection
from laconic.errors import ConfigError, ModelError, WireError
from laconic.runtime import Bundle

_MOST_CLASSES: Final = 65_536
_MOST_PARAMETERS: Final = 1 << 26
"""Of a built-in model: a fleet keeps several copies of it."""


def bundle_of(m: ModelSection, examples: Examples, *, seed: int, proximal: bool, folder: Path) -> Bundle:
    """The bundle of a scenario; a built-in model is made for the shape of the examples, and all their labels.

    Raises `ConfigError` for files that cannot be read, `ModelError` for models that cannot be used.
    """
    if m.bundle is not None:
        file = folder / m.bundle
        try:
            return Bundle.read(read_file(file, "bundle"))
        except WireError as e:
            raise ModelError(f"bundle {file} cannot be read ({e})", remedy="prepare it again") from e
    try:
        from laconic.training import prepare
        from laconic.training.models import digits_cnn, mlp
        from laconic.training.models_signal import signal_cnn
    except ModuleNotFoundError as e:
        raise ConfigError(f"{e.name} is not installed", remedy="pip install 'laconic[sim]'") from e
    if m.onnx is not None:
        model = read_file(folder / m.onnx, "model")
        return Bundle.read(prepare(model, loss=m.loss, proximal=proximal, local=m.local))
    shape = examples.held_out.x.shape[1:]
    if m.built_in == "digits_cnn":
        if shape != (1, 8, 8):
            raise ConfigError("shape of the examples for digits_cnn", value=shape, limit=(1, 8, 8))
        return Bundle.read(prepare(digits_cnn(seed), proximal=proximal, local=m.local))
    outputs, loss = _outputs(m, examples.labels())
    if m.built_in == "signal_cnn":
        if len(shape) != 2:
            raise ConfigError(
                "shape of the examples for signal_cnn", value=shape, limit="(channels, readings)"
            )
        model = signal_cnn(*shape, outputs, seed)
    else:
        hidden = m.hidden if m.built_in == "mlp" else ()
        widths = (prod(shape), *hidden, outputs)
        if (size := sum((a + 1) * b for a, b in pairwise(widths))) > _MOST_PARAMETERS:
            raise ConfigError(f"parameters of model.{m.built_in}", value=size, limit=_MOST_PARAMETERS)
        model = mlp(shape, outputs, hidden, seed, from_zero=loss == "mse")
    return Bundle.read(prepare(model, loss=loss, proximal=proximal, local=m.local))


def _outputs(m: ModelSection, y: Array) -> tuple[int, str]:
    """How many values a built-in model gives for a sample, and its loss: classes, or what is regressed."""
    if np.issubdtype(y.dtype, np.floating) and y.ndim <= 2 and m.built_in in ("mlp", "linear"):
        return (1 if y.ndim == 1 else y.shape[1]), "mse"
    if np.issubdtype(y.dtype, np.integer) and y.ndim == 1 and m.built_in in ("mlp", "softmax", "signal_cnn"):
        if not 0 <= y.min() <= y.max() < _MOST_CLASSES:
            raise ConfigError(
                "classes in y", value=(int(y.min()), int(y.max())), limit=f"0 to {_MOST_CLASSES - 1}"
            )
        return int(y.max()) + 1, "cross_entropy"
    known = {"mlp": "classes from 0, or real numbers", "linear": "real numbers"}
    raise ConfigError(
        f"y for the model {m.built_in}",
        value=(y.dtype.str, y.shape),
        limit=known.get(m.built_in or "", "classes from 0"),
    )
