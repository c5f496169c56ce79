"""What a model says of inputs, by weights that lie ready."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
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

    def binding(self, values: Mapping[str, Any]) -> Any:
        """Weights as `run` takes them, for one thread at a time: OrtValues by parameter, which must live as
        long; names that the graph does not know are passed over. Raises `ModelError`."""
        binding = self._session.io_binding()
        try:
            for name in self._parameters:
                binding.bind_ortvalue_input(name, values[name])
        except Exception as e:  # onnxruntime's exceptions share no base below Exception
            raise ModelError("the inference graph does not fit its manifest", value=str(e)) from e
        return binding

    def run(self, binding: Any, x: Inputs, batch_size: int) -> Outputs:
        """The outputs for `x`, `batch_size` samples at a time. Raises `ConfigError` or `ModelError`."""
        data = check_inputs(self._manifest, x)
        parts: list[list[Array]] = []
        for feeds in evaluation_batches(data, batch_size):
            try:
                for name, array in feeds.items():
                    binding.bind_cpu_input(name, array)
                for name in self._outputs:
                    binding.bind_output(name)
                self._session.run_with_iobinding(binding)
            except Exception as e:  # onnxruntime's exceptions share no base below Exception
                raise ModelError("onnxruntime could not run the model", value=str(e)) from e
            parts.append(binding.copy_outputs_to_cpu())
        # A binding keeps what was bound to it alive: let it go.
        for name, array in data.items():
            binding.bind_cpu_input(name, np.empty(0, array.dtype))
        binding.clear_binding_outputs()
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
        import onnxruntime as ort

        self._inference = inference
        self._values = {n: ort.OrtValue.ortvalue_from_numpy(a) for n, a in weights.items()}
        # As many as threads have asked at once. To bind the weights is a fifth of a LeNet's prediction.
        self._free = [inference.binding(self._values)]

    def predict(self, x: Inputs, *, batch_size: int = PREDICTION_BATCH) -> Outputs:
        """The model's own output for `x`, or its outputs by name; samples on axis 0.

        Raises `ConfigError` for data that do not fit.
        """
        batch_size = check_positive("batch size", batch_size)
        try:
            binding = self._free.pop()
        except IndexError:
            binding = self._inference.binding(self._values)
        outputs = self._inference.run(binding, x, batch_size)
        self._free.append(binding)
        return outputs
