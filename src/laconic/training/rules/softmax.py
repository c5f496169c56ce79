"""Forms and gradient rules of Softmax, LogSoftmax, and of the losses that ONNX has as operators."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from onnx import TensorProto, helper

from laconic.training.builder import GraphBuilder
from laconic.training.rules.application import Application, Form, Gradients, Rule, Saved, Training, only


def softmax(a: Application, dys: Gradients) -> Gradients:
    """dx = y * dy - y * sum(y * dy) (Bishop, PRML 2006, equation 4.106)."""
    g, y = a.graph, a.output
    weighed = g.op("Mul", only(dys), y)
    total = g.op("ReduceSum", weighed, g.ints(int(a.attribute("axis", -1))), keepdims=1)
    return (g.op("Sub", weighed, g.op("Mul", y, total)),)


def log_softmax(a: Application, dys: Gradients) -> Gradients:
    """dx = dy - softmax * sum(dy)."""
    return (_log_softmax(a.graph, a.output, only(dys), int(a.attribute("axis", -1))),)


def cross_entropy_form(a: Application, training: Training | None) -> Saved:
    """LogSoftmax, then NegativeLogLikelihoodLoss; saves `log_p` and what that saves."""
    g = a.graph
    shown = str(a.node.output[1]) if len(a.node.output) > 1 else ""
    log_p = shown or g.fresh("log_p")
    g.append(helper.make_node("LogSoftmax", [a.inputs[0]], [log_p], axis=1))
    return {"log_p": log_p, **_likelihood(a, log_p)}


def cross_entropy(a: Application, dys: Gradients) -> Gradients:
    """dscores = (softmax * sum of shares - target) for the loss, and as LogSoftmax for its second output."""
    g = a.graph
    parts = [] if dys[0] is None else [_target_gradient(a, dys[0])]
    parts += [dy for dy in dys[1:] if dy is not None]
    dlog_p = parts[0] if len(parts) == 1 else g.op("Add", *parts)
    dx = _log_softmax(g, a.saved["log_p"], dlog_p, 1)
    return (dx, *(None for _ in a.inputs[1:]))


def likelihood_form(a: Application, training: Training | None) -> Saved:
    """NegativeLogLikelihoodLoss in elementary operators; saves the `target` distribution, weighed and signed,
    and, for a mean, the sum of its `weights`."""
    return _likelihood(a, a.inputs[0])


def likelihood(a: Application, dys: Gradients) -> Gradients:
    """dx is minus the weight of the sample at its class and 0 elsewhere, times dy.

    Labels, and the weights of classes, are data: no gradient reaches them.
    """
    return (_target_gradient(a, only(dys)), *(None for _ in a.inputs[1:]))


def _likelihood(a: Application, log_p: str) -> Saved:
    """Append the loss of `log_p`, of shape (batch, classes, ...), for labels of shape (batch, ...)."""
    g, labels = a.graph, a.inputs[1]
    ignored, reduction = a.attribute("ignore_index"), a.attribute("reduction", "mean")
    classes = g.static(a.inputs[0], 1)[0]
    depth, zero = (g.constant(np.array(n, np.int64)) for n in (classes, 0))
    # onnxruntime knows OneHot for few pairs of types; these are one.
    labels = g.op("Cast", labels, to=TensorProto.INT64)
    counts = None
    if ignored is not None:
        other = g.op("Equal", labels, g.constant(np.array(ignored, np.int64)))
        # An ignored label may be no class at all, or a negative number that OneHot would count from the end.
        labels = g.op("Where", other, zero, labels)
        counts = g.op("Unsqueeze", g.to_real(g.op("Not", other)), g.ints(1))
    target = g.op("OneHot", labels, depth, g.floats([0.0, -1.0]), axis=1)
    if counts is not None:
        target = g.op("Mul", target, counts)
    if len(a.inputs) > 2 and a.inputs[2]:
        column = g.reshape(a.inputs[2], classes, *[1] * (len(g.shape(a.inputs[0])) - 2))
        target = g.op("Mul", target, column)
    terms = g.op("Mul", log_p, target)
    if reduction == "none":
        g.append(helper.make_node("ReduceSum", [terms, g.ints(1)], [a.output], keepdims=0))
        return {"target": target}
    if reduction == "sum":
        g.append(helper.make_node("ReduceSum", [terms], [a.output], keepdims=0))
        return {"target": target}
    weights = g.op("Neg", g.op("ReduceSum", target, keepdims=0))
    g.append(helper.make_node("Div", [g.op("ReduceSum", terms, keepdims=0), weights], [a.output]))
    return {"target": target, "weights": weights}


def _target_gradient(a: Application, dy: str) -> str:
    """The gradient of the loss at the logarithms of the probabilities."""
    g = a.graph
    if a.attribute("reduction", "mean") == "none":
        dy = g.op("Unsqueeze", dy, g.ints(1))
    elif "weights" in a.saved:
        dy = g.op("Div", dy, a.saved["weights"])
    return g.op("Mul", a.saved["target"], dy)


def _log_softmax(g: GraphBuilder, y: str, dy: str, axis: int) -> str:
    total = g.op("ReduceSum", dy, g.ints(axis), keepdims=1)
    return g.op("Sub", dy, g.op("Mul", g.op("Exp", y), total))


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "LogSoftmax": log_softmax,
        "NegativeLogLikelihoodLoss": likelihood,
        "Softmax": softmax,
        "SoftmaxCrossEntropyLoss": cross_entropy,
    }
)
FORMS: Mapping[str, Form] = MappingProxyType(
    {"NegativeLogLikelihoodLoss": likelihood_form, "SoftmaxCrossEntropyLoss": cross_entropy_form}
)
