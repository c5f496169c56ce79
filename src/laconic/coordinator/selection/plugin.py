"""A strategy of one's own: a function named in the configuration, and the checks on what it answers."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from laconic.coordinator.selection.candidate import Candidate, Context, Strategy
from laconic.errors import ConfigError

_HOW = "write package.module:function, of a module that this Python can import"


def load(path: str) -> Strategy:
    """The function that `package.module:function` names. Raises `ConfigError` if there is none to call."""
    module, _, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as e:  # A module that is imported can raise anything.
        raise ConfigError(
            f"selection.strategy ({type(e).__name__}: {str(e)[:200]})", value=path, remedy=_HOW
        ) from e
    if not callable(found):
        raise ConfigError("selection.strategy", value=path, limit="a function", remedy=_HOW)
    strategy: Strategy = found
    return strategy


def call(
    strategy: Strategy, path: str, candidates: Sequence[Candidate], count: int, context: Context
) -> list[str]:
    """What a plug-in chooses. Raises `ConfigError` if it fails, or answers anything but names that it may."""
    try:
        answer = strategy(candidates, count, context)
    except Exception as e:  # It is not ours: whatever it raises, the round goes on without it.
        raise ConfigError(f"selection by {path} ({type(e).__name__}: {str(e)[:200]})") from e
    if not isinstance(answer, Sequence) or isinstance(answer, (str, bytes)):
        raise ConfigError(f"answer of {path}", value=type(answer).__name__, limit="a sequence of names")
    if len(answer) > count:
        raise ConfigError(f"devices chosen by {path}", value=len(answer), limit=count)
    known, seen = {c.name for c in candidates}, set[str]()
    for name in answer:
        if not isinstance(name, str) or name not in known:
            raise ConfigError(f"device chosen by {path}", value=name, limit="names of candidates")
        if name in seen:
            raise ConfigError(f"device chosen by {path}", value=name, limit="each once")
        seen.add(name)
    return list(answer)
