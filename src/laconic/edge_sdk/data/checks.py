"""Holds values to the fields of an example: conversion, shape, finiteness, range of labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from laconic.edge_sdk.data.signature import Field, Signature
from laconic.edge_sdk.data.snapshot import Array, Snapshot
from laconic.errors import DataError

OnBadRow: TypeAlias = Literal["raise", "skip"]
"""What becomes of a row whose values cannot be used: all are refused, or it is left out and counted."""

LEFT_OUT = 'correct it, or leave such rows out with on_bad_row="skip"'
_BLOCK_BYTES = 2**22
"""So much is looked at at a time: truth values for all elements would take a quarter of the data's room."""


def array_of(value: object, where: str) -> Array:
    """`value` as an array of numbers; tensors are taken off their device and graph first.

    Raises `DataError`.
    """
    if isinstance(value, np.ndarray):
        array: Array = value
    else:
        for step in ("detach", "cpu"):
            value = getattr(value, step)() if callable(getattr(value, step, None)) else value
        if not hasattr(value, "__array__") and callable(getattr(value, "numpy", None)):
            value = value.numpy()  # type: ignore[attr-defined]
        try:
            array = np.asarray(value)
        except (ValueError, TypeError, OverflowError) as e:
            raise DataError(f"{where} is no array of numbers ({e})", value=value) from e
    if array.dtype.kind not in "biuf":
        raise DataError(f"dtype of {where}", value=str(array.dtype), limit="numbers", remedy="convert them")
    return array


def as_batch(field: Field, array: Array, where: str) -> tuple[Array, bool]:
    """`array` with samples on axis 0, and whether it came so; else it was one sample.

    One value stands for itself however it is wrapped: () and (1,) are the same sample of either shape.
    Raises `DataError`.
    """
    if array.ndim and _fits(array.shape[1:], field.shape):
        return array, True
    if _fits(array.shape, field.shape):
        return array[None], False
    if field.values == 1 and array.shape in ((1,), ()):
        return array.reshape(1, *_fixed(field)), False
    return as_whole(field, array, where), True


def as_whole(field: Field, array: Array, where: str) -> Array:
    """`array` with samples on axis 0, as it came, and each sample of the field's shape.

    Raises `DataError`.
    """
    if array.ndim and _fits(array.shape[1:], field.shape):
        return array
    if field.values == 1 and array.ndim and array.size == len(array):
        return array.reshape(len(array), *_fixed(field))
    due = ("samples", *("any" if n is None else n for n in field.shape))
    raise DataError(f"shape of {where}", value=array.shape, limit=due)


def converted(field: Field, batch: Array) -> tuple[Array, NDArray[np.bool_]]:
    """`batch` in the field's dtype, and which rows have a value that cannot be used.

    A value must survive the conversion, but for the rounding of real numbers; it must be finite, and a label
    in range. An array that has the dtype is not copied.
    """
    array, bad = batch, np.zeros(len(batch), np.bool_)
    if batch.dtype != field.dtype:
        with np.errstate(all="ignore"):
            array = batch.astype(field.dtype)
        if field.dtype.kind != "f":
            bad |= _rows(array != batch)
    if field.dtype.kind == "f":
        step = max(1, _BLOCK_BYTES // max(1, array[:1].nbytes))
        for start in range(0, len(array), step):
            block = np.isfinite(array[start : start + step])
            if not block.all():
                bad[start : start + step] |= _rows(~block)
    if field.classes:
        bad |= _rows((array < 0) | (array >= field.classes))
    return array, bad


def flaw(field: Field, row: Array, where: str, remedy: str = LEFT_OUT) -> DataError:
    """The error for a `row` that `converted` calls bad, as it was before the conversion."""
    values = row.reshape(-1)
    if field.classes:
        ok = (values >= 0) & (values < field.classes) & (values == np.floor(values))
        thing, limit = "label", f"a whole number, 0 to {field.classes - 1}"
    else:
        with np.errstate(all="ignore"):
            cast = values.astype(field.dtype)
        ok = np.isfinite(cast) if field.dtype.kind == "f" else cast == values
        thing, limit = "value", f"finite {field.dtype}"
    found = values[int(np.argmin(ok))].item()
    return DataError(f"{thing} of {field.name!r} in {where}", value=found, limit=limit, remedy=remedy)


def checked(
    signature: Signature, arrays: Mapping[str, Array], where: str, on_bad_row: OnBadRow = "raise"
) -> Snapshot:
    """A snapshot of whole arrays by the fields' names, samples on axis 0.

    Arrays that are as they should be are not copied. Raises `DataError` for the first bad row, unless such
    rows are to be left out.
    """
    ready: dict[str, Array] = {}
    unfit: NDArray[np.bool_] | None = None
    for field in signature.fields:
        batch = as_whole(field, arrays[field.name], f"{field.name!r} in {where}")
        array, bad = converted(field, batch)
        if unfit is not None and len(bad) != len(unfit):
            raise DataError(
                f"samples of {field.name!r} in {where}",
                value=len(bad),
                limit=f"{len(unfit)}, as in the others",
            )
        if on_bad_row == "raise" and bad.any():
            row = int(np.argmax(bad))
            raise flaw(field, batch[row], f"row {row} of {where}")
        unfit = bad if unfit is None else unfit | bad
        ready[field.name] = array
    skipped = 0 if unfit is None else int(np.count_nonzero(unfit))
    if skipped and unfit is not None:
        ready = {name: array[~unfit] for name, array in ready.items()}
    return snapshot(signature, ready, skipped)


def snapshot(signature: Signature, arrays: Mapping[str, Array], skipped: int = 0) -> Snapshot:
    """A snapshot of arrays that have been checked."""
    x = {f.name: arrays[f.name] for f in signature.inputs}
    return Snapshot(x, {f.name: arrays[f.name] for f in signature.targets}, skipped)


def _fits(found: tuple[int, ...], due: tuple[int | None, ...]) -> bool:
    return len(found) == len(due) and all(d in (None, f) for f, d in zip(found, due, strict=True))


def _fixed(field: Field) -> tuple[int, ...]:
    return tuple(n or 1 for n in field.shape)


def _rows(flags: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.asarray(flags.any(axis=tuple(range(1, flags.ndim))))
