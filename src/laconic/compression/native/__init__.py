"""Compiled kernels for the codec's loops, where numba is installed (extra `native`): the same bytes.

Python with NumPy is the reference, does without any of this, and is what tests compare the kernels with.
`LACONIC_NATIVE=0` in the environment keeps to it; `LACONIC_NATIVE=1` loads the kernels at once. By default
they are loaded when a process has coded so much that loading would have paid.
"""

from __future__ import annotations

import importlib
import logging
import os
from importlib.util import find_spec

VARIABLE = "LACONIC_NATIVE"

LOADING_COST = 600_000
"""What loading the kernels costs, in symbols: 0.6 seconds, and 130 MB that are not given back."""

STREAM_COST = 300
"""What a stream costs beside its symbols, in symbols of the plain coder: its runs are short at first."""

VECTORISED = 150
"""How many values NumPy takes in the time that plain Python needs for a symbol, where it takes the loop."""

_LOG = logging.getLogger("laconic.compression")
_symbols = 0
_usable: bool | None = None


def ready(symbols: int, *, beside: int = STREAM_COST) -> bool:
    """Whether the next stream, of so many symbols, is for the kernels (`laconic.compression.native.streams`).

    `beside`: what it costs besides. The answer never changes a result. Once they are loaded, or known not to
    be usable, it stays the same.
    """
    global _symbols, _usable  # noqa: PLW0603 - as sys.modules, which it stands for
    if _usable is None:
        _symbols += symbols + beside
        wanted = os.environ.get(VARIABLE)
        if wanted == "0" or find_spec("numba") is None:
            _usable = False
        elif wanted == "1" or _symbols > LOADING_COST:
            _usable = load()
    return bool(_usable)


def ready_for_values(values: int) -> bool:
    """As `ready`, for a loop that NumPy takes too, over so many values: see `native.sparse`."""
    return ready(values // VECTORISED, beside=1)


def load() -> bool:
    """Load the kernels, compiled if not in numba's cache on disk. False, with a warning, if that fails."""
    try:
        for name in ("streams", "choice", "sparse"):
            importlib.import_module(f"laconic.compression.native.{name}")
    except Exception as error:  # numba, llvmlite, the cache's folder: whatever is wrong, there is another way
        _LOG.warning(
            "numba is installed but cannot be used, so updates are coded more slowly: %s: %s. "
            "Name a folder for compiled code in NUMBA_CACHE_DIR, or set %s=0 to do without",
            type(error).__name__,
            error,
            VARIABLE,
        )
        return False
    return True
