"""Training against arithmetic done by hand in float64, and against PyTorch where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from small_models import normal, perceptron, softmax_regression

from laconic.errors import ConfigError, NonFinite
from laconic.runtime import Bundle, Trainer
from laconic.training import prepare
from laconic.training.models import digits_cnn
from laconic.training.optimizers import momentum
from often import examples

Exact = NDArray[np.float64]


class Regression:
    """Softmax regression in float64: gradients from the textbook, no graph."""

    def __init__(self, bundle: Bundle) -> None:
        tensors = bundle.schema.unflatten(bundle.initial)
        self.w = [tensors["W"].astype(np.float64), tensors["b"].astype(np.float64)]

    def gradient(self, x: Exact, y: NDArray[Any]) -> tuple[float, list[Exact]]:
        logits = x @ self.w[0] + self.w[1]
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        loss = -np.log(p[np.arange(len(y)), y]).mean()
        d = (p - np.eye(p.shape[1])[y]) / len(y)
        return loss, [x.T @ d, d.sum(0)]

    @property
    def vector(self) -> Exact:
        return np.concatenate([w.ravel() for w in self.w])


def batches(samples: int, epochs: int, size: int, seed: int) -> Iterator[NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    for _ in range(epochs):
        order = rng.permutation(samples)
        yield from (order[i : i + size] for i in range(0, samples, size))


SETTINGS: dict[str, Any] = {"epochs": 3, "batch_size": 8, "learning_rate": 0.3, "seed": 4}
X, Y = normal(9, 29, 5), np.random.default_rng(9).integers(0, 3, 29)


@settings(max_examples=examples(15), deadline=None)
@given(st.integers(1, 29), st.integers(1, 40), st.integers(0, 99))
def test_sgd_with_ragged_batches_is_the_textbooks(samples: int, batch_size: int, seed: int) -> None:
    bundle = REGRESSION
    x, y = X[:samples], Y[:samples]
    given = SETTINGS | {"batch_size": batch_size, "seed": seed}
    result = Trainer(bundle).train(bundle.initial, x, y, **given)
    due, losses = Regression(bundle), []
    for rows in batches(samples, 3, batch_size, seed):
        loss, step = due.gradient(x[rows].astype(np.float64), y[rows])
        losses.append(loss)
        due.w = [w - 0.3 * g for w, g in zip(due.w, step, strict=True)]
    assert np.allclose(result.weights, due.vector, atol=2e-5)
    assert np.allclose(result.losses, losses, atol=2e-5)
    assert (result.steps, result.samples) == (len(losses), 3 * samples)


REGRESSION = Bundle.read(prepare(softmax_regression()))


def test_momentum_is_the_textbooks() -> None:
    bundle = Bundle.read(prepare(softmax_regression(), optimizer=momentum(beta=0.8)))
    assert bundle.manifest.optimizer.slots == ("m",)
    assert bundle.manifest.optimizer.settings == {"beta": 0.8, "nesterov": 0.0, "weight_decay": 0.0}
    result = Trainer(bundle).train(bundle.initial, X, Y, **SETTINGS)
    due = Regression(bundle)
    moved = [np.zeros_like(w) for w in due.w]
    for rows in batches(len(Y), 3, 8, 4):
        _, step = due.gradient(X[rows].astype(np.float64), Y[rows])
        moved = [0.8 * m + g for m, g in zip(moved, step, strict=True)]
        due.w = [w - 0.3 * m for w, m in zip(due.w, moved, strict=True)]
    assert np.allclose(result.weights, due.vector, atol=2e-5)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum"])
def test_the_proximal_term_is_the_textbooks(optimizer: str) -> None:
    bundle = Bundle.read(prepare(softmax_regression(), optimizer=optimizer, proximal=True))
    beta = 0.9 if optimizer == "momentum" else 0.0
    for mu in (0.0, 0.5):
        result = Trainer(bundle).train(bundle.initial, X, Y, **SETTINGS, proximal_mu=mu)
        due = Regression(bundle)
        start = list(due.w)
        moved = [np.zeros_like(w) for w in due.w]
        for rows in batches(len(Y), 3, 8, 4):
            _, step = due.gradient(X[rows].astype(np.float64), Y[rows])
            step = [g + mu * (w - s) for g, w, s in zip(step, due.w, start, strict=True)]
            moved = [beta * m + g for m, g in zip(moved, step, strict=True)]
            due.w = [w - 0.3 * m for w, m in zip(due.w, moved, strict=True)]
        assert np.allclose(result.weights, due.vector, atol=5e-5)


def test_a_proximal_term_needs_a_bundle_that_has_it() -> None:
    with pytest.raises(ConfigError, match="proximal"):
        Trainer(REGRESSION).train(REGRESSION.initial, X, Y, **SETTINGS, proximal_mu=0.1)


def test_evaluation_is_the_textbooks() -> None:
    for batch_size in (1, 7, 256):
        metrics = Trainer(REGRESSION).evaluate(REGRESSION.initial, X, Y, batch_size=batch_size)
        due = Regression(REGRESSION)
        loss, _ = due.gradient(X.astype(np.float64), Y)
        assert abs(metrics.loss - loss) < 1e-5
        assert metrics.accuracy == np.mean((X @ due.w[0] + due.w[1]).argmax(1) == Y)
        assert metrics.samples == 29


@pytest.mark.parametrize("optimizer", ["sgd", "momentum"])
@pytest.mark.parametrize("model", ["perceptron", "cnn"])
def test_the_step_and_epoch_forms_agree_whatever_the_chunk(model: str, optimizer: str) -> None:
    file, shape = (perceptron(), (4,)) if model == "perceptron" else (digits_cnn(), (1, 8, 8))
    bundle = Bundle.read(prepare(file, optimizer=optimizer))
    x, y = normal(1, 21, *shape), np.arange(21) % 3
    given = SETTINGS | {"learning_rate": 0.01}
    runs = [
        Trainer(bundle, form=form, chunk_bytes=size).train(bundle.initial, x, y, **given)
        for form, size in (("epoch", 2**22), ("step", 2**22), ("epoch", 1), ("epoch", 1000))
    ]
    for run in runs[1:]:
        assert np.allclose(run.weights, runs[0].weights, atol=1e-6)
        assert np.allclose(run.losses, runs[0].losses, atol=1e-6)


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not() -> None:
    bundle = Bundle.read(prepare(digits_cnn()))
    x, y = normal(1, 50, 1, 8, 8), np.arange(50) % 10
    trainer = Trainer(bundle)
    first, again = (trainer.train(bundle.initial, x, y, **SETTINGS).weights for _ in range(2))
    fresh = Trainer(bundle).train(bundle.initial, x, y, **SETTINGS).weights
    other = trainer.train(bundle.initial, x, y, **(SETTINGS | {"seed": 5})).weights
    assert first.tobytes() == again.tobytes() == fresh.tobytes() != other.tobytes()


def test_a_learning_rate_of_zero_changes_nothing() -> None:
    weights = Trainer(REGRESSION).train(REGRESSION.initial, X, Y, **(SETTINGS | {"learning_rate": 0})).weights
    assert np.array_equal(weights, REGRESSION.initial)


def test_training_that_explodes_is_reported() -> None:
    bundle = Bundle.read(prepare(perceptron()))
    x, y = normal(1, 20, 4) * 1e20, np.arange(20) % 3
    with pytest.raises(NonFinite, match="learning rate"):
        Trainer(bundle).train(bundle.initial, x, y, **(SETTINGS | {"learning_rate": 1e20}))


@pytest.mark.torch
@pytest.mark.parametrize("optimizer", ["sgd", "momentum"])
def test_twenty_steps_agree_with_pytorch(optimizer: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the other half of this comparison")
    bundle = Bundle.read(prepare(digits_cnn(), optimizer=optimizer))
    tensors = bundle.schema.unflatten(bundle.initial)
    nn = torch.nn
    net = nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU()),
        *(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(512, 384), nn.ReLU(), nn.Linear(384, 10)),
    )
    with torch.no_grad():
        for mine, theirs in zip(tensors.values(), net.parameters(), strict=True):
            theirs.copy_(torch.from_numpy(mine.copy()))
    x, y = normal(3, 160, 1, 8, 8), np.arange(160) % 10
    given = {"epochs": 2, "batch_size": 16, "learning_rate": 0.02, "seed": 7}
    result = Trainer(bundle).train(bundle.initial, x, y, **given)  # type: ignore[arg-type]
    assert result.steps == 20
    beta = 0.9 if optimizer == "momentum" else 0.0
    descent = torch.optim.SGD(net.parameters(), lr=0.02, momentum=beta)
    losses = []
    for rows in batches(160, 2, 16, 7):
        descent.zero_grad()
        loss = nn.functional.cross_entropy(net(torch.from_numpy(x[rows])), torch.from_numpy(y[rows]))
        loss.backward()
        descent.step()
        losses.append(loss.item())
    theirs = np.concatenate([p.detach().numpy().ravel() for p in net.parameters()])
    change = np.linalg.norm(theirs - bundle.initial)
    assert np.linalg.norm(result.weights - theirs) < 1e-3 * change
    assert np.allclose(result.losses, losses, atol=1e-3)
