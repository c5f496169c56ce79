"""A scene on an event loop, which ends in time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

PATIENCE_S = 20.0


def play(scene: Coroutine[Any, Any, None]) -> None:
    """Run a scene. Raises `TimeoutError` if it does not end."""

    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await scene

    asyncio.run(bounded())
