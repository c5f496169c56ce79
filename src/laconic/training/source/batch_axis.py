"""Makes the first axis of every data input a batch axis of any size.

Exported models often carry the batch size they were traced with: in input declarations, in the constant
targets of Reshape nodes, in the initial states of recurrent layers. A device trains with another one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from onnx import NodeProto, ValueInfoProto

from laconic.errors import ConfigError, ModelError
from laconic.training.builder import BATCH, Dim, TensorType
from laconic.training.source.output_shapes import reshaped
from laconic.training.source.reading import Reading
from laconic.training.source.sizes import Size, product
from laconic.training.source.tensors import attributes


def declared_types(
    inputs: Sequence[ValueInfoProto], input_shapes: Mapping[str, Sequence[int]]
) -> tuple[dict[str, TensorType], int | None]:
    """The types of data inputs with a free batch axis, and the batch size of the export if it was fixed.

    `input_shapes` fixes the shape of one sample. Raises `ModelError` for a data input without axes,
    `ConfigError` for a shape that fits no input.
    """
    if unknown := sorted(set(input_shapes) - {i.name for i in inputs}):
        raise ConfigError("name in input_shapes", value=unknown[0], limit=[i.name for i in inputs])
    types: dict[str, TensorType] = {}
    traced: set[int] = set()
    # One name for one axis: inputs that share a name share the size, but no other axis may be called batch.
    batch_names = {d.dim_param for i in inputs for d in i.type.tensor_type.shape.dim[:1] if d.dim_param}
    for declared in inputs:
        name, tensor = declared.name, declared.type.tensor_type
        if not declared.type.HasField("tensor_type"):
            raise ModelError(f"input {name!r} is no tensor", remedy="export with tensors as inputs")
        if not tensor.HasField("shape") or not tensor.shape.dim:
            raise ModelError(
                f"input {name!r} has no axes", remedy="export with an input of shape (batch, ...)"
            )
        first, *rest = tensor.shape.dim
        if first.HasField("dim_value"):
            traced.add(int(first.dim_value))
        dims: list[Dim] = []
        for axis, dim in enumerate(rest, start=1):
            if dim.HasField("dim_value"):
                if dim.dim_value < 1:
                    raise ModelError(f"axis {axis} of input {name!r}", value=dim.dim_value, limit="1 or more")
                dims.append(int(dim.dim_value))
            elif not dim.dim_param:
                dims.append(f"{name}/axis{axis}")
            elif dim.dim_param == BATCH and BATCH not in batch_names:
                dims.append(f"{name}/{BATCH}")
            else:
                dims.append(BATCH if dim.dim_param in batch_names else str(dim.dim_param))
        types[name] = TensorType(tensor.elem_type, (BATCH, *_fixed(name, dims, input_shapes.get(name))))
    return types, traced.pop() if len(traced) == 1 else None


def freed(r: Reading, node: NodeProto) -> bool:
    """Rewrite a node that carries the batch size of the export; False if it does not."""
    if node.op_type == "Reshape":
        return _freed_reshape(r, node)
    if node.op_type in ("RNN", "GRU", "LSTM"):
        return _freed_states(r, node)
    if node.op_type == "Concat":
        return _freed_concat(r, node)
    return False


def _freed_reshape(r: Reading, node: NodeProto) -> bool:
    """A constant target with numbers, zeros and one -1 at most: where the batch axis went, it says so."""
    source, target = r.sizes(node.input[0]), r.values(node.input[1])
    if source is None or target is None or target.ndim != 1:
        return False
    wanted = list(target)
    dims = reshaped(node, source, wanted)
    fixed = all(s.number is not None for s in wanted)
    if fixed and r.traced is not None and any(BATCH in s.names for s in source):
        at_export = [s.replaced({BATCH: Size.of(r.traced)}) for s in source]
        before = reshaped(node, at_export, wanted)
        if before is not None and product(before) == product(at_export):
            dims = _with_batch(source, before, r.traced)
    if dims is None:
        return False
    zero = bool(attributes(node).get("allowzero", 0))
    known = _as_target(source, dims)
    if known is None or (fixed and not zero and np.array_equal(known, [s.number for s in wanted])):
        return False
    r.op("Reshape", node.input[0], r.ints(*known), outputs=list(node.output))
    return True


def _with_batch(source: Sequence[Size], before: Sequence[Size], traced: int) -> list[Size] | None:
    """The target with its batch axis open again: elements keep their order, so the axis is where as many
    elements as in the source lie behind it."""
    batch, one = Size.of(BATCH), Size.of(1)
    at = next(i for i, s in enumerate(source) if BATCH in s.names)
    inner = source[at].divided(batch)
    if inner is None or any(BATCH in s.names for s in source[at + 1 :]):
        return None
    behind = product([inner, *source[at + 1 :]])
    candidates: list[int] = []
    for i, size in enumerate(before):
        after = product(before[i + 1 :])
        within = behind.divided(after)
        if within is None or not within.positive:
            continue
        outer = size.divided(within * Size.of(traced))
        if outer is not None and outer.positive:
            candidates.append(i)
    if not candidates:
        return None
    chosen = at if at in candidates and source[at] == batch else candidates[0]
    if traced == 1 and before[chosen] != one and any(before[i] == one for i in candidates):
        chosen = next(i for i in candidates if before[i] == one)
    result = list(before)
    quotient = before[chosen].divided(Size.of(traced))
    assert quotient is not None
    result[chosen] = quotient * batch
    return result


def _as_target(source: Sequence[Size], dims: Sequence[Size]) -> list[int] | None:
    """Numbers for a Reshape's target: zeros where an axis stays, one -1; None if they cannot say it."""
    target: list[int] = []
    for i, size in enumerate(dims):
        if size.number is not None:
            if size.number == 0:
                return None
            target.append(size.number)
        else:
            target.append(0 if i < len(source) and source[i] == size else -1)
    return target if target.count(-1) <= 1 else None


def _freed_states(r: Reading, node: NodeProto) -> bool:
    """Initial states are zero where nothing is said; others are repeated for every sample."""
    known = r.shape(node.input[0])
    layout = attributes(node).get("layout", 0)
    if len(known) != 3 or known[0 if layout else 1] != BATCH:
        return False
    axis = 0 if layout else 1
    inputs, changed = list(node.input), False
    for i in (5, 6):
        if i >= len(inputs) or not inputs[i]:
            continue
        shape = r.types[inputs[i]].shape
        if r.holds_zeros(inputs[i]):
            inputs[i], changed = "", True
        elif shape is not None and len(shape) == 3 and shape[axis] == 1:
            inputs[i], changed = _repeated(r, inputs[i], 3, axis, node.input[0], axis), True
    if len(inputs) > 4 and inputs[4] and r.value(inputs[4]) is not None:
        # Lengths as the export had them: only full ones say nothing.
        lengths, steps = r.value(inputs[4]), known[1 if layout else 0]
        assert lengths is not None
        if isinstance(steps, int) and (lengths == steps).all():
            inputs[4], changed = "", True
    if changed:
        while not inputs[-1]:
            inputs.pop()
        r.op(node.op_type, *inputs, outputs=list(node.output), **attributes(node))
    return changed


def _freed_concat(r: Reading, node: NodeProto) -> bool:
    """What is joined to samples without being one, as a class token, is repeated for every sample."""
    shapes = [r.types[i].shape if i in r.types else None for i in node.input]
    axis = attributes(node).get("axis", 0)
    if r.traced != 1 or any(s is None or not s for s in shapes) or axis == 0:
        return False
    like = next((n for n, s in zip(node.input, shapes, strict=True) if s and s[0] == BATCH), None)
    if like is None or not any(s and s[0] == 1 for s in shapes):
        return False
    inputs = [
        _repeated(r, n, len(s), 0, like, 0) if s and s[0] == 1 else n
        for n, s in zip(node.input, shapes, strict=True)
    ]
    r.op("Concat", *inputs, outputs=list(node.output), axis=axis)
    return True


def _repeated(r: Reading, x: str, rank: int, axis: int, like: str, its: int) -> str:
    count = r.op("Shape", like, start=its, end=its + 1)
    before, after = r.ints(*[1] * axis), r.ints(*[1] * (rank - axis - 1))
    target = r.op("Concat", before, count, after, axis=0)
    return r.op("Expand", x, target)


def _fixed(name: str, dims: Sequence[Dim], sample: Sequence[int] | None) -> Sequence[Dim]:
    if sample is None:
        return dims
    fits = len(sample) == len(dims) and all(
        size > 0 and (isinstance(dim, str) or dim == size) for size, dim in zip(sample, dims, strict=True)
    )
    if not fits or math.prod(sample) > 2**31:
        raise ConfigError(f"shape of input {name!r}", value=tuple(sample), limit=list(dims))
    return list(sample)
