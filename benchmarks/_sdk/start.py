"""How long a program waits from importing the device to being connected, and what it waits for."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any, Final

from _result import Bar, at_most

from _sdk.site import broker, furnish, process

TIMES: Final = 7
LIMIT_S: Final = 1.0
_MODEL: Final = "lenet"
_ONE: Final = Path(__file__).with_name("one_start.py")


def measure(times: int = TIMES) -> dict[str, Any]:
    """Seconds, median of `times` fresh processes, with and without TLS, taken in turns."""
    return asyncio.run(_measured(times))


def bars(found: Mapping[str, Any]) -> list[Bar]:
    """Of the time that the machine's other programs do not take."""
    return [
        at_most(f"start: from import to connected, {way}, s", found[way]["alone_s"], LIMIT_S)
        for way in ("tcp", "tls")
    ]


async def _measured(times: int) -> dict[str, Any]:
    taken: dict[str, list[dict[str, float]]] = {"tcp": [], "tls": []}
    with tempfile.TemporaryDirectory(prefix="laconic-start-") as made:
        plain, secure = Path(made) / "tcp", Path(made) / "tls"
        for folder in (plain, secure):
            folder.mkdir()
            furnish(folder, _MODEL)
        async with broker(plain) as port, broker(secure, tls=True) as tls_port:
            for turn in range(times + 1):
                for folder, at in ((plain, port), (secure, tls_port)):
                    found = await _one(folder, at)
                    # The first one compiles the modules, as installing them does.
                    if turn:
                        taken[folder.name].append(found)
    return {way: _medians(all_of) for way, all_of in taken.items()}


async def _one(folder: Path, port: int) -> dict[str, float]:
    log = folder / "start.log"
    log.unlink(missing_ok=True)
    (folder / "d.db").unlink(missing_ok=True)
    command = [sys.executable, str(_ONE), str(folder), str(port)]
    async with process(command, log) as it:
        await asyncio.wait_for(it.wait(), 60)
    found: dict[str, float] = json.loads(log.read_text())
    return found


def _medians(all_of: list[dict[str, float]]) -> dict[str, float]:
    return {key: round(median(it[key] for it in all_of), 3) for key in all_of[0]}
