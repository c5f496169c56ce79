"""What a gradient rule is: a function from one forward node and its output gradients to input gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from onnx import NodeProto, helper

from laconic.training.builder import GraphBuilder, Shape

Gradients: TypeAlias = tuple[str | None, ...]
"""Names of gradient tensors; None where there is no gradient, or none is wanted."""


@dataclass(frozen=True, slots=True)
class Application:
    """One forward node as its rule sees it.

    The rule appends to `graph`, where the tensors of the forward pass are at hand by name. `wanted[i]` says
    whether anyone needs the gradient of input i: a rule may compute the others, but should not.
    """

    graph: GraphBuilder
    node: NodeProto
    wanted: tuple[bool, ...]

    @property
    def inputs(self) -> Sequence[str]:
        """Names of the node's inputs; an empty name is an optional input left out."""
        return list(self.node.input)

    @property
    def output(self) -> str:
        """Name of the node's first output."""
        return str(self.node.output[0])

    @property
    def output_shape(self) -> Shape:
        """Shape of the node's first output."""
        return self.graph.shape(self.output)

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute's value (bytes as str), or `default`."""
        for attribute in self.node.attribute:
            if attribute.name == name:
                value = helper.get_attribute_value(attribute)
                return value.decode() if isinstance(value, bytes) else value
        return default


Rule: TypeAlias = Callable[[Application, Gradients], Gradients]
"""`rule(application, dys)`: `dys` has one entry for each output; the result one for each input."""


def only(dys: Gradients) -> str:
    """The gradient of the one output that an operator has, or the only one that can carry a gradient."""
    first = dys[0]
    assert first is not None
    return first
