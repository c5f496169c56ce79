"""Small text files of the kernel, any of which may be missing, fail, or hold anything."""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from typing import Final

_LIMIT_BYTES: Final = 16 * 1024


def text(path: Path) -> str | None:
    """What stands in a file, without white space at its ends; None when it cannot be read.

    Drivers answer a read with EIO, ENODEV, ENODATA or EAGAIN as they please.
    """
    try:
        with path.open("rb", buffering=0) as file:
            return (file.read(_LIMIT_BYTES) or b"").decode("utf-8", "replace").strip().strip("\0")
    except (OSError, ValueError):
        return None


def number(value: str | None) -> float | None:
    """A finite number, or None."""
    try:
        parsed = float(value) if value is not None else None
    except ValueError:
        return None
    return parsed if parsed is not None and isfinite(parsed) else None


def number_in(path: Path) -> float | None:
    """The finite number in a file, or None."""
    return number(text(path))


def entries(folder: Path, pattern: str = "*") -> list[Path]:
    """What lies in a folder, by name; nothing when it cannot be read."""
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []
