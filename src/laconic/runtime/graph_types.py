"""Holds the graphs of a bundle to the element types that its manifest and the specification give them
(docs/spec/bundle.md)."""

from __future__ import annotations

from typing import Any

from laconic.errors import ModelError
from laconic.runtime.manifest import Manifest

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(bool)": "bool",
}
"""The manifest's names of onnxruntime's types; others are named as onnxruntime does."""

_COUNTERS = frozenset({"step", "seed"})


def check_graph_types(session: Any, name: str, manifest: Manifest) -> None:
    """Raise `ModelError` unless every input and output of a session has the dtype that the manifest says.

    onnxruntime would say so only when a step runs, and not which tensor it is. `name` is the graph's.
    """
    data: dict[str, str] = {t.name: t.dtype for t in manifest.inputs}
    data |= {t.name: t.dtype for t in manifest.targets}
    data |= {t.name: t.dtype for t in manifest.outputs}
    for tensor in (*session.get_inputs(), *session.get_outputs()):
        # Parameters, their optimizer state, settings, losses and metrics are float32.
        own = "int64" if tensor.name.removesuffix(":new") in _COUNTERS else "float32"
        due, found = data.get(tensor.name, own), _DTYPES.get(tensor.type, tensor.type)
        if found != due:
            raise ModelError(
                f"dtype of {tensor.name!r} in the {name} graph",
                value=found,
                limit=f"{due}, as the manifest says",
                remedy="prepare the model again",
            )
