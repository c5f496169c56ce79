"""What becomes of memory that is freed while virtual time passes."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from laconic.runtime.release import release

# Options of mallopt(3), as glibc's malloc.h numbers them.
_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
_ARENA_MAX: Final = -8

_LARGEST_BYTES: Final = 32 * 2**20
"""glibc takes no larger threshold."""
_KEPT_BYTES: Final = 2**31 - 1
_USUAL_BYTES: Final = 128 * 1024


@contextmanager
def kept_memory() -> Iterator[None]:
    """Meanwhile the C library keeps what is freed for what is asked for next, in one heap for all threads
    unless there have been more before.

    A round makes and frees some buffers as large as the model for each device, and the system cleans every
    page that it hands out: with a model of 1.6 million parameters that was a tenth of a scenario's processor
    time. That threads started meanwhile share a heap, and that blocks of up to 32 MB come from it, stays so.
    """
    option = _mallopt()
    if option is None:
        yield
        return
    option(_ARENA_MAX, 1)
    option(_MMAP_THRESHOLD, _LARGEST_BYTES)
    option(_TRIM_THRESHOLD, _KEPT_BYTES)
    try:
        yield
    finally:
        option(_TRIM_THRESHOLD, _USUAL_BYTES)
        release()


def _mallopt() -> Any:
    """None where the C library is not glibc, whose options these are."""
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018
    except (AttributeError, OSError, TypeError):
        return None
    return library.mallopt
