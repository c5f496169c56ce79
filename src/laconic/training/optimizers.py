"""Optimizers: how a weight and its gradient become the next weight, as graph fragments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeAlias

from onnx import helper

from laconic.errors import ConfigError
from laconic.training.builder import GraphBuilder

Slots: TypeAlias = Mapping[str, str]
"""Tensor names of one weight's optimizer state, by slot."""

Update: TypeAlias = Callable[[GraphBuilder, str, str, Slots, str], tuple[str, Slots]]
"""`update(graph, weight, gradient, slots, lr)` gives the new weight and the new slots."""


@dataclass(frozen=True, slots=True)
class Optimizer:
    """An optimizer as a value.

    `slots` names its state: for each slot, one float32 tensor of every weight's shape, zero at the start.
    `settings` are the numbers baked into its graph. A `linear` optimizer moves a weight by -lr times its
    gradient and nothing else; since the backward pass is linear too, -lr is then multiplied into the loss's
    gradient once, and `update` gets gradients that need only be added.
    """

    name: str
    slots: tuple[str, ...]
    linear: bool
    update: Update
    settings: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))


def sgd() -> Optimizer:
    """Plain stochastic gradient descent: w - lr g."""

    def update(g: GraphBuilder, weight: str, step: str, slots: Slots, lr: str) -> tuple[str, Slots]:
        return added(g, step, onto=weight), slots

    return Optimizer("sgd", (), True, update)


def momentum(beta: float = 0.9) -> Optimizer:
    """Heavy-ball momentum: m <- beta m + g, w <- w - lr m (Polyak 1964; `torch.optim.SGD(momentum=beta)`).

    Raises `ConfigError` for `beta` outside [0, 1).
    """
    if not 0 <= beta < 1:
        raise ConfigError("beta of momentum", value=beta, limit="0 or more, below 1")

    def update(g: GraphBuilder, weight: str, gradient: str, slots: Slots, lr: str) -> tuple[str, Slots]:
        moved = added(g, gradient, onto=slots["m"], share=beta)
        return g.op("Sub", weight, g.op("Mul", moved, lr)), {"m": moved}

    return Optimizer("momentum", ("m",), False, update, MappingProxyType({"beta": beta}))


def added(g: GraphBuilder, gradient: str, *, onto: str, share: float = 1.0) -> str:
    """`share * onto + gradient`; a gradient that comes out of a Gemm is added inside it, at no cost."""
    made = g.producer(gradient)
    shaped = made is not None and made.op_type == "Reshape"
    product = g.producer(made.input[0]) if made is not None and shaped else made
    if made is None or product is None or product.op_type != "Gemm" or len(product.input) != 2:
        return g.op("Add", onto if share == 1.0 else g.op("Mul", onto, g.scalar(share)), gradient)
    base = onto
    if shaped:
        base = g.reshape(onto, *g.static(product.output[0]))
    settings = {a.name: helper.get_attribute_value(a) for a in product.attribute}
    total = g.op("Gemm", *product.input, base, **settings, beta=share)
    return g.op("Reshape", total, made.input[1]) if shaped else total


OPTIMIZERS: Mapping[str, Callable[[], Optimizer]] = MappingProxyType({"sgd": sgd, "momentum": momentum})


def optimizer_named(optimizer: str | Optimizer) -> Optimizer:
    """An optimizer by its name, with its default settings; raises `ConfigError` for an unknown name."""
    if isinstance(optimizer, Optimizer):
        return optimizer
    if optimizer not in OPTIMIZERS:
        raise ConfigError("name of the optimizer", value=optimizer, limit=sorted(OPTIMIZERS))
    return OPTIMIZERS[optimizer]()
