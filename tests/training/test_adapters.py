"""Laws of low-rank adapters: they start as nothing, they are what their formula says, and only they train."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from read_models import Array, run_source
from small_models import node, normal, onnx_file, perceptron

from laconic.errors import ConfigError
from laconic.training.adapters import with_adapters
from laconic.training.builder import BATCH
from laconic.training.source import Source, load
from often import examples


def matmul() -> bytes:
    return onnx_file([node("MatMul", ["x", "w"], ["y"])], {"w": normal(0, 6, 5)}, ("n", 3, 6))


def gemm(turned: int) -> bytes:
    nodes = [node("Gemm", ["x", "w", "b"], ["y"], transB=turned, alpha=0.7, beta=1.5)]
    return onnx_file(nodes, {"w": normal(0, *((5, 6) if turned else (6, 5))), "b": normal(1, 5)}, ("n", 6))


def conv() -> bytes:
    nodes = [node("Conv", ["x", "w", "b"], ["y"], strides=[2, 1], pads=[1, 0, 1, 0], dilations=[1, 2])]
    return onnx_file(nodes, {"w": normal(0, 5, 3, 3, 2), "b": normal(1, 5)}, ("n", 3, 7, 6))


def embedding() -> bytes:
    return onnx_file([node("Gather", ["w", "x"], ["y"])], {"w": normal(0, 9, 5)}, ("n", 4), dtype=7)


def transposed() -> bytes:
    """As PyTorch's newer exporter writes a dense layer."""
    nodes = [node("Transpose", ["w"], ["t"], perm=[1, 0]), node("MatMul", ["x", "t"], ["y"])]
    return onnx_file(nodes, {"w": normal(0, 5, 6)}, ("n", 6))


def tied() -> bytes:
    """One weight as embedding and, turned, as the last layer."""
    nodes = [
        node("Gather", ["w", "x"], ["a"]),
        node("Transpose", ["w"], ["t"], perm=[1, 0]),
        node("MatMul", ["a", "t"], ["y"]),
    ]
    return onnx_file(nodes, {"w": normal(0, 9, 5)}, ("n", 4), dtype=7)


def lstm() -> bytes:
    weights = {"w": normal(0, 1, 12, 6), "r": normal(1, 1, 12, 3), "b": normal(2, 1, 24)}
    nodes = [node("LSTM", ["x", "w", "r", "b"], ["y"], hidden_size=3, layout=0)]
    return onnx_file(nodes, weights, ("n", 4, 6))


FILES = {
    "matmul": matmul(),
    "gemm": gemm(0),
    "gemm turned": gemm(1),
    "conv": conv(),
    "embedding": embedding(),
    "transposed": transposed(),
    "tied": tied(),
    "lstm": lstm(),
}


def sample(source: Source) -> Array:
    kind = source.types[source.inputs[0]]
    assert kind.shape is not None
    shape = [3 if d == BATCH else int(d) for d in kind.shape]
    return normal(5, *shape) if kind.dtype == 1 else np.random.default_rng(5).integers(0, 9, shape)


def value(source: Source, name: str) -> Array:
    return next(p.value for p in source.parameters if p.name == name)


def with_value(source: Source, name: str, array: Array) -> Source:
    changed = (replace(p, value=array) if p.name == name else p for p in source.parameters)
    return replace(source, parameters=tuple(changed))


@pytest.mark.parametrize("name", FILES)
def test_an_adapted_model_starts_as_the_base_model(name: str) -> None:
    base = load(FILES[name])
    adapted = with_adapters(base, ["*"], rank=2, alpha=3.0, seed=1)
    x = {"x": sample(base)}
    assert np.array_equal(run_source(adapted, x)[0], run_source(base, x)[0])


def change(source: Source) -> Array:
    """B A of the paper, in the shape of the weight."""
    w, a, b = (value(source, n) for n in ("w", "w/lora_a", "w/lora_b"))
    if w.ndim == 4:
        return np.einsum("or,rikl->oikl", b[:, :, 0, 0], a)
    left, right = (a, b) if a.shape[-2] == w.shape[-2] and a.shape[-1] != w.shape[-1] else (b, a)
    return np.asarray(left @ right)


@settings(max_examples=examples(25), deadline=None)
@given(
    name=st.sampled_from(sorted(FILES)),
    rank=st.integers(1, 4),
    alpha=st.floats(0.5, 8),
    seed=st.integers(0, 99),
)
def test_adapters_change_a_weight_by_their_product(name: str, rank: int, alpha: float, seed: int) -> None:
    base = load(FILES[name])
    adapted = with_adapters(base, ["w"], rank=rank, alpha=alpha, seed=seed)
    adapted = with_value(adapted, "w/lora_b", normal(seed, *value(adapted, "w/lora_b").shape))
    x = {"x": sample(base)}
    found = run_source(adapted, x)[0]
    base = with_value(base, "w", value(base, "w") + np.float32(alpha / rank) * change(adapted))
    np.testing.assert_allclose(found, run_source(base, x)[0], rtol=2e-4, atol=2e-4)


def test_only_adapters_train_and_what_is_named_besides() -> None:
    base = load(perceptron(), local=["b1"])
    adapted = with_adapters(base, ["w1"], rank=2, trainable=["w2"])
    assert {p.name: p.role for p in adapted.parameters} == {
        "w1": "frozen",
        "b1": "local",
        "w2": "trainable",
        "b2": "frozen",
        "w1/lora_a": "trainable",
        "w1/lora_b": "trainable",
    }


def test_the_seed_alone_makes_the_factors() -> None:
    base = load(perceptron())
    first, again, other = (with_adapters(base, ["w*"], rank=2, seed=s) for s in (1, 1, 2))
    for p, q, r in zip(first.parameters, again.parameters, other.parameters, strict=True):
        assert np.array_equal(p.value, q.value)
        assert np.array_equal(p.value, r.value) != p.name.endswith("lora_a")
    # Uniform within 1 / sqrt(fan in): w1 takes in 4 features, w2 (as it is turned) 8.
    for name, fan_in in (("w1/lora_a", 4), ("w2/lora_a", 8)):
        assert 0.2 < np.abs(value(first, name)).max() * np.sqrt(fan_in) <= 1


def test_what_cannot_be_adapted_is_said() -> None:
    base = load(perceptron())
    with pytest.raises(ConfigError, match=r"pattern for adapters.*w1"):
        with_adapters(base, ["b1"], rank=2)
    with pytest.raises(ConfigError, match="rank"):
        with_adapters(base, ["w1"], rank=0)
    with pytest.raises(ConfigError, match="alpha"):
        with_adapters(base, ["w1"], rank=1, alpha=float("nan"))
    nodes = [node("Conv", ["x", "w"], ["y"], group=3)]
    depthwise = load(onnx_file(nodes, {"w": normal(0, 3, 1, 3, 3)}, ("n", 3, 5, 5)))
    with pytest.raises(ConfigError, match="pattern for adapters"):
        with_adapters(depthwise, ["w"], rank=2)
