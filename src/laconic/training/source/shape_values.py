"""The operators with which exporters compute shapes, on sizes instead of numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from laconic.training.source.sizes import Size, product
from laconic.training.source.tensors import array_of

Values: TypeAlias = NDArray[Any]
"""An array of `Size`, or of truth values, with dtype object."""

ShapeOperator: TypeAlias = Callable[[Mapping[str, Any], Sequence[Values | None]], Values | None]
"""`operator(attributes, inputs)`; None for what sizes cannot say. May raise for malformed input."""


def numbers(values: Values) -> NDArray[Any] | None:
    """The values as int64 or bool, if none depends on an open axis."""
    flat = values.ravel().tolist()
    if all(isinstance(v, bool | np.bool_) for v in flat) and flat:
        return np.array(flat, bool).reshape(values.shape)
    known = [v.number if isinstance(v, Size) else None for v in flat]
    if any(k is None or not -(2**63) <= k < 2**63 for k in known):
        return None
    return np.array(known, np.int64).reshape(values.shape)


def _given(inputs: Sequence[Values | None], index: int) -> Values:
    value = inputs[index]
    if value is None:
        raise ValueError("missing input")
    return value


def _ints(inputs: Sequence[Values | None], index: int) -> list[int] | None:
    if index >= len(inputs) or inputs[index] is None:
        return None
    known = numbers(_given(inputs, index))
    if known is None:
        raise ValueError("not a number")
    return [int(v) for v in known.ravel()]


def _shape(settings: Mapping[str, Any], inputs: Sequence[Values | None]) -> Values | None:
    return _given(inputs, 0)[settings.get("start", 0) : settings.get("end")]


def _size(settings: Mapping[str, Any], inputs: Sequence[Values | None]) -> Values | None:
    return _scalar(product(_given(inputs, 0).tolist()))


def _gather(settings: Mapping[str, Any], inputs: Sequence[Values | None]) -> Values | None:
    index = numbers(_given(inputs, 1))
    if index is None:
        return None
    return _objects(np.take(_given(inputs, 0), index, axis=settings.get("axis", 0)))


def _slice(settings: Mapping[str, Any], inputs: Sequence[Values | None]) -> Values | None:
    starts, ends, axes, steps = (_ints(inputs, i) for i in (1, 2, 3, 4))
    assert starts is not None
    assert ends is not None
    x = _given(inputs, 0)
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        axis, step = axes[i] if axes else i, steps[i] if steps else 1
        stop = None if step < 0 and end <= -x.shape[axis] - 1 else end
        index: list[slice] = [slice(None)] * x.ndim
        index[axis] = slice(start, stop, step)
        x = x[tuple(index)]
    return x


def _concat(settings: Mapping[str, Any], inputs: Sequence[Values | None]) -> Values | None:
    return np.concatenate([_given(inputs, i) for i in range(len(inputs))], axis=settings["axis"])


def _unsqueeze(settings: Mapping[str, Any], inputs: Sequence[Values | None]) -> Values | None:
    return np.expand_dims(_given(inputs, 0), tuple(_ints(inputs, 1) or ()))


def _squeeze(settings: Mapping[str, Any], inputs: Sequence[Values | None]) -> Values | None:
    axes = _ints(inputs, 1)
    return _objects(np.squeeze(_given(inputs, 0), tuple(axes) if axes is not None else None))


def _reshape(settings: Mapping[str, Any], inputs: Sequence[Values | None]) -> Values | None:
    return _given(inputs, 0).reshape(_ints(inputs, 1) or ())


def _cast(settings: Mapping[str, Any], inputs: Sequence[Values | None]) -> Values | None:
    if settings["to"] not in (TensorProto.INT64, TensorProto.INT32, TensorProto.FLOAT):
        return None
    return _elementwise(_as_size)(settings, inputs)


def _as_size(v: Any) -> Any:
    return v if isinstance(v, Size) else Size.of(int(v))


def _elementwise(function: Callable[..., Any]) -> ShapeOperator:
    def operator(settings: Mapping[str, Any], inputs: Sequence[Values | None]) -> Values | None:
        arrays = np.broadcast_arrays(*(_given(inputs, i) for i in range(len(inputs))))
        result = np.empty(arrays[0].shape, object)
        for i in np.ndindex(result.shape):
            value = function(*(a[i] for a in arrays))
            if value is None:
                return None
            result[i] = value
        return result

    return operator


def _div(a: Size, b: Size) -> Size | None:
    if a.number is not None and b.number:
        return Size.of(int(a.number / b.number) if abs(a.number) < 2**52 else a.number // b.number)
    return a.divided(b)


def _mod(a: Size, b: Size) -> Size | None:
    if a.number is not None and b.number:
        return Size.of(a.number % b.number)
    return Size.of(0) if a.divided(b) is not None else None


def _equal(a: Any, b: Any) -> bool | None:
    if not isinstance(a, Size):
        return bool(a == b)
    gap: Size = a - b
    if gap.number is not None:
        return gap.number == 0
    return False if gap.positive or (-gap).positive else None


def _less(a: Size, b: Size) -> bool | None:
    gap = b - a
    if gap.number is not None:
        return gap.number > 0
    return True if gap.positive else False if (-gap).positive else None


def _less_equal(a: Size, b: Size) -> bool | None:
    greater = _less(b, a)
    return None if greater is None else not greater


def _min(*sizes: Size) -> Size | None:
    least = sizes[0]
    for size in sizes[1:]:
        below = _less_equal(size, least)
        if below is None:
            return None
        least = size if below else least
    return least


def _max(*sizes: Size) -> Size | None:
    least = _min(*(-s for s in sizes))
    return None if least is None else -least


def _range(settings: Mapping[str, Any], inputs: Sequence[Values | None]) -> Values | None:
    start, limit, step = (_ints(inputs, i) for i in range(3))
    if start is None or limit is None or step is None:
        return None
    made = range(start[0], limit[0], step[0])
    if len(made) > 4096:
        return None
    return _vector([Size.of(i) for i in made])


def _reduce_prod(settings: Mapping[str, Any], inputs: Sequence[Values | None]) -> Values | None:
    x = _given(inputs, 0)
    if x.ndim != 1:
        return None
    total = product(x.tolist())
    return _vector([total]) if settings.get("keepdims", 1) else _scalar(total)


def _constant_of_shape(settings: Mapping[str, Any], inputs: Sequence[Values | None]) -> Values | None:
    shape = _ints(inputs, 0)
    value = settings.get("value")
    # The attribute's default is a float32 zero: no integer.
    if value is None or value.data_type not in (TensorProto.INT64, TensorProto.INT32) or shape is None:
        return None
    if not all(0 <= d <= 4096 for d in shape) or np.prod(shape) > 4096:
        return None
    result = np.empty(shape, object)
    result[...] = Size.of(int(array_of(value).ravel()[0]))
    return result


def _where(settings: Mapping[str, Any], inputs: Sequence[Values | None]) -> Values | None:
    return _elementwise(lambda c, a, b: a if c else b)(settings, inputs)


def _expand(settings: Mapping[str, Any], inputs: Sequence[Values | None]) -> Values | None:
    x, shape = _given(inputs, 0), _ints(inputs, 1) or []
    if np.prod(shape) > 4096:
        return None
    return np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(shape)))


def _scalar(size: Size) -> Values:
    result = np.empty((), object)
    result[()] = size
    return result


def _vector(sizes: Sequence[Size]) -> Values:
    result = np.empty(len(sizes), object)
    result[:] = sizes
    return result


def _objects(value: Any) -> Values:
    """numpy takes an array without axes for its element."""
    return value if isinstance(value, np.ndarray) else _scalar(value)


SHAPE_OPERATORS: Mapping[str, ShapeOperator] = {
    "Shape": _shape,
    "Size": _size,
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Reshape": _reshape,
    "Cast": _cast,
    "Add": _elementwise(lambda a, b: a + b),
    "Sub": _elementwise(lambda a, b: a - b),
    "Mul": _elementwise(lambda a, b: a * b),
    "Div": _elementwise(_div),
    "Mod": _elementwise(_mod),
    "Neg": _elementwise(lambda a: -a),
    "Min": _elementwise(_min),
    "Max": _elementwise(_max),
    "Equal": _elementwise(_equal),
    "Less": _elementwise(_less),
    "LessOrEqual": _elementwise(_less_equal),
    "Greater": _elementwise(lambda a, b: _less(b, a)),
    "GreaterOrEqual": _elementwise(lambda a, b: _less_equal(b, a)),
    "Not": _elementwise(lambda a: not a),
    "And": _elementwise(lambda a, b: bool(a and b)),
    "Or": _elementwise(lambda a, b: bool(a or b)),
    "Where": _where,
    "Range": _range,
    "ReduceProd": _reduce_prod,
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
}
