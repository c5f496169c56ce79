"""Keeps a device alive: lives that end in a fault which may pass are begun again, later and later.

A device that cannot write must not take part, since it could not remember what it has said. Nor need it end:
it can still predict, and disks are emptied and mounted anew.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from laconic.errors import DiskFull, StorageError, StoreDamaged, StoreReadOnly
from laconic.node import Note

Observer = Callable[[Note, float], None]
Life = Callable[[Callable[[], None]], Awaitable[None]]
"""One life, from opening the store to closing it. It is given a function to call once the store is open."""

_MAY_PASS: Final = (DiskFull, StoreReadOnly, StoreDamaged)
"""What is worth waiting for before a store has ever been opened; once it has, any fault of it is."""
_SET_BACK_S: Final = 3600.0
"""A clock that goes back by more was wrong by more than a life should go on with."""
_LOOK_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Pauses:
    """How long to wait before the next life, seconds: doubled each time, begun anew after a long life."""

    first_s: float = 10.0
    most_s: float = 600.0
    long_life_s: float = 1800.0


async def keep_alive(
    live: Life,
    *,
    observe: Observer = lambda note, now: None,
    pauses: Pauses = Pauses(),
    clock: Callable[[], float] = time.time,
    look_s: float = _LOOK_S,
) -> None:
    """Run `live` again and again until it returns or this is cancelled.

    Each life has a store, a link, sensors, a node and a driver of its own: what the one before had in memory
    may be ahead of what is on the disk. A fault of the store ends a life and is said (note `storage`: error,
    why, again_in_s), and the next one begins after a pause; it begins at once when `clock` has been set back
    by more than an hour (note `clock`), since within a life time does not go back. `look_s`: how often the
    clock is looked at, seconds.

    Raises what else ends a life, and a fault of a store that has never been opened and will not pass by
    itself: it is locked, of a newer release, or cannot be made where it should be.
    """
    opened = False

    def once_open() -> None:
        nonlocal opened
        opened = True

    pause_s = pauses.first_s
    while True:
        began = time.monotonic()
        try:
            if not await _set_back(live(once_open), clock, look_s):
                return
            observe(Note("clock", {"why": "set back by more than an hour"}), clock())
        except StorageError as e:
            if not (opened or isinstance(e, _MAY_PASS)):
                raise
            if time.monotonic() - began > pauses.long_life_s:
                pause_s = pauses.first_s
            fields = {"error": type(e).__name__, "why": str(e), "again_in_s": pause_s}
            observe(Note("storage", fields), clock())
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, pauses.most_s)


async def _set_back(living: Awaitable[None], clock: Callable[[], float], look_s: float) -> bool:
    """Wait until a life has ended by itself (False), or end it because the clock has been set back (True)."""
    life = asyncio.ensure_future(living)
    ahead_s = clock() - time.monotonic()
    try:
        while True:
            await asyncio.wait((life,), timeout=look_s)
            if life.done():
                life.result()
                return False
            before_s, ahead_s = ahead_s, clock() - time.monotonic()
            if before_s - ahead_s > _SET_BACK_S:
                return True
    finally:
        life.cancel()
        await asyncio.gather(life, return_exceptions=True)
