"""Gives memory that nobody holds any more back to the system."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any


def release() -> bool:
    """Have the C library return what it keeps for later (malloc_trim(3)); whether it knows how.

    What a training has freed lies in pieces between what is still held, in a heap for each thread, and glibc
    returns by itself only what is at a heap's end. Takes some milliseconds.
    """
    trim = _trim()
    if trim is None:
        return False
    trim(0)
    return True


@cache
def _trim() -> Any:
    """None where the C library has no such function: musl, other systems than Linux."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None
