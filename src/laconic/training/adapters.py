"""Low-rank adapters: what trains is a small factorised change of a weight, while the weight itself is frozen.

LoRA (Hu et al., ICLR 2022, section 4.1): W + alpha / rank * B A, with A random and B zero, so that the
adapted model starts as the base model. The product B A is not formed where an activation can go through one
factor after the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

from laconic.errors import ConfigError
from laconic.training.assemble import live_nodes
from laconic.training.builder import Shape, TensorType
from laconic.training.source import Source, SourceParameter
from laconic.training.source.tensors import attributes

_RECURRENT = frozenset({"RNN", "GRU", "LSTM"})


@dataclass(frozen=True, slots=True)
class _Adapter:
    """The two factors of a weight's change, left @ right, by name; for a Conv, `right` is applied first."""

    weight: str
    rank: int
    left: str
    right: str


def with_adapters(
    source: Source,
    patterns: Sequence[str],
    *,
    rank: int,
    alpha: float | None = None,
    seed: int = 0,
    trainable: Sequence[str] = (),
) -> Source:
    """The source with adapters for the weights that match one of the shell patterns.

    Adapted are weights of MatMul, Gemm, Conv without groups, Gather along axis 0 and recurrent layers, and
    any other use of a weight with two axes; biases, scales and grouped convolutions that match stay frozen.
    So do all other parameters, but for those that match `trainable` or are local. The change of weight `w`
    is made by the parameters `w/lora_a` (uniform within 1 / sqrt(fan in), from `seed`) and `w/lora_b` (zero),
    times `alpha` / `rank`; `alpha` is the rank by default. Raises `ConfigError` for a pattern that matches no
    such weight and for a rank below 1.
    """
    if rank < 1:
        raise ConfigError("rank of the adapters", value=rank, limit="1 or more")
    if alpha is not None and not (math.isfinite(alpha) and alpha > 0):
        raise ConfigError("alpha of the adapters", value=alpha, limit="more than 0")
    if seed < 0:
        raise ConfigError("seed of the adapters", value=seed, limit="0 or more")
    reaching = live_nodes(source.nodes, source.trained or source.outputs)
    uses = {p.name: list(_uses(reaching, p.name)) for p in source.parameters}
    able = [
        p
        for p in source.parameters
        if p.kind == "weight" and p.role != "local" and _is_adaptable(p.value, uses[p.name])
    ]
    for pattern in patterns:
        if not any(fnmatchcase(p.name, pattern) for p in able):
            raise ConfigError("pattern for adapters", value=pattern, limit=[p.name for p in able])
    chosen = [p for p in able if any(fnmatchcase(p.name, pattern) for pattern in patterns)]
    build = _Build(source, (rank if alpha is None else alpha) / rank)
    parameters = [_frozen(p, trainable, {c.name for c in chosen}) for p in source.parameters]
    for index, parameter in enumerate(chosen):
        random = np.random.default_rng([seed, index])
        parameters += build.adapt(parameter, uses[parameter.name], rank, random)
    return replace(
        source,
        nodes=tuple(build.nodes),
        types=build.types,
        constants=build.constants,
        parameters=tuple(parameters),
    )


def _frozen(parameter: SourceParameter, trainable: Sequence[str], adapted: set[str]) -> SourceParameter:
    named = any(fnmatchcase(parameter.name, p) for p in trainable)
    if parameter.role == "local" or (named and parameter.name not in adapted):
        return parameter
    return replace(parameter, role="frozen")


def _uses(nodes: Sequence[NodeProto], weight: str) -> Iterator[tuple[NodeProto, int]]:
    for node in nodes:
        for i, name in enumerate(node.input):
            if name == weight:
                yield node, i


def _is_adaptable(value: NDArray[Any], uses: Sequence[tuple[NodeProto, int]]) -> bool:
    if not uses:
        return False
    if all(node.op_type == "Conv" and i == 1 for node, i in uses):
        return all(attributes(node).get("group", 1) == 1 for node, _ in uses)
    if all(node.op_type in _RECURRENT and i in (1, 2) for node, i in uses):
        return value.ndim == 3
    return value.ndim == 2 and min(value.shape) > 1


class _Build:
    """The nodes of a source while adapters are put beside its weights."""

    def __init__(self, source: Source, scale: float) -> None:
        self.nodes = list(source.nodes)
        self.types = dict(source.types)
        self.constants = dict(source.constants)
        self._taken = {n for node in self.nodes for n in (*node.input, *node.output)} | set(self.types)
        self._scale = scale

    def adapt(
        self,
        parameter: SourceParameter,
        uses: Sequence[tuple[NodeProto, int]],
        rank: int,
        random: np.random.Generator,
    ) -> list[SourceParameter]:
        """Put an adapter at every use of a weight; its two parameters."""
        name, shape = parameter.name, parameter.value.shape
        user, _ = uses[0]
        a, b = self._fresh(f"{name}/lora_a"), self._fresh(f"{name}/lora_b")
        rows_come_in = user.op_type in ("MatMul", "Gather") or (
            user.op_type == "Gemm" and not attributes(user).get("transB")
        )
        fan_in: tuple[int, ...]
        if user.op_type == "Conv":
            left, right = (shape[0], rank, *[1] * (len(shape) - 2)), (rank, *shape[1:])
            fan_in = shape[1:]
        else:
            left, right = (*shape[:-1], rank), (*shape[:-2], rank, shape[-1])
            fan_in = shape[-2:-1] if rows_come_in else shape[-1:]
        adapter = _Adapter(name, rank, *((a, b) if rows_come_in else (b, a)))
        self._declare(adapter.left, left)
        self._declare(adapter.right, right)
        bound = 1 / math.sqrt(math.prod(fan_in))
        first, second = (left, right) if rows_come_in else (right, left)
        values = {a: random.uniform(-bound, bound, first).astype(np.float32), b: np.zeros(second, np.float32)}
        whole: str | None = None
        for node, index in uses:
            made = self._beside(adapter, node, index)
            if made is None:
                whole = whole or self._whole(adapter, shape)
                made = [_with_input(node, index, whole)]
            self._replace(node, made)
        return [SourceParameter(n, v, "trainable") for n, v in values.items()]

    def _beside(self, adapter: _Adapter, node: NodeProto, index: int) -> list[NodeProto] | None:
        """The node with the change added to what it makes; None where only the whole weight will do."""
        known, settings = self.types[node.output[0]].shape, attributes(node)
        if known is None:
            return None
        new: list[NodeProto] = []
        x, left, right = node.input[0], adapter.left, adapter.right
        inner: Shape = (*known[:-1], adapter.rank)
        if node.op_type == "MatMul" and index == 1:
            h = self._scaled(new, self._make(new, "MatMul", [x, left], inner), inner)
            change = self._make(new, "MatMul", [h, right], known)
        elif node.op_type == "Gather" and index == 0 and settings.get("axis", 0) == 0:
            h = self._scaled(new, self._make(new, "Gather", [left, node.input[1]], inner, axis=0), inner)
            change = self._make(new, "MatMul", [h, right], known)
        elif node.op_type == "Conv" and index == 1:
            inner = (known[0], adapter.rank, *known[2:])
            h = self._scaled(new, self._make(new, "Conv", [x, right], inner, **settings), inner)
            change = self._make(new, "Conv", [h, left], known)
        elif node.op_type == "Gemm" and index == 1 and not settings.get("transA"):
            turned = int(bool(settings.get("transB")))
            first, second = (right, left) if turned else (left, right)
            h = self._make(new, "Gemm", [x, first], inner, transB=turned)
            plain = self._plain(node)
            # The second product is added to what the node made, with the scale, in one go.
            factor = float(settings.get("alpha", 1.0) * self._scale)
            last = helper.make_node(
                "Gemm", [h, second, plain.output[0]], list(node.output), transB=turned, alpha=factor
            )
            return [plain, *new, last]
        else:
            return None
        plain = self._plain(node)
        return [plain, *new, helper.make_node("Add", [plain.output[0], change], list(node.output))]

    def _whole(self, adapter: _Adapter, shape: tuple[int, ...]) -> str:
        """The changed weight itself."""
        new: list[NodeProto] = []
        product = self._make(new, "MatMul", [adapter.left, adapter.right], shape)
        changed = self._make(new, "Add", [adapter.weight, self._scaled(new, product, shape)], shape)
        self.nodes[:0] = new
        return changed

    def _scaled(self, new: list[NodeProto], x: str, shape: Shape) -> str:
        if self._scale == 1:
            return x
        if "lora_scale" not in self.constants:
            self.constants["lora_scale"] = np.array(self._scale, np.float32)
            self._declare("lora_scale", ())
        return self._make(new, "Mul", [x, "lora_scale"], shape)

    def _make(
        self, new: list[NodeProto], op_type: str, inputs: Sequence[str], shape: Shape, **settings: Any
    ) -> str:
        name = self._fresh(f"lora/{op_type}")
        new.append(helper.make_node(op_type, list(inputs), [name], **settings))
        self._declare(name, shape)
        return name

    def _plain(self, node: NodeProto) -> NodeProto:
        """The node as it was, its result under another name."""
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.output[0] = self._fresh(f"{node.output[0]}/base")
        self.types[copy.output[0]] = self.types[node.output[0]]
        return copy

    def _replace(self, node: NodeProto, made: Sequence[NodeProto]) -> None:
        at = next(i for i, n in enumerate(self.nodes) if n.output[0] == node.output[0])
        # A node may read a weight twice, or one adapted weight and another: what changed before must stay.
        current = self.nodes[at]
        for i, name in enumerate(current.input):
            if name != node.input[i] and made[0].input[i] == node.input[i]:
                made[0].input[i] = name
        self.nodes[at : at + 1] = list(made)

    def _declare(self, name: str, shape: Shape) -> None:
        self.types[name] = TensorType(TensorProto.FLOAT, shape)

    def _fresh(self, name: str) -> str:
        candidate, i = name, 0
        while candidate in self._taken:
            i += 1
            candidate = f"{name}/{i}"
        self._taken.add(candidate)
        return candidate


def _with_input(node: NodeProto, index: int, name: str) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    copy.input[index] = name
    return copy
