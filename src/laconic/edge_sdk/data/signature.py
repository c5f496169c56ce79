"""What one labelled example consists of: the fields that a bundle's graphs take."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from laconic.errors import DataError
from laconic.runtime import Manifest


@dataclass(frozen=True, slots=True)
class Field:
    """One array of an example: an input of the model, or what a loss compares an output with.

    `shape` is that of one sample; None is an axis of any length. With `classes` the values are 0 to
    `classes` - 1. `alias` is another name for it: that of the output which a target belongs to.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]
    classes: int = 0
    alias: str = ""

    @property
    def values(self) -> int | None:
        """How many values a sample has; None where an axis is of any length."""
        lengths = [n for n in self.shape if n is not None]
        return math.prod(lengths) if len(lengths) == len(self.shape) else None


@dataclass(frozen=True, slots=True)
class Signature:
    """The fields of an example, in the manifest's order."""

    inputs: tuple[Field, ...]
    targets: tuple[Field, ...]

    @classmethod
    def of(cls, manifest: Manifest) -> Signature:
        """What a bundle's graphs take: class indices as int64, all other targets as float32."""
        pairs = [(o.output, o.target) for o in manifest.objectives if o.target is not None]
        return cls(
            tuple(Field(i.name, np.dtype(i.dtype), i.shape) for i in manifest.inputs),
            tuple(
                Field(t.name, np.dtype(np.int64 if t.classes else np.float32), t.shape, t.classes, output)
                for output, t in pairs
            ),
        )

    @property
    def fields(self) -> tuple[Field, ...]:
        """Inputs, then targets; no two have the same name."""
        return self.inputs + self.targets

    def named(self, x: object, y: object, where: str) -> dict[str, object]:
        """Inputs `x` and targets `y` by the fields' names: each one value, or a mapping if there are more.

        Raises `DataError` that begins with `where`.
        """
        return {
            **_by_name(self.inputs, x, f"{where}: inputs"),
            **_by_name(self.targets, y, f"{where}: targets"),
        }


def _by_name(fields: tuple[Field, ...], given: object, where: str) -> dict[str, object]:
    if isinstance(given, Mapping):
        names = {f.alias: f.name for f in fields if f.alias}
        found = {names.get(str(name), str(name)): value for name, value in given.items()}
    elif len(fields) == 1 and given is not None:
        found = {fields[0].name: given}
    elif not fields and given is None:
        found = {}
    else:
        value = "none" if given is None else type(given).__name__
        raise DataError(where, value=value, limit=[f.name for f in fields], remedy="give a mapping by name")
    if found.keys() != {f.name for f in fields}:
        raise DataError(f"{where} by name", value=sorted(found), limit=[f.name for f in fields])
    return found
