"""Word to systemd: ready, alive, stopping; in the protocol of sd_notify(3), without its library."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Supervisor:
    """Who is told how the process does; nobody, if `address` is empty."""

    address: str = ""
    watchdog_s: float | None = None
    """A word must come so often, or the process is taken for dead."""

    @staticmethod
    def of(environment: Mapping[str, str]) -> Supervisor:
        """The supervisor that the environment names: NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID."""
        period, owner = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
        watched = period.isdigit() and int(period) > 0 and owner in ("", str(os.getpid()))
        return Supervisor(environment.get("NOTIFY_SOCKET", ""), int(period) / 1e6 if watched else None)

    def tell(self, *assignments: str) -> None:
        """Say `READY=1` and the like. A supervisor that does not listen is no reason to stop."""
        if not self.address:
            return
        # A leading @ stands for the abstract namespace (unix(7)).
        address = f"\0{self.address[1:]}" if self.address.startswith("@") else self.address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
            link.setblocking(False)
            link.sendto("\n".join(assignments).encode(), address)

    async def keep_alive(self) -> None:
        """Say so twice in every period, for as long as the event loop turns."""
        while self.watchdog_s is not None:
            self.tell("WATCHDOG=1")
            await asyncio.sleep(self.watchdog_s / 2)
