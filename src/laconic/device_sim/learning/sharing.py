"""What several devices of a world would compute from the same arguments is computed once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, Final

from laconic.edge_sdk.download import Sum

_KEPT: Final = 2
"""Sums that are remembered: of the newest version, and of one that stragglers still fetch."""


class Sharing(Executor):
    """An executor that knows the sum of a fetched model when it sees it, and does equal ones once.

    All who ask get the same result, whose weights and bytes are then in memory once, too.
    """

    def __init__(self, inner: Executor) -> None:
        self._inner = inner
        self._sums: OrderedDict[bytes, tuple[Sum, Future[Any]]] = OrderedDict()
        """By the hash of what comes out."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Begin a call, unless it is `fn` of a sum that has been begun."""
        if len(args) == 1 and isinstance(args[0], Sum) and not kwargs:
            return self._sum(fn, args[0])
        return self._inner.submit(fn, *args, **kwargs)

    def _sum(self, fn: Callable[..., Any], asked: Sum) -> Future[Any]:
        name = asked.fetched.manifest.weights
        known = self._sums.get(name)
        if known is not None and _equal(known[0], asked):
            return known[1]
        found = self._inner.submit(fn, asked)
        self._sums[name] = asked, found
        self._sums.move_to_end(name)
        if len(self._sums) > _KEPT:
            self._sums.popitem(last=False)
        return found


def _equal(a: Sum, b: Sum) -> bool:
    """Whether two sums have the same summands: of frames every byte, of what is held its hash."""
    if a.fetched.from_zero != b.fetched.from_zero or a.fetched.manifest != b.fetched.manifest:
        return False
    held = a.fetched.from_zero or (a.held.digest == b.held.digest)
    return held and a.schema == b.schema and a.fetched.frames == b.fetched.frames
