"""Losses: what is minimised, the gradient it starts the backward pass with, and what evaluation counts.

A loss is a mean: over the samples of a batch, and over the elements of each sample's output.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
from onnx import TensorProto

from laconic.errors import ConfigError, ModelError
from laconic.training.builder import BATCH, Dim, GraphBuilder, Shape
from laconic.training.rules.indicator import is_positive, is_positive_or_half

Setting: TypeAlias = float | tuple[float, ...]


@dataclass(frozen=True, slots=True)
class TargetType:
    """What the target of a loss is: element type, shape with the batch axis, and the number of classes if it
    holds class indices (else 0)."""

    dtype: int
    shape: Shape
    classes: int = 0


@dataclass(frozen=True, slots=True)
class Terms:
    """What a loss is made of, by tensor name; `target` is empty for a loss without one, and `sample` is any
    tensor with samples on axis 0."""

    prediction: str
    target: str
    sample: str


@dataclass(frozen=True, slots=True)
class Measure:
    """A mean as a fraction of two float32 scalars, so that those of several batches can be joined."""

    sum: str
    weight: str


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss as graph fragments.

    `target(prediction's shape)` says what the target must be, None if there is none. `training(graph, terms,
    scale)` gives the mean loss (float32 scalar) and its gradient at the prediction, multiplied by the scalar
    tensor `scale` if there is one. `evaluation(graph, terms)` gives measures by name, `loss` among them.
    `absorbs` names the final activations that the loss contains itself: it is then put on what goes into
    them. `settings` are the numbers baked into its graphs.
    """

    name: str
    target: Callable[[str, Shape], TargetType | None]
    training: Callable[[GraphBuilder, Terms, str | None], tuple[str, str]]
    evaluation: Callable[[GraphBuilder, Terms], Mapping[str, Measure]]
    absorbs: frozenset[str] = frozenset()
    settings: Mapping[str, Setting] = field(default_factory=lambda: MappingProxyType({}))


# --- cross entropy ----------------------------------------------------------------------------------------


def cross_entropy(
    *,
    label_smoothing: float = 0.0,
    class_weights: Sequence[float] = (),
    dense: bool = False,
    class_axis: int = -1,
) -> Loss:
    """Softmax cross entropy; predictions are logits with classes on `class_axis`.

    Targets are class indices (int64, the prediction's shape without its class axis) or, if `dense`,
    probabilities (float32, the prediction's shape). `label_smoothing` mixes the target with the uniform
    distribution (Szegedy et al., CVPR 2016, section 7); `class_weights` weighs each class: the mean over
    indices is then the weighted one, as in `torch.nn.CrossEntropyLoss`. Raises `ConfigError`.
    """
    if not 0 <= label_smoothing < 1:
        raise ConfigError("label smoothing", value=label_smoothing, limit="0 or more, below 1")
    weights = _checked_class_weights(class_weights)

    def target(prediction: str, shape: Shape) -> TargetType:
        axis, classes = _class_axis(prediction, shape, class_axis)
        if weights and len(weights) != classes:
            raise ConfigError("number of class weights", value=len(weights), limit=classes)
        if dense:
            return TargetType(TensorProto.FLOAT, shape)
        return TargetType(TensorProto.INT64, (*shape[:axis], *shape[axis + 1 :]), classes)

    def parts(g: GraphBuilder, t: Terms) -> tuple[str, str, str, str | None, int]:
        """Log-probabilities, target distribution, sum of the terms' weights, sum of each target, axis."""
        shape = g.shape(t.prediction)
        axis, classes = _class_axis(t.prediction, shape, class_axis)
        log_p = g.op("LogSoftmax", t.prediction, axis=axis)
        low, high = label_smoothing / classes, 1 - label_smoothing + label_smoothing / classes
        along = np.reshape(weights, [-1 if i == axis else 1 for i in range(len(shape))]) if weights else None
        if dense:
            q = t.target
            if label_smoothing:
                q = g.op("Add", g.op("Mul", q, g.scalar(high - low)), g.scalar(low))
            count = g.op("Div", _size(g, t.target), g.scalar(float(classes)))
        else:
            depth = g.constant(np.array(classes, np.int64))
            q = g.op("OneHot", t.target, depth, g.floats([low, high]), axis=axis)
            if along is None:
                count = _size(g, t.target)
            else:
                own = g.op("Gather", g.floats(weights), t.target)
                count = g.op("ReduceSum", own, keepdims=0)
        if along is not None:
            q = g.op("Mul", q, g.floats(along))
        # Only probabilities that add up to one leave p alone in the gradient.
        total = g.op("ReduceSum", q, g.ints(axis), keepdims=1) if dense or along is not None else None
        return log_p, q, count, total, axis

    def training(g: GraphBuilder, t: Terms, scale: str | None) -> tuple[str, str]:
        """Gradient at the logits: (softmax - target) / count (Bishop, PRML 2006, section 4.3.4)."""
        log_p, q, count, total, _ = parts(g, t)
        share = g.op("Div", g.scalar(-1.0), count)
        likelihood = g.op("ReduceSum", g.op("Mul", log_p, q), keepdims=0)
        p = g.op("Exp", log_p)
        # Both signs are in the share, so that none is changed by a node of its own.
        difference = g.op("Sub", q, p if total is None else g.op("Mul", p, total))
        factor = share if scale is None else g.op("Mul", scale, share)
        return g.op("Mul", likelihood, share), g.op("Mul", difference, factor)

    def evaluation(g: GraphBuilder, t: Terms) -> dict[str, Measure]:
        log_p, q, count, _, axis = parts(g, t)
        loss = g.op("Neg", g.op("ReduceSum", g.op("Mul", log_p, q), keepdims=0))
        found = g.op("ArgMax", t.prediction, axis=axis, keepdims=0)
        due = g.op("ArgMax", t.target, axis=axis, keepdims=0) if dense else t.target
        right = g.to_real(g.op("Equal", found, due))
        accuracy = Measure(g.op("ReduceSum", right, keepdims=0), _size(g, found))
        return {"loss": Measure(loss, count), "accuracy": accuracy}

    settings: dict[str, Setting] = {}
    if label_smoothing:
        settings["label_smoothing"] = float(label_smoothing)
    if weights:
        settings["class_weights"] = weights
    if dense:
        settings["dense"] = 1.0
    if class_axis != -1:
        settings["class_axis"] = float(class_axis)
    absorbs = frozenset({"Softmax", "LogSoftmax"})
    return Loss("cross_entropy", target, training, evaluation, absorbs, MappingProxyType(settings))


def _checked_class_weights(weights: Sequence[float]) -> tuple[float, ...]:
    checked = tuple(float(w) for w in weights)
    if not all(math.isfinite(w) and w >= 0 for w in checked) or (checked and not any(checked)):
        raise ConfigError("class weights", value=checked, limit="finite, not negative, not all zero")
    return checked


def _class_axis(prediction: str, shape: Shape, wanted: int) -> tuple[int, int]:
    """The axis of the classes counted from the front, and their number."""
    if (
        len(shape) < 2
        or shape[0] != BATCH
        or not -len(shape) <= wanted < len(shape)
        or wanted % len(shape) == 0
    ):
        raise _unfit(prediction, shape, "(batch, classes)")
    classes = shape[wanted]
    if not isinstance(classes, int):
        raise _unfit(prediction, shape, "(batch, classes), with a known number of classes")
    return wanted % len(shape), classes


# --- losses of each element -------------------------------------------------------------------------------


def binary_cross_entropy() -> Loss:
    """Binary cross entropy with logits, log(1 + e^x) - x y; targets are probabilities in the output's
    shape."""

    def value(g: GraphBuilder, x: str, y: str) -> str:
        return g.op("Sub", g.op("Softplus", x), g.op("Mul", x, y))

    def slope(g: GraphBuilder, x: str, y: str) -> str:
        return g.op("Sub", g.op("Sigmoid", x), y)

    def right(g: GraphBuilder, x: str, y: str) -> str:
        # Both on the same side: of one half in probability, which is zero in logits.
        said, due = is_positive(g, x), is_positive(g, g.op("Sub", y, g.scalar(0.5)))
        return g.to_real(g.op("Equal", said, due))

    return _elementwise("binary_cross_entropy", value, slope, {"accuracy": right}, frozenset({"Sigmoid"}))


def mean_squared_error() -> Loss:
    """Mean of (x - y)^2."""

    def value(g: GraphBuilder, x: str, y: str) -> str:
        difference = g.op("Sub", x, y)
        return g.op("Mul", difference, difference)

    def slope(g: GraphBuilder, x: str, y: str) -> str:
        return g.op("Sub", x, y)

    return _elementwise("mse", value, slope, {"mean_absolute_error": _distance}, steepness=2.0)


def mean_absolute_error() -> Loss:
    """Mean of |x - y|; the derivative at x = y is 0, as in PyTorch."""

    def slope(g: GraphBuilder, x: str, y: str) -> str:
        return g.op("Sub", is_positive_or_half(g, g.op("Sub", x, y)), g.scalar(0.5))

    return _elementwise("mae", _distance, slope, {}, steepness=2.0)


def huber(*, delta: float = 1.0) -> Loss:
    """Huber's loss: d^2 / 2 up to |d| = delta, delta (|d| - delta / 2) beyond (Huber 1964).

    Raises `ConfigError` for a delta that is not positive.
    """
    if not (delta > 0 and math.isfinite(delta)):
        raise ConfigError("delta of the Huber loss", value=delta, limit="finite, above 0")

    def slope(g: GraphBuilder, x: str, y: str) -> str:
        return g.op("Clip", g.op("Sub", x, y), g.scalar(-delta), g.scalar(delta))

    def value(g: GraphBuilder, x: str, y: str) -> str:
        # With c = clip(d): c (d - c / 2) is both branches at once.
        c = slope(g, x, y)
        return g.op("Mul", c, g.op("Sub", g.op("Sub", x, y), g.op("Mul", c, g.scalar(0.5))))

    settings = {"delta": float(delta)}
    return _elementwise("huber", value, slope, {"mean_absolute_error": _distance}, settings=settings)


Pointwise: TypeAlias = Callable[[GraphBuilder, str, str], str]
"""`f(graph, prediction, target)`, element by element."""


def _elementwise(
    name: str,
    value: Pointwise,
    slope: Pointwise,
    measures: Mapping[str, Pointwise],
    absorbs: frozenset[str] = frozenset(),
    settings: Mapping[str, Setting] | None = None,
    steepness: float = 1.0,
) -> Loss:
    """The mean of `value` over all elements; `slope` times `steepness` is its derivative by the
    prediction."""

    def target(prediction: str, shape: Shape) -> TargetType:
        if not shape or shape[0] != BATCH:
            raise _unfit(prediction, shape, "(batch, ...)")
        return TargetType(TensorProto.FLOAT, shape)

    def training(g: GraphBuilder, t: Terms, scale: str | None) -> tuple[str, str]:
        loss = g.op("ReduceMean", value(g, t.prediction, t.target), keepdims=0)
        factor = g.op("Div", g.scalar(steepness), _size(g, t.prediction))
        if scale is not None:
            factor = g.op("Mul", scale, factor)
        return loss, g.op("Mul", slope(g, t.prediction, t.target), factor)

    def evaluation(g: GraphBuilder, t: Terms) -> dict[str, Measure]:
        size = _size(g, t.prediction)
        return {
            metric: Measure(g.op("ReduceSum", f(g, t.prediction, t.target), keepdims=0), size)
            for metric, f in {"loss": value, **measures}.items()
        }

    return Loss(name, target, training, evaluation, absorbs, MappingProxyType(dict(settings or {})))


def _distance(g: GraphBuilder, x: str, y: str) -> str:
    return g.op("Abs", g.op("Sub", x, y))


# --- the model's own --------------------------------------------------------------------------------------


def model_output() -> Loss:
    """The model's output is the loss: a float32 scalar, a mean over the batch; what it needs are inputs."""

    def target(prediction: str, shape: Shape) -> None:
        if any(d != 1 for d in shape):
            raise _unfit(prediction, shape, "a scalar")

    def training(g: GraphBuilder, t: Terms, scale: str | None) -> tuple[str, str]:
        loss = g.op("Reshape", t.prediction, g.ints())
        return loss, g.op("Expand", g.scalar(1.0) if scale is None else scale, g.op("Shape", t.prediction))

    def evaluation(g: GraphBuilder, t: Terms) -> dict[str, Measure]:
        samples = g.count(t.sample, [0])
        return {"loss": Measure(g.op("Mul", g.op("Reshape", t.prediction, g.ints()), samples), samples)}

    return Loss("model_output", target, training, evaluation)


# --- all of them ------------------------------------------------------------------------------------------

LOSSES: Mapping[str, Callable[..., Loss]] = MappingProxyType(
    {
        "cross_entropy": cross_entropy,
        "binary_cross_entropy": binary_cross_entropy,
        "mse": mean_squared_error,
        "mae": mean_absolute_error,
        "huber": huber,
        "model_output": model_output,
    }
)


def loss_named(loss: str | Loss) -> Loss:
    """A loss by its name, with its default settings; raises `ConfigError` for a name that does not exist."""
    if isinstance(loss, Loss):
        return loss
    if loss not in LOSSES:
        raise ConfigError("name of the loss", value=loss, limit=sorted(LOSSES))
    return LOSSES[loss]()


def _unfit(prediction: str, shape: Sequence[Dim], limit: str) -> ModelError:
    return ModelError(
        f"shape of the model's output {prediction!r}",
        value=tuple(shape),
        limit=limit,
        remedy="choose another output or loss, or export with a dynamic batch axis",
    )


def _size(g: GraphBuilder, x: str) -> str:
    """The number of elements of `x`, as a real number."""
    return g.to_real(g.op("Size", x))
