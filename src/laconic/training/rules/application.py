"""What a gradient rule is: a function from one forward node and its output gradients to input gradients.

And what a form is: the way in which one forward node is written, where that is not the node itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeAlias

from onnx import NodeProto, helper

from laconic.training.builder import GraphBuilder, Shape

Gradients: TypeAlias = tuple[str | None, ...]
"""Names of gradient tensors; None where there is no gradient, or none is wanted."""


@dataclass(frozen=True, slots=True)
class Application:
    """One forward node as its rule sees it.

    The rule appends to `graph`, where the tensors of the forward pass are at hand by name. `wanted[i]` says
    whether anyone needs the gradient of input i: a rule may compute the others, but should not. `saved` is
    what the node's form left for its rule; empty if the forward pass was not laid by forms.
    """

    graph: GraphBuilder
    node: NodeProto
    wanted: tuple[bool, ...] = ()
    saved: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

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


@dataclass(frozen=True, slots=True)
class Training:
    """What a form may use when the forward pass is that of a training step.

    `statistics` names the parameters that are running statistics which this step moves; a form enters the
    next value of each in `updates`. `seed` gives an int64 scalar that is another one at every step and every
    call: whoever asks makes the graph take a `seed` and count its steps.
    """

    statistics: Collection[str]
    updates: dict[str, str]
    seed: Callable[[], str]


Saved: TypeAlias = Mapping[str, str]
"""Tensors of a node's form that its gradient rule can use again, by names that the two agree on."""

Form: TypeAlias = Callable[[Application, Training | None], Saved]
"""`form(application, training)` appends nodes that make the node's outputs, under their own names; `training`
is None for evaluation and inference."""

Rule: TypeAlias = Callable[[Application, Gradients], Gradients]
"""`rule(application, dys)`: `dys` has one entry for each output; the result one for each input."""


def key(node: NodeProto) -> str:
    """What tells a node from all others: the name of its first output that is asked for."""
    return str(next(filter(None, node.output)))


def only(dys: Gradients) -> str:
    """The gradient of the one output that an operator has, or the only one that can carry a gradient."""
    first = dys[0]
    assert first is not None
    return first
