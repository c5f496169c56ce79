"""What a model says of inputs, by weights that lie ready."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from laconic.errors import ModelError
from laconic.runtime.batches import Array, Inputs, check_inputs, check_positive, evaluation_batches
from laconic.runtime.bundle import Bundle

Outputs: TypeAlias = "NDArray[np.float32] | dict[str, Array]"
"""One array for a model with one output, else arrays by output name; samples on axis 0."""

PREDICTION_BATCH = 256
"""Samples that are handed to onnxruntime at once, unless told otherwise."""


class Inference:
    """A bundle's inference graph, for any weights; threads may share it."""

    def __init__(self, bundle: Bundle, session: Any) -> None:
        self._manifest, self._session = bundle.manifest, session
        self._outputs = [o.name for o in self._manifest.outputs]
        moving = (p for p in self._manifest.parameters if p.role != "frozen" and p.kind != "control")
        self._parameters = [p.name for p in moving]

    def run(self, values: Mapping[str, Any], x: Inputs, batch_size: int) -> Outputs:
        """The outputs for `x`, `batch_size` samples at a time.

        `values` are OrtValues by parameter; names that the graph does not know are passed over.
        """
        data = check_inputs(self._manifest, x)
        weights = {n: values[n] for n in self._parameters}
        parts: list[list[Array]] = []
        for feeds in evaluation_batches(data, batch_size):
            wrapped = {n: ort.OrtValue.ortvalue_from_numpy(a) for n, a in feeds.items()}
            try:
                found = self._session.run_with_ort_values(self._outputs, {**weights, **wrapped})
            except Exception as e:  # onnxruntime's exceptions share no base below Exception
                raise ModelError("onnxruntime could not run the model", value=str(e)) from e
            parts.append([value.numpy() for value in found])
        joined = {
            name: arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
            for name, *arrays in zip(self._outputs, *parts, strict=True)
        }
        return joined[self._outputs[0]] if len(self._outputs) == 1 else joined


class Predictor:
    """A model with certain weights, ready to be asked from any thread.

    It never changes: who has other weights makes another and puts it in this one's place.
    """

    def __init__(self, inference: Inference, weights: Mapping[str, Array]) -> None:
        """`weights` by parameter, finite float32 arrays; they are used where they lie, not copied."""
        # Kept: an OrtValue is no more than a pointer to an array's memory.
        self._arrays = dict(weights)
        self._values = {n: ort.OrtValue.ortvalue_from_numpy(a) for n, a in self._arrays.items()}
        self._inference = inference

    def predict(self, x: Inputs, *, batch_size: int = PREDICTION_BATCH) -> Outputs:
        """The model's own output for `x`, or its outputs by name; samples on axis 0.

        Raises `ConfigError` for data that do not fit.
        """
        return self._inference.run(self._values, x, check_positive("batch size", batch_size))
