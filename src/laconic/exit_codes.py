"""What a process's exit code means: one number for each kind of way out (docs/exit-codes.md)."""

from __future__ import annotations

from typing import Final

from laconic.errors import (
    ClusterError,
    ConfigError,
    DataError,
    DiskFull,
    LaconicError,
    ModelError,
    ProtocolError,
    StorageError,
    StoreLocked,
    TransportError,
    WireError,
)

OK: Final = 0
INTERNAL: Final = 1
"""A fault of this program, or nobody reads its output any more."""
CONFIGURATION: Final = 2
MODEL: Final = 3
STORE: Final = 4
LOCKED: Final = 5
DISK_FULL: Final = 6
BROKER: Final = 7
INPUT: Final = 8
"""A file with an update, a bundle or examples is not what it should be."""
CHECK: Final = 9
"""What was to be checked is wrong."""
REFUSED: Final = 10
"""The coordinator does not answer, or cannot do what it is asked."""
CLUSTER: Final = 11
"""A simulation's workers are lost."""
INTERRUPTED: Final = 130

_BY_ERROR: Final[tuple[tuple[type[LaconicError], int], ...]] = (
    (ConfigError, CONFIGURATION),
    (ModelError, MODEL),
    (StoreLocked, LOCKED),
    (DiskFull, DISK_FULL),
    (StorageError, STORE),
    (TransportError, BROKER),
    (DataError, INPUT),
    (WireError, INPUT),
    (ProtocolError, REFUSED),
    (ClusterError, CLUSTER),
)
"""The first that an error is an instance of counts."""


def exit_code(error: LaconicError) -> int:
    """The code of a process that ends with `error`."""
    return next((code for kind, code in _BY_ERROR if isinstance(error, kind)), INTERNAL)
