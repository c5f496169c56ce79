"""One labelled example as a program gives it, made fit to be stored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from laconic.config import read_file
from laconic.edge_sdk.data.checks import array_of, as_batch, converted, flaw
from laconic.edge_sdk.data.signature import Signature
from laconic.edge_sdk.data.snapshot import Array
from laconic.errors import DataError
from laconic.runtime import Bundle, Manifest, Trainer


def signature_of(bundle: str | Path | Bundle | Trainer | Manifest | Signature) -> Signature:
    """What the examples of a bundle consist of.

    Raises `ConfigError`, `WireError` or `ModelError` for a file that cannot be used.
    """
    if isinstance(bundle, Signature):
        return bundle
    if isinstance(bundle, str | Path):
        bundle = Bundle.read(read_file(Path(bundle), "bundle"))
    if isinstance(bundle, Trainer):
        bundle = bundle.bundle
    return Signature.of(bundle.manifest if isinstance(bundle, Bundle) else bundle)


def values_of(signature: Signature, x: object, y: object) -> list[Array]:
    """The fields of one sample in the signature's order, each of shape `(1, ...)`, little-endian.

    Raises `DataError`, also for an object that does not let itself be read.
    """
    try:
        return [*_values(signature, x, y)]
    except DataError:
        raise
    except Exception as e:
        raise DataError("the example", value=f"{type(e).__name__}: {e}") from e


def class_of(signature: Signature, values: Sequence[Array]) -> int:
    """The class by the first target that has classes; 0 without one."""
    for field, value in zip(signature.fields, values, strict=True):
        if field.classes and field.values == 1:
            return int(value.reshape(-1)[0])
    return 0


def classes_of(signature: Signature) -> int:
    """How many classes that target has; 0 without one."""
    return next((f.classes for f in signature.targets if f.classes and f.values == 1), 0)


def _values(signature: Signature, x: object, y: object) -> list[Array]:
    named, values = signature.named(x, y, "the example"), []
    for field in signature.fields:
        where = f"{field.name!r} of the example"
        batch, _ = as_batch(field, array_of(named[field.name], where), where)
        if len(batch) != 1:
            raise DataError(f"samples in {where}", value=len(batch), limit=1, remedy="add one at a time")
        array, bad = converted(field, batch)
        if bad[0]:
            raise flaw(field, batch[0], "the example", "it was left out")
        values.append(array.astype(field.dtype.newbyteorder("<"), copy=False))
    return values
