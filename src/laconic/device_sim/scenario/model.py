"""What a scenario trains: a bundle from a file, made of an ONNX file, or built in."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from laconic.config import read_file
from laconic.device_sim.scenario.examples import Part
from laconic.device_sim.scenario.settings import ModelSection
from laconic.errors import ConfigError, ModelError, WireError
from laconic.runtime import Bundle


def bundle_of(m: ModelSection, examples: Part, *, seed: int, proximal: bool, folder: Path) -> Bundle:
    """The bundle of a scenario; a built-in model is made for the shape of the examples.

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
        from laconic.training.models import digits_cnn
    except ModuleNotFoundError as e:
        raise ConfigError(f"{e.name} is not installed", remedy="pip install 'laconic[sim]'") from e
    if m.onnx is not None:
        return Bundle.read(prepare(read_file(folder / m.onnx, "model"), loss=m.loss, proximal=proximal))
    shape = examples.x.shape[1:]
    if m.built_in == "digits_cnn":
        if shape != (1, 8, 8):
            raise ConfigError("shape of the examples for digits_cnn", value=shape, limit=(1, 8, 8))
        return Bundle.read(prepare(digits_cnn(seed), proximal=proximal))
    if examples.y.ndim != 1 or not np.issubdtype(examples.y.dtype, np.integer):
        raise ConfigError("y for the model softmax", value=examples.y.dtype, limit="classes from 0")
    return Bundle.read(prepare(_softmax(shape, int(examples.y.max()) + 1), proximal=proximal))


def _softmax(shape: tuple[int, ...], classes: int) -> bytes:
    """Logits = W x + b of samples of a shape, all zero at the start."""
    from onnx import TensorProto, helper, numpy_helper

    from laconic.training.assemble import IR_VERSION, OPSET
    from laconic.training.builder import BATCH, value_info

    size = int(np.prod(shape))
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["x"], ["flat"], name="flat"),
            helper.make_node("Gemm", ["flat", "weight", "bias"], ["logits"], name="linear", transB=1),
        ],
        "softmax",
        [value_info("x", TensorProto.FLOAT, (BATCH, *shape))],
        [value_info("logits", TensorProto.FLOAT, (BATCH, classes))],
        initializer=[
            numpy_helper.from_array(np.zeros((classes, size), np.float32), "weight"),
            numpy_helper.from_array(np.zeros(classes, np.float32), "bias"),
        ],
    )
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="laconic")
    encoded: bytes = model.SerializeToString(deterministic=True)
    return encoded
