"""Form and gradient rule of Swish (also SiLU): an operator of opset 24, and what exporters write for it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from onnx import helper

from laconic.training.rules.application import Application, Form, Gradients, Rule, Saved, Training, only


def swish_form(a: Application, training: Training | None) -> Saved:
    """y = x c with the gate c = sigmoid(alpha x), in operators of opset 18; saves the `gate`."""
    g, x = a.graph, a.inputs[0]
    alpha = float(a.attribute("alpha", 1.0))
    gate = g.op("Sigmoid", x if alpha == 1.0 else g.op("Mul", x, g.scalar(alpha)))
    g.append(helper.make_node("Mul", [x, gate], [a.output]))
    return {"gate": gate}


def swish(a: Application, dys: Gradients) -> Gradients:
    """dx = (c + alpha y (1 - c)) dy (Ramachandran et al., 2017, arXiv:1710.05941, section 2)."""
    g, gate = a.graph, a.saved["gate"]
    alpha = float(a.attribute("alpha", 1.0))
    rise = g.op("Mul", a.output, g.op("Sub", g.scalar(1.0), gate))
    rise = rise if alpha == 1.0 else g.op("Mul", rise, g.scalar(alpha))
    return (g.op("Mul", only(dys), g.op("Add", gate, rise)),)


RULES: Mapping[str, Rule] = MappingProxyType({"Swish": swish})
FORMS: Mapping[str, Form] = MappingProxyType({"Swish": swish_form})
