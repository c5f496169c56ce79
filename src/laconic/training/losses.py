"""Losses: what is minimised, the gradient it starts the backward pass with, and what evaluation counts.

Every loss takes a sample mask (float32, 1 for a sample that counts, 0 for filling) and is a mean over the
samples that count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from onnx import TensorProto

from laconic.errors import ConfigError, ModelError
from laconic.training.builder import BATCH, GraphBuilder


@dataclass(frozen=True, slots=True)
class Terms:
    """What a loss is made of, by tensor name; `classes` is the width of the prediction."""

    prediction: str
    labels: str
    mask: str
    classes: int


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss as graph fragments.

    `training(graph, terms, scale)` gives the mean loss (float32 scalar) and its gradient at the prediction,
    multiplied by the scalar tensor `scale` if there is one. `evaluation(graph, terms)` gives the summed loss
    and the number of right answers (float32 scalars). `absorbs` names the final activations that the loss
    contains itself: it is then put on what goes into them.
    """

    name: str
    absorbs: frozenset[str]
    training: Callable[[GraphBuilder, Terms, str | None], tuple[str, str]]
    evaluation: Callable[[GraphBuilder, Terms], tuple[str, str]]


def width(graph: GraphBuilder, prediction: str) -> int:
    """The number of classes that a prediction of shape (batch, classes) tells apart.

    Raises `ModelError` for any other shape.
    """
    shape = graph.shape(prediction)
    if len(shape) != 2 or shape[0] != BATCH or not isinstance(shape[1], int):
        raise ModelError(
            f"shape of the model's output {prediction!r}",
            value=shape,
            limit="(batch, classes)",
            remedy="name the output to train with `output=`, or export with a dynamic batch axis",
        )
    return shape[1]


def _cross_entropy_training(g: GraphBuilder, t: Terms, scale: str | None) -> tuple[str, str]:
    """Gradient at the logits: (softmax - one-hot) * mask / count (Bishop, PRML 2006, section 4.3.4)."""
    log_p = g.op("LogSoftmax", t.prediction, axis=-1)
    target = _one_hot(g, t)
    # A batch of nothing but filling has loss 0, not 0 / 0.
    count = g.op("Max", g.op("ReduceSum", t.mask, keepdims=0), g.scalar(1.0))
    share = g.op("Unsqueeze", g.op("Div", t.mask, count), g.ints(1))
    log_likelihood = g.op("ReduceSum", g.op("Mul", log_p, g.op("Mul", target, share)), keepdims=0)
    factor = share if scale is None else g.op("Mul", share, scale)
    seed = g.op("Mul", g.op("Sub", g.op("Exp", log_p), target), factor)
    return g.op("Neg", log_likelihood), seed


def _cross_entropy_evaluation(g: GraphBuilder, t: Terms) -> tuple[str, str]:
    log_p = g.op("LogSoftmax", t.prediction, axis=-1)
    target = g.op("Mul", _one_hot(g, t), g.op("Unsqueeze", t.mask, g.ints(1)))
    loss = g.op("Neg", g.op("ReduceSum", g.op("Mul", log_p, target), keepdims=0))
    right = g.op("Equal", g.op("ArgMax", t.prediction, axis=-1, keepdims=0), t.labels)
    right = g.op("Cast", right, to=TensorProto.FLOAT)
    return loss, g.op("ReduceSum", g.op("Mul", right, t.mask), keepdims=0)


def _one_hot(g: GraphBuilder, t: Terms) -> str:
    depth = g.constant(np.array(t.classes, np.int64))
    return g.op("OneHot", t.labels, depth, g.constant(np.array([0, 1], np.float32)), axis=-1)


CROSS_ENTROPY = Loss(
    "cross_entropy", frozenset({"Softmax", "LogSoftmax"}), _cross_entropy_training, _cross_entropy_evaluation
)
"""Softmax cross-entropy with integer labels; predictions are logits of shape (batch, classes)."""

LOSSES: Mapping[str, Loss] = MappingProxyType({loss.name: loss for loss in (CROSS_ENTROPY,)})


def loss_named(loss: str | Loss) -> Loss:
    """A loss by its name; raises `ConfigError` for a name that does not exist."""
    if isinstance(loss, Loss):
        return loss
    if loss not in LOSSES:
        raise ConfigError("name of the loss", value=loss, limit=sorted(LOSSES))
    return LOSSES[loss]
