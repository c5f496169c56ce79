"""Processes that have nothing to do, put away as bytes: a world remembers thousands and runs a few.

A node is a state machine without clock, socket or thread, so all of it can be written down and read back; it
does not notice. What it shares with others or with the world (its store, its sensors, what it learns with,
large arrays) stays where it is and is pointed to.
"""

from __future__ import annotations

import io
import pickle
import zlib
from types import FunctionType
from typing import Any, Final

import numpy as np

from laconic.errors import LocalProtocolError
from laconic.node import Node

_OWN: Final = (
    "laconic.edge_sdk",
    "laconic.protocol",
    "laconic.budget",
    "laconic.compression",
    "laconic.schema",
    "laconic.node",
    "builtins",
    "collections",
    "types",
    "enum",
)
"""Modules whose objects are a node's own; all others are shared."""
_LARGE_BYTES: Final = 1024
_PROTOCOL: Final = 4
"""Later ones keep the memory of arrays instead of writing it down."""


class Parked:
    """A node that has been put away, for good or until `woken`."""

    __slots__ = ("_blob", "_shared")

    def __init__(self, node: Node) -> None:
        """Raises `LocalProtocolError` for a node that cannot be written down: one that holds a closure."""
        self._shared: list[Any] = []
        out = io.BytesIO()
        try:
            _Writer(out, self._shared).dump(node)
        except (pickle.PicklingError, TypeError, AttributeError) as e:
            raise LocalProtocolError("a node to put away", value=type(node).__name__, limit=str(e)) from e
        self._blob = zlib.compress(out.getvalue(), 1)

    def woken(self) -> Node:
        """The node as it was."""
        found: Node = _Reader(io.BytesIO(zlib.decompress(self._blob)), self._shared).load()
        return found

    @property
    def size(self) -> int:
        """Bytes of what is its own."""
        return len(self._blob)


class _Writer(pickle.Pickler):
    def __init__(self, out: io.BytesIO, shared: list[Any]) -> None:
        super().__init__(out, _PROTOCOL)
        self._shared = shared
        self._places: dict[int, int] = {}

    def persistent_id(self, obj: Any) -> int | None:
        kind = type(obj)
        if isinstance(obj, np.ndarray):
            # Zeros, as in a residual that is empty, cost nothing when they are written down.
            shared = obj.nbytes > _LARGE_BYTES and bool(obj.any())
        elif isinstance(obj, bytes):
            shared = len(obj) > _LARGE_BYTES
        elif isinstance(obj, FunctionType):
            if obj.__closure__:
                # It may hold the very node that is put away.
                raise pickle.PicklingError(f"{obj.__qualname__} is a closure")
            shared = True
        elif isinstance(obj, type):
            shared = False
        else:
            shared = not kind.__module__.startswith(_OWN) and not kind.__module__.startswith("numpy")
        if not shared:
            return None
        if id(obj) not in self._places:
            self._places[id(obj)] = len(self._shared)
            self._shared.append(obj)
        return self._places[id(obj)]


class _Reader(pickle.Unpickler):
    def __init__(self, source: io.BytesIO, shared: list[Any]) -> None:
        super().__init__(source)
        self._shared = shared

    def persistent_load(self, pid: Any) -> Any:
        return self._shared[pid]
