"""Optimizers: how a weight and its gradient become the next weight, as graph fragments."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeAlias

from onnx import helper, numpy_helper

from laconic.errors import ConfigError
from laconic.training.builder import GraphBuilder

Slots: TypeAlias = Mapping[str, str]
"""Tensor names of one weight's optimizer state, by slot."""

Rates: TypeAlias = Mapping[str, str]
"""Scalars that are the same for all weights of a step, by the names that an optimizer gives them."""

Update: TypeAlias = Callable[[GraphBuilder, str, str, Slots, Rates], tuple[str, Slots]]
"""`update(graph, weight, gradient, slots, rates)` gives the new weight and the new slots."""


def _only_lr(g: GraphBuilder, lr: str, step: str) -> Rates:
    return {"lr": lr}


@dataclass(frozen=True, slots=True)
class Optimizer:
    """An optimizer as a value.

    `slots` names its state: for each slot, one float32 tensor of every weight's shape, zero at the start.
    `layout` is raised whenever the meaning of the slots changes. `settings` are the numbers baked into its
    graph. A `linear` optimizer moves a weight by -lr times its gradient and nothing else; since the backward
    pass is linear too, -lr is then multiplied into the loss's gradient once, and `update` gets gradients that
    need only be added. `rates(graph, lr, step)` makes the scalars that `update` gets; the number of the step,
    from 1, is at hand for one that `counts`, and empty otherwise.
    """

    name: str
    slots: tuple[str, ...]
    linear: bool
    update: Update
    settings: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    counts: bool = False
    rates: Callable[[GraphBuilder, str, str], Rates] = _only_lr
    layout: int = 1


def sgd(*, weight_decay: float = 0.0) -> Optimizer:
    """Plain stochastic gradient descent: w - lr (g + weight_decay w). Raises `ConfigError`."""
    _check_decay(weight_decay)

    def update(g: GraphBuilder, weight: str, step: str, slots: Slots, rates: Rates) -> tuple[str, Slots]:
        base = g.op("Mul", weight, rates["kept"]) if weight_decay else weight
        return added(g, step, onto=base), slots

    settings = _settings(weight_decay=weight_decay)
    return Optimizer("sgd", (), True, update, settings, rates=_keeping(weight_decay))


def momentum(*, beta: float = 0.9, nesterov: bool = False, weight_decay: float = 0.0) -> Optimizer:
    """Heavy-ball momentum: m <- beta m + g, w <- w - lr m (Polyak 1964; `torch.optim.SGD(momentum=beta)`).

    With `nesterov`, w <- w - lr (g + beta m) (Sutskever et al., ICML 2013). `weight_decay` adds
    weight_decay w to g. Raises `ConfigError`.
    """
    _check_share("beta of momentum", beta)
    _check_decay(weight_decay)

    def update(g: GraphBuilder, weight: str, gradient: str, slots: Slots, rates: Rates) -> tuple[str, Slots]:
        if weight_decay:
            gradient = added(g, gradient, onto=weight, share=weight_decay)
        moved = added(g, gradient, onto=slots["m"], share=beta)
        direction = g.op("Add", gradient, g.op("Mul", moved, g.scalar(beta))) if nesterov else moved
        return g.op("Sub", weight, g.op("Mul", direction, rates["lr"])), {"m": moved}

    settings = _settings(beta=beta, nesterov=float(nesterov), weight_decay=weight_decay)
    return Optimizer("momentum", ("m",), False, update, settings)


def adam(
    *, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8, weight_decay: float = 0.0
) -> Optimizer:
    """Adam (Kingma & Ba, ICLR 2015, algorithm 1); `weight_decay` adds weight_decay w to the gradient.

    Raises `ConfigError`.
    """
    return _adam("adam", beta1, beta2, epsilon, weight_decay, decoupled=False)


def adamw(
    *, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8, weight_decay: float = 0.01
) -> Optimizer:
    """Adam with decoupled weight decay, w <- (1 - lr weight_decay) w first (Loshchilov & Hutter, ICLR 2019).

    Raises `ConfigError`.
    """
    return _adam("adamw", beta1, beta2, epsilon, weight_decay, decoupled=True)


def _adam(
    name: str, beta1: float, beta2: float, epsilon: float, weight_decay: float, *, decoupled: bool
) -> Optimizer:
    _check_share(f"beta1 of {name}", beta1)
    _check_share(f"beta2 of {name}", beta2)
    _check_decay(weight_decay)
    if not (epsilon > 0 and math.isfinite(epsilon)):
        raise ConfigError(f"epsilon of {name}", value=epsilon, limit="finite, above 0")

    def rates(g: GraphBuilder, lr: str, step: str) -> Rates:
        # Both corrections of the bias are scalars: lr / (1 - beta1^t), and 1 / sqrt(1 - beta2^t) on sqrt(v).
        first, second = (g.op("Sub", g.scalar(1.0), g.op("Pow", g.scalar(b), step)) for b in (beta1, beta2))
        made = {"rate": g.op("Div", lr, first), "spread": g.op("Reciprocal", g.op("Sqrt", second))}
        if decoupled and weight_decay:
            made["kept"] = g.op("Sub", g.scalar(1.0), g.op("Mul", lr, g.scalar(weight_decay)))
        return made

    def update(g: GraphBuilder, weight: str, gradient: str, slots: Slots, rates: Rates) -> tuple[str, Slots]:
        if weight_decay and not decoupled:
            gradient = added(g, gradient, onto=weight, share=weight_decay)
        fresh = g.op("Mul", gradient, g.scalar(1 - beta1))
        m = g.op("Add", g.op("Mul", slots["m"], g.scalar(beta1)), fresh)
        square = g.op("Mul", g.op("Mul", gradient, gradient), g.scalar(1 - beta2))
        v = g.op("Add", g.op("Mul", slots["v"], g.scalar(beta2)), square)
        size = g.op("Add", g.op("Mul", g.op("Sqrt", v), rates["spread"]), g.scalar(epsilon))
        base = g.op("Mul", weight, rates["kept"]) if "kept" in rates else weight
        return g.op("Sub", base, g.op("Div", g.op("Mul", m, rates["rate"]), size)), {"m": m, "v": v}

    settings = _settings(beta1=beta1, beta2=beta2, epsilon=epsilon, weight_decay=weight_decay)
    return Optimizer(name, ("m", "v"), False, update, settings, counts=True, rates=rates)


def added(g: GraphBuilder, gradient: str, *, onto: str, share: float = 1.0) -> str:
    """`share * onto + gradient`; a gradient that comes out of a Gemm is added inside it, at no cost.

    And one that is scattered over zeros, such as an embedding's, is scattered over `onto` instead.
    """
    made = g.producer(gradient)
    if made is not None and made.op_type == "ScatterND" and share == 1.0 and _is_zeros(g, made.input[0]):
        return g.op("ScatterND", onto, *made.input[1:], reduction="add")
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


def _is_zeros(g: GraphBuilder, x: str) -> bool:
    made = g.producer(x)
    if made is None or made.op_type != "ConstantOfShape":
        return False
    return not any(numpy_helper.to_array(a.t).any() for a in made.attribute if a.name == "value")


def clipped(
    g: GraphBuilder, gradients: Mapping[str, str], limit: float, factor: str | None = None
) -> dict[str, str]:
    """The gradients, scaled down together if their common norm is above `limit`, and then times `factor`.

    Pascanu et al., ICML 2013, algorithm 1; the epsilon is that of `torch.nn.utils.clip_grad_norm_`.
    """
    squares = [g.op("ReduceSumSquare", gradient, keepdims=0) for gradient in gradients.values()]
    norm = g.op("Sqrt", g.op("Sum", *squares))
    share = g.op("Div", g.scalar(limit), g.op("Add", norm, g.scalar(1e-6)))
    scale = g.op("Min", share, g.scalar(1.0))
    if factor is not None:
        scale = g.op("Mul", scale, factor)
    return {name: g.op("Mul", gradient, scale) for name, gradient in gradients.items()}


OPTIMIZERS: Mapping[str, Callable[..., Optimizer]] = MappingProxyType(
    {"sgd": sgd, "momentum": momentum, "adam": adam, "adamw": adamw}
)


def optimizer_named(optimizer: str | Optimizer) -> Optimizer:
    """An optimizer by its name, with its default settings; raises `ConfigError` for an unknown name."""
    if isinstance(optimizer, Optimizer):
        return optimizer
    if optimizer not in OPTIMIZERS:
        raise ConfigError("name of the optimizer", value=optimizer, limit=sorted(OPTIMIZERS))
    return OPTIMIZERS[optimizer]()


def _keeping(weight_decay: float) -> Callable[[GraphBuilder, str, str], Rates]:
    """Rates of an optimizer that shrinks weights before it moves them."""

    def rates(g: GraphBuilder, lr: str, step: str) -> Rates:
        kept = g.op("Sub", g.scalar(1.0), g.op("Mul", lr, g.scalar(weight_decay)))
        return {"lr": lr, "kept": kept}

    return rates if weight_decay else _only_lr


def _settings(**numbers: float) -> Mapping[str, float]:
    return MappingProxyType({name: float(value) for name, value in numbers.items()})


def _check_share(thing: str, value: float) -> None:
    if not 0 <= value < 1:
        raise ConfigError(thing, value=value, limit="0 or more, below 1")


def _check_decay(value: float) -> None:
    if not (value >= 0 and math.isfinite(value)):
        raise ConfigError("weight decay", value=value, limit="finite, not negative")
