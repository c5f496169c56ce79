"""What a device tells whoever watches it, where more than one piece says the same."""

from __future__ import annotations

from laconic.errors import LaconicError
from laconic.node import Note


def dropped(topic: str, error: LaconicError) -> Note:
    """A message could not be used."""
    return Note("dropped", {"topic": topic[:200], "error": type(error).__name__, "why": str(error)})
