"""onnxruntime's own reference for training: an MLP, its checkpoint, one batch, and the losses of two steps.

The checkpoint is a FlatBuffers file ("ODTC"). Its parameters lie in the module state: a table with a vector
of tensors, each with its name, dimensions and raw bytes. The reference takes one step of AdamW with learning
rate 1e-3 and beta 0.9 and 0.999, without weight decay, on one batch of two samples, both of class 1. Its
epsilon of 1e-6 is added to the square root of the second moment before the bias is corrected; where it is
added after, as here, that is 1e-6 / sqrt(1 - 0.999) at the first step.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from laconic.runtime import Bundle, Trainer
from laconic.training import prepare
from laconic.training.optimizers import adamw

pytestmark = pytest.mark.data


class Table:
    """One table of a FlatBuffers file: fields by index, as its schema numbers them."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at

    def _number(self, form: str, at: int) -> int:
        return int(struct.unpack_from(f"<{form}", self.data, at)[0])

    def _field(self, index: int) -> int:
        """Where the value that a field points to begins."""
        directory = self.at - self._number("i", self.at)
        assert 4 + 2 * index < self._number("H", directory)
        at = self.at + self._number("H", directory + 4 + 2 * index)
        return at + self._number("I", at)

    def table(self, index: int) -> Table:
        return Table(self.data, self._field(index))

    def tables(self, index: int) -> Iterator[Table]:
        at = self._field(index)
        for i in range(self._number("I", at)):
            item = at + 4 + 4 * i
            yield Table(self.data, item + self._number("I", item))

    def bytes(self, index: int) -> bytes:
        at = self._field(index)
        return self.data[at + 4 : at + 4 + self._number("I", at)]

    def int64s(self, index: int) -> tuple[int, ...]:
        at = self._field(index)
        return struct.unpack_from(f"<{self._number('I', at)}q", self.data, at + 4)


def checkpoint(data: bytes) -> dict[str, np.ndarray]:
    """The parameters of an onnxruntime training checkpoint."""
    assert data[4:8] == b"ODTC"
    root = Table(data, struct.unpack_from("<I", data)[0])
    return {
        tensor.bytes(0).decode(): np.frombuffer(tensor.bytes(4), "<f4").reshape(tensor.int64s(2))
        for tensor in root.table(1).tables(0)
    }


def numbers(text: str) -> np.ndarray:
    """The numbers of a text file whose first line is a name."""
    return np.array(text.split("\n", 1)[1].strip().strip("[]").split(","), np.float32)


def test_the_losses_of_onnxruntimes_own_training_are_reached(shared_data: Path) -> None:
    folder = shared_data / "onnx" / "ort-training-api"
    model = onnx.load(folder / "zero_model.onnx")
    values = checkpoint((folder / "checkpoint.ckpt").read_bytes())
    for initializer in model.graph.initializer:
        initializer.CopyFrom(numpy_helper.from_array(values[initializer.name], initializer.name))
    optimizer = adamw(epsilon=1e-6 / math.sqrt(1 - 0.999), weight_decay=0.0)
    file = model.SerializeToString()
    bundle = Bundle.read(prepare(file, optimizer=optimizer, input_shapes={"input-0": (784,)}))
    x = numbers((folder / "input-0.in").read_text()).reshape(2, 784)
    y = np.array([1, 1], np.int64)
    due = [float(numbers((folder / f"loss_{i}.out").read_text())[0]) for i in (1, 2)]
    trainer = Trainer(bundle)
    first = trainer.evaluate(bundle.initial, x, y).loss
    after = trainer.train(bundle.initial, x, y, epochs=1, batch_size=2, learning_rate=1e-3, seed=0)
    second = trainer.evaluate(after.weights, x, y).loss
    # The bias correction is computed in float32 here: 1 - 0.999 is off by 1.3e-5 of itself.
    assert [first, second] == pytest.approx(due, rel=3e-5)
