"""Connections of those who ask the coordinator something: few at a time, each for a bounded time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

PATIENCE_S: Final = 10.0
"""How long a connection may say nothing, or not take its answer."""
MOST: Final = 16

Converse = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Conversations:
    """What an asyncio server calls for each connection; those beyond sixteen are closed unheard."""

    def __init__(self, converse: Converse) -> None:
        """`converse` serves one connection; whoever is too slow, hangs up or sends too much is left."""
        self._converse = converse
        self._tasks: set[asyncio.Task[None]] = set()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection to its end."""
        task = asyncio.current_task()
        assert task is not None
        try:
            if len(self._tasks) < MOST:
                self._tasks.add(task)
                with contextlib.suppress(
                    TimeoutError, ConnectionError, ValueError, asyncio.IncompleteReadError
                ):
                    await self._converse(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.close()

    async def end(self) -> None:
        """Break off whatever goes on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
