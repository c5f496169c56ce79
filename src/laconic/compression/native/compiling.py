"""How kernels are compiled: for given types, when their module is imported, kept in numba's cache on disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Kernel = TypeVar("Kernel", bound=Callable[..., Any])

types: Any = numba.types

INT = types.int64
BYTES = types.Array(types.uint8, 1, "C")
SHORTS = types.Array(types.uint16, 1, "C")
WORDS = types.Array(types.uint32, 1, "C")
INTS = types.Array(types.int64, 1, "C")
TABLE = types.Array(types.int64, 2, "C")
BYTE_TABLE = types.Array(types.uint8, 2, "C")
FLOAT = types.float32
DOUBLE = types.float64
FLOATS = types.Array(types.float32, 1, "C")
SUMS = types.Array(types.float64, 1, "C")
LEVELS = types.Array(types.int16, 1, "C")
FLAGS = types.Array(types.boolean, 1, "C")
RULES = types.UniTuple(INT, 5)

if getattr(numba.config, "DISABLE_JIT", 0):
    raise ImportError("NUMBA_DISABLE_JIT is set")


def readonly(array: Any) -> Any:
    """An array that a kernel only reads; writable ones are taken as well."""
    return types.Array(array.dtype, array.ndim, array.layout, readonly=True)


def compiled(result: Any, *arguments: Any) -> Callable[[Kernel], Kernel]:
    """Compile for these types and no others, now: what can go wrong goes wrong here and not in a call.

    Kernels raise nothing, look at no bounds and do not hold the interpreter's lock. They compute with int64,
    in which nothing of theirs overflows.
    """
    made = numba.njit((result or types.void)(*arguments), cache=True, nogil=True, error_model="numpy")
    return cast("Callable[[Kernel], Kernel]", made)


def part(function: Kernel) -> Kernel:
    """A piece of kernels of the same file."""
    return cast(Kernel, numba.njit(error_model="numpy")(function))
