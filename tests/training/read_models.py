"""Runs a file, and what `source.load` made of it, for tests that hold the one against the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from laconic.training.assemble import assemble, model
from laconic.training.source import Source, load

Array = NDArray[Any]


def _options() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return options


def run_file(file: bytes, feeds: Mapping[str, Array]) -> list[Any]:
    """What onnxruntime computes from a file."""
    session = ort.InferenceSession(file, _options(), providers=["CPUExecutionProvider"])
    return list(session.run(None, dict(feeds)))


def run_source(source: Source, feeds: Mapping[str, Array]) -> list[Array]:
    """What the inference graph of a source computes, with the weights that the file came with."""
    g = source.builder()
    inputs = [*(p.name for p in source.parameters), *source.inputs]
    graph = assemble(g, "inference", inputs, {o: (o, g.types[o]) for o in source.outputs})
    weights = {p.name: p.value for p in source.parameters}
    known = {i.name for i in graph.input}
    return run_file(model(graph), {n: a for n, a in {**weights, **feeds}.items() if n in known})


def agree(file: bytes, feeds: Mapping[str, Array], **settings: Any) -> Source:
    """Read a file and require that it computes what onnxruntime computes from it; the source."""
    source = load(file, **settings)
    results = zip(source.outputs, run_file(file, feeds), run_source(source, feeds), strict=True)
    for name, due, found in results:
        if name in source.classes:
            found = np.array(source.classes[name], object)[found]
        if isinstance(due, list):  # ZipMap: a dictionary for each sample
            due = np.array([list(row.values()) for row in due], np.float32)
        assert found.shape == due.shape
        if due.dtype.kind == "f":
            np.testing.assert_allclose(found, due, rtol=2e-5, atol=2e-6)
        else:
            assert np.array_equal(found, due)
    return source
