"""A bad network before a broker: messages that are lost, doubled or overtaken, links that break.

Between clients and an MQTT broker on 127.0.0.1. What TCP would never do to a packet, brokers do to messages:
so a lost one is acknowledged to its sender, as by a broker that drops it from a full queue.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from laconic.transport import packets
from laconic.transport.packets import Kind, Packet, Splitter

_PACKET_BYTES = 2**20


@dataclass(frozen=True)
class Faults:
    """How likely each fault is, for one message; `hold_s` is how long one that is overtaken may be held."""

    lost: float = 0.03
    doubled: float = 0.08
    overtaken: float = 0.08
    hold_s: float = 0.5


class Door:
    """Listens on a port of its own. Presence and offers keep their order: there the last word counts."""

    def __init__(self, to_port: int, faults: Faults, chance: random.Random) -> None:
        self._to_port, self._faults, self._chance = to_port, faults, chance
        self._writers: set[asyncio.StreamWriter] = set()
        self.counts = {"lost": 0, "doubled": 0, "overtaken": 0, "cut": 0}
        self.quiet = False
        """Whether everything passes as it came."""

    async def __aenter__(self) -> Door:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self.cut()

    def cut(self) -> None:
        """Break every connection, rudely."""
        self.counts["cut"] += 1
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self._to_port)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, inner_writer}
        inwards = self._pump(reader, inner_writer, writer, inwards=True)
        outwards = self._pump(inner_reader, writer, inner_writer, inwards=False)
        await asyncio.gather(inwards, outwards)
        self._writers -= {writer, inner_writer}

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        there: asyncio.StreamWriter,
        back: asyncio.StreamWriter,
        *,
        inwards: bool,
    ) -> None:
        splitter = Splitter(limit_bytes=_PACKET_BYTES)
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                for packet in splitter.feed(data):
                    if self.quiet or not _may_suffer(packet, inwards=inwards):
                        there.write(packets.raw(packet))
                    else:
                        self._meddle(packet, there.write, back.write)
                await there.drain()
        there.close()

    def _meddle(self, packet: Packet, there: Callable[[bytes], None], back: Callable[[bytes], None]) -> None:
        raw, faults, fate = packets.raw(packet), self._faults, self._chance.random()
        if fate < faults.lost:
            self.counts["lost"] += 1
            if identifier := packets.message_of(packet).identifier:
                back(packets.acknowledge(identifier))
            return
        if fate < faults.lost + faults.overtaken:
            self.counts["overtaken"] += 1
            self._later(there, raw)
            return
        there(raw)
        if fate > 1 - faults.doubled:
            self.counts["doubled"] += 1
            self._later(there, raw)

    def _later(self, there: Callable[[bytes], None], raw: bytes) -> None:
        def pass_on() -> None:
            with contextlib.suppress(OSError, RuntimeError):
                there(raw)

        asyncio.get_running_loop().call_later(self._chance.uniform(0, self._faults.hold_s), pass_on)


def _may_suffer(packet: Packet, *, inwards: bool) -> bool:
    """Updates, answers, skips, and models on their way to a device; not births, offers and manifests.

    What a client has retained at the broker stays there while the broker lives: nobody would repeat it.
    """
    if packet.kind != Kind.PUBLISH or (inwards and packet.flags & 1):
        return False
    return not packets.message_of(packet).topic.endswith(("/state", "/task", "/man"))
