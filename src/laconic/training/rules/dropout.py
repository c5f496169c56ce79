"""Dropout: its mask in training, nothing in evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from onnx import TensorProto, helper

from laconic.errors import ModelError
from laconic.training.builder import GraphBuilder
from laconic.training.randomness import keep_mask
from laconic.training.rules.application import Application, Form, Gradients, Rule, Saved, Training, only


def dropout_form(a: Application, training: Training | None) -> Saved:
    """Inverted dropout (Srivastava et al., JMLR 2014, section 10) in a training step, else the identity.

    The node's own `training_mode` and `seed` do not count: an exporter writes the former as the model stood
    when it was exported. Saves the scaled `mask`. Raises `ModelError` for a ratio that is not a constant
    from 0 to 1.
    """
    g, x = a.graph, a.inputs[0]
    ratio = 0.0 if training is None else _ratio(a)
    shown = str(a.node.output[1]) if len(a.node.output) > 1 else ""
    if training is None or ratio == 0:
        g.append(helper.make_node("Identity", [x], [a.output]))
        if shown:
            everywhere = helper.make_tensor("true", TensorProto.BOOL, [1], [True])
            g.append(helper.make_node("ConstantOfShape", [g.shape_of(x)], [shown], value=everywhere))
        return {}
    mask = _nowhere(g, x) if ratio == 1 else keep_mask(g, training.seed(), x, ratio)
    g.append(helper.make_node("Mul", [x, mask], [a.output]))
    if shown:
        g.append(helper.make_node("Cast", [mask], [shown], to=TensorProto.BOOL))
    return {"mask": mask}


def dropout(a: Application, dys: Gradients) -> Gradients:
    """dx = dy * mask."""
    dy = only(dys)
    dx = a.graph.op("Mul", dy, a.saved["mask"]) if "mask" in a.saved else dy
    return (dx, *(None for _ in a.inputs[1:]))


def _ratio(a: Application) -> float:
    if len(a.inputs) < 2 or not a.inputs[1]:
        return 0.5
    value = a.graph.value(a.inputs[1])
    ratio = None if value is None or np.size(value) != 1 else float(np.ravel(value)[0])
    if ratio is None or not 0 <= ratio <= 1:
        raise ModelError(
            f"ratio of Dropout {a.output!r}",
            value=ratio,
            limit="a constant from 0 to 1",
            remedy="export the model with the ratio as a constant",
        )
    return ratio


def _nowhere(g: GraphBuilder, x: str) -> str:
    return g.op("Expand", g.scalar(0.0), g.shape_of(x))


RULES: Mapping[str, Rule] = MappingProxyType({"Dropout": dropout})
FORMS: Mapping[str, Form] = MappingProxyType({"Dropout": dropout_form})
