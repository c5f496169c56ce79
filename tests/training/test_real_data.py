"""Real images and real models: the digits network learns, and models from elsewhere are taken or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

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


@pytest.mark.data
@pytest.mark.parametrize("name", TRAINABLE)
def test_models_from_elsewhere_train(shared_data: Path, name: str) -> None:
    file = (shared_data / "onnx" / f"{name}.onnx").read_bytes()
    open_axes = {"input-0": (784,)} if "zero_model" in name else None
    bundle = Bundle.read(prepare(file, input_shapes=open_axes))
    x = np.random.default_rng(0).random((37, *bundle.manifest.inputs[0].shape)).astype(np.float32)
    if name.startswith("seizureguard"):
        x *= 1e-4  # an electroencephalogram, in volts
    objective = bundle.manifest.objectives[0]
    assert objective.target is not None
    y = np.arange(37) % objective.target.classes
    trainer = Trainer(bundle)
    before = trainer.evaluate(bundle.initial, x, y)
    result = trainer.train(bundle.initial, x, y, epochs=8, batch_size=8, learning_rate=1e-3, seed=0)
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
