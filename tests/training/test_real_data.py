"""Real images and real models: the digits network learns, and models from elsewhere are taken or refused."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from laconic.errors import LaconicError, ModelError
from laconic.runtime import Bundle, Trainer
from laconic.training import prepare
from laconic.training.models import digits_cnn


def test_the_digits_network_learns_real_digits() -> None:
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn brings the digits")
    digits = datasets.load_digits()
    # The file is ordered by writer: shuffled, the held-out images are by the writers of the others.
    order = np.random.default_rng(0).permutation(len(digits.target))
    x, y = (digits.images / 16).astype(np.float32)[order, None], digits.target[order]
    bundle = Bundle.read(prepare(digits_cnn()))
    assert bundle.schema.size == 205_642
    trainer = Trainer(bundle)
    before = trainer.evaluate(bundle.initial, x[1400:], y[1400:])
    result = trainer.train(
        bundle.initial, x[:1400], y[:1400], epochs=6, batch_size=16, learning_rate=0.05, seed=0
    )
    after = trainer.evaluate(result.weights, x[1400:], y[1400:])
    assert before.accuracy < 0.3
    assert after.accuracy > 0.95
    assert after.loss < before.loss
    right = trainer.predict(result.weights, x[1400:]).argmax(1) == y[1400:]
    assert right.mean() == pytest.approx(after.accuracy)


TRAINABLE = (
    "ort/cnn_mnist_pytorch",
    "ort/lr_mnist_scikit",
    "ort/mnist",
    "ort/sklearn_bin_voting_classifier_soft",
    "ort/test_training_model",
    "ort-training-api/zero_model",
    "seizureguard/inference",
)

Array = NDArray[Any]


@dataclass(frozen=True)
class Digits:
    """How a model from elsewhere takes MNIST's bytes, what it scores as it came, and how it is trained.

    Shipped weights get `noise` times their deviation: a trained network has nothing to learn from its own
    data.
    """

    taken: Callable[[Array], Array]
    shipped: tuple[float, float]
    learning_rate: float
    noise: float
    reached: float


def _image(scale: float, mean: float = 0.0, deviation: float = 1.0) -> Callable[[Array], Array]:
    return lambda x: ((x / scale - mean) / deviation)[:, None]


def _flat(scale: float, features: int = 784) -> Callable[[Array], Array]:
    return lambda x: np.ascontiguousarray((x / scale).reshape(-1, 784)[:, :features])


DIGITS = {
    # PyTorch's own example takes the mean from the pixels and divides by their deviation.
    "ort/cnn_mnist_pytorch": Digits(_image(255, 0.1307, 0.3081), (0.97, 1), 0.02, 1.0, 0.94),
    "ort/mnist": Digits(_image(255), (0.97, 1), 0.02, 1.0, 0.9),
    # Bytes as they are, and the last four pixels, which are never lit, left out.
    "ort/lr_mnist_scikit": Digits(_flat(1, 780), (0.89, 0.95), 1e-6, 0.0, 0.89),
    # Random weights, and zeros (from which only a bias can move: they get random ones).
    "ort/test_training_model": Digits(_flat(255), (0, 0.2), 0.2, 0.0, 0.75),
    "ort-training-api/zero_model": Digits(_flat(255), (0, 0.2), 0.2, 0.05, 0.75),
}


@pytest.fixture(scope="module")
def mnist(shared_data: Path) -> tuple[Array, Array, Array, Array]:
    """2,000 images to train on and their labels, 1,000 to test on and theirs."""

    def read(name: str, header: int, count: int) -> Array:
        content = gzip.decompress((shared_data / "mnist" / name).read_bytes())
        return np.frombuffer(content, np.uint8)[header:].reshape(-1, count)

    def images(name: str, count: int) -> Array:
        return read(name, 16, 784)[:count].reshape(-1, 28, 28).astype(np.float32)

    def labels(name: str, count: int) -> Array:
        return read(name, 8, 1)[:count, 0].astype(np.int64)

    return (
        images("train-images-idx3-ubyte.gz", 2000),
        labels("train-labels-idx1-ubyte.gz", 2000),
        images("t10k-images-idx3-ubyte.gz", 1000),
        labels("t10k-labels-idx1-ubyte.gz", 1000),
    )


@pytest.mark.data
@pytest.mark.parametrize("name", DIGITS)
def test_digit_models_from_elsewhere_learn_mnist(
    shared_data: Path, mnist: tuple[Array, Array, Array, Array], name: str
) -> None:
    """The shipped weights score as they should, so the model is read rightly; then it learns."""
    how = DIGITS[name]
    file = (shared_data / "onnx" / f"{name}.onnx").read_bytes()
    open_axes = {"input-0": (784,)} if "zero_model" in name else None
    bundle = Bundle.read(prepare(file, input_shapes=open_axes))
    x, y, held_out, labels = how.taken(mnist[0]), mnist[1], how.taken(mnist[2]), mnist[3]
    trainer = Trainer(bundle)
    shipped = trainer.evaluate(bundle.initial, held_out, labels).accuracy
    assert how.shipped[0] <= shipped <= how.shipped[1]
    size = float(bundle.initial.std()) or 1.0
    noise = how.noise * size * np.random.default_rng(0).standard_normal(bundle.initial.shape)
    start = (bundle.initial + noise).astype(np.float32)
    before = trainer.evaluate(start, held_out, labels)
    result = trainer.train(start, x, y, epochs=1, batch_size=16, learning_rate=how.learning_rate, seed=0)
    after = trainer.evaluate(result.weights, held_out, labels)
    assert after.loss < before.loss
    assert after.accuracy >= how.reached


@pytest.mark.data
def test_a_voting_classifier_learns_two_classes(shared_data: Path) -> None:
    """Two linear classifiers of two features, whose probabilities are averaged."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 400)
    x = (rng.standard_normal((400, 2)) + np.array([[-1, 1], [1.5, -1]])[y]).astype(np.float32)
    before, after = _fine_tuned(shared_data, "ort/sklearn_bin_voting_classifier_soft", x, y, 0.2)
    assert after.loss < 0.7 * before.loss
    assert after.accuracy > 0.9


@pytest.mark.data
def test_a_detector_of_seizures_learns_from_an_electroencephalogram(shared_data: Path) -> None:
    """Made signals, 18 channels of 4 s in volts: noise of 30 microvolts, a seizure as a rhythm of 3 Hz."""
    rng = np.random.default_rng(0)
    y = np.arange(80) % 2
    t = np.arange(1024) / 256
    phase = rng.uniform(0, 2 * np.pi, (80, 18, 1))
    x = 3e-5 * rng.standard_normal((80, 18, 1024)) + 1e-4 * y[:, None, None] * np.sin(6 * np.pi * t + phase)
    before, after = _fine_tuned(shared_data, "seizureguard/inference", x.astype(np.float32), y, 1e-4)
    assert after.loss < 0.1 * before.loss
    assert after.accuracy > 0.9


def _fine_tuned(shared_data: Path, name: str, x: Array, y: Array, learning_rate: float) -> tuple[Any, Any]:
    """Metrics on the last quarter of the data, before and after training on the rest."""
    bundle = Bundle.read(prepare((shared_data / "onnx" / f"{name}.onnx").read_bytes()))
    trainer, cut = Trainer(bundle), len(x) * 3 // 4
    before = trainer.evaluate(bundle.initial, x[cut:], y[cut:])
    result = trainer.train(
        bundle.initial, x[:cut], y[:cut], epochs=4, batch_size=8, learning_rate=learning_rate, seed=0
    )
    return before, trainer.evaluate(result.weights, x[cut:], y[cut:])


@pytest.mark.data
def test_the_reason_why_an_iris_classifier_is_refused_is_true(shared_data: Path) -> None:
    """Its twelve coefficients are for four features: declared with four, it knows its flowers."""
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn brings the flowers")
    model = onnx.load(shared_data / "onnx" / "ort" / "logreg_iris.onnx")
    with pytest.raises(ModelError) as caught:
        prepare(model.SerializeToString())
    assert (caught.value.value, caught.value.limit) == (12, "3 rows of 2 features")
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 4
    bundle = Bundle.read(prepare(model.SerializeToString()))
    x, y = datasets.load_iris(return_X_y=True)
    x = x.astype(np.float32)
    trainer = Trainer(bundle)
    before = trainer.evaluate(bundle.initial, x, y)
    assert before.accuracy > 0.9
    result = trainer.train(bundle.initial, x, y, epochs=4, batch_size=10, learning_rate=0.01, seed=0)
    assert trainer.evaluate(result.weights, x, y).loss < before.loss


@pytest.mark.data
def test_models_that_hold_other_operators_are_refused(shared_data: Path) -> None:
    refused: dict[str, LaconicError] = {}
    folder = shared_data / "onnx"
    for path in sorted(folder.rglob("*.onnx")):
        name = str(path.relative_to(folder).with_suffix(""))
        if name not in TRAINABLE:
            with pytest.raises(ModelError) as caught:
                prepare(path.read_bytes())
            refused[name] = caught.value
    reasons = {name: error.thing for name, error in refused.items()}
    assert reasons == {
        "ort-training-api/adamw": "input 'params' is no tensor",
        "ort-training-api/custom_ops/training_model": (
            "no gradient rule for test.customop.CustomOpOne (opset 1) at node 'output_1'"
        ),
        # Nothing in these two is a weight: their parameters are inputs already.
        "ort-training-api/eval_model": "the model has no trainable float32 parameter",
        "ort-training-api/training_model": "the model has no trainable float32 parameter",
        # It has coefficients for four features and an input of two.
        "ort/logreg_iris": "number of coefficients of node 'LinearClassifier'",
    }
