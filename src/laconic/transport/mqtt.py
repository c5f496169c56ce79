"""A link over MQTT 3.1.1 on asyncio's event loop, which connects again by itself."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from laconic.config import BrokerSection, read_secret, within
from laconic.errors import ConfigError, LimitExceeded, TransportError
from laconic.node import Will
from laconic.transport import packets
from laconic.transport.connection import Connection
from laconic.transport.link import PING_SHARE, LinkDown, LinkEvent, LinkUp, Message, WireBytes
from laconic.transport.meter import SocketMeter
from laconic.transport.packets import Publish
from laconic.transport.websocket import WebSocket, check_installed

_BACK_OFF_FIRST_S: Final = 0.5
_BACK_OFF_MOST_S: Final = 120.0
_CONNECT_S: Final = 20.0
_LOOK_S: Final = 1.0
"""How often a connection is looked at until the broker has let us in."""
_UNHEARD_S: Final = 60.0
"""Some mobile networks are gone for half a minute and come back."""
_WINDOW: Final = 64
_WINDOW_PERSISTENT: Final = 4096
"""Messages of QoS 1 under way: a coordinator answers a thousand devices at once."""
_WAITING: Final = 1024
_WAITING_BYTES: Final = 4 * 2**20
"""Messages, and their bytes, that may wait to be handled before no more are read."""
_SCHEMES: Final = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}
_WEBSOCKET_PATH: Final = "/mqtt"


@dataclass(frozen=True)
class Address:
    """Where a broker is and how to be let in."""

    host: str
    port: int = 1883
    tls: bool = False
    username: str | None = None
    password: str | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    keep_alive_s: int = 60
    max_packet_bytes: int = 128 * 1024
    """Nothing larger is published: a broker that drops the connection over one would be sent it for ever."""
    websocket_path: str | None = None
    """Where the broker's WebSocket is; None for plain MQTT."""

    @staticmethod
    def parse(url: str) -> Address:
        """`mqtt://[user[:password]@]host[:port]`, or `mqtts://` for TLS; through a WebSocket
        `ws://host[:port][/path]`, or `wss://`.

        Raises `ConfigError` for anything else.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as e:
            raise ConfigError(f"broker address ({e})", value=url, limit="mqtt://host:port") from e
        if parts.scheme not in _SCHEMES or not parts.hostname:
            limit = "mqtt, mqtts, ws or wss, as in mqtt://host:port"
            raise ConfigError("broker address", value=url, limit=limit)
        websocket = parts.scheme in ("ws", "wss")
        if parts.query or parts.fragment or (parts.path not in ("", "/") and not websocket):
            raise ConfigError("broker address", value=url, limit="nothing after the port")
        if websocket:
            check_installed()
        return Address(
            parts.hostname,
            port or _SCHEMES[parts.scheme],
            tls=parts.scheme in ("mqtts", "wss"),
            username=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
            websocket_path=(parts.path or _WEBSOCKET_PATH) if websocket else None,
        )

    @property
    def websocket_uri(self) -> str | None:
        """Of the broker's WebSocket, without who we are; None for plain MQTT."""
        if self.websocket_path is None:
            return None
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'wss' if self.tls else 'ws'}://{host}:{self.port}{self.websocket_path}"


def address_of(section: BrokerSection, folder: Path) -> Address:
    """The address that a configuration describes; its paths are relative to `folder`.

    Raises `ConfigError` for what cannot be used.
    """

    def path(name: str | None) -> Path | None:
        return None if name is None else folder / name

    within("broker.keep_alive_s", section.keep_alive_s, 5, 65_535)
    within("broker.max_packet_bytes", section.max_packet_bytes, 512, 256 * 2**20)
    parsed = Address.parse(section.url)
    password = parsed.password
    if (password_file := path(section.password_file)) is not None:
        password = read_secret(password_file, "password file").decode()
    return replace(
        parsed,
        username=section.username or parsed.username,
        password=password,
        ca_file=path(section.ca_file),
        cert_file=path(section.cert_file),
        key_file=path(section.key_file),
        keep_alive_s=section.keep_alive_s,
        max_packet_bytes=section.max_packet_bytes,
    )


class MqttLink:
    """One MQTT client on the event loop, which connects again whenever it has to."""

    def __init__(self, address: Address, client_id: str, *, persistent: bool = False) -> None:
        """`persistent` keeps the session at the broker, which then redelivers what was not acknowledged."""
        self._address = address
        self._events: deque[LinkEvent] = deque()
        self._waiting_bytes = 0
        self._arrived = asyncio.Event()
        self._meter = SocketMeter()
        self._packet_up = self._packet_down = 0
        self._receipts: dict[int, int] = {}
        self._receipt = 0
        self._keeper: asyncio.Task[None] | None = None
        self._connection: Connection | None = None
        self._will: Will | None = None
        self._client_id, self._persistent = client_id, persistent
        self._tls = _tls_context(address) if address.tls else None

    # --- Link

    async def open(self, will: Will | None) -> None:
        self._will = will
        self._keeper = asyncio.ensure_future(self._keep_connected())

    async def close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._connection is not None and self._connection.up:
            last = b""
            if self._will is not None:
                # No answer will be heard, and so none is asked for: TCP brings it before the goodbye.
                last = packets.publish(self._will.topic, self._will.payload, retain=self._will.retain)
            self._connection.hang_up(last)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2):
                    await self._connection.closed
        if self._connection is not None:
            self._connection.abort("")
        self._meter.detach()

    async def next_event(self) -> LinkEvent:
        while not self._events:
            self._arrived.clear()
            await self._arrived.wait()
        event = self._events.popleft()
        if isinstance(event, Message):
            self._waiting_bytes -= len(event.payload)
        if self._connection is not None and not self._crowded(1 / 2):
            self._connection.resume()
        return event

    def pending(self) -> bool:
        return bool(self._events)

    def waiting(self) -> int:
        """How many events `next_event` has not brought yet."""
        return len(self._events)

    def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool) -> None:
        size = len(topic) + len(payload) + 9
        if size > self._address.max_packet_bytes:
            raise LimitExceeded(
                f"size of a packet to {topic}", value=size, limit=self._address.max_packet_bytes
            )
        if (connection := self._up()) is not None:
            self._packet_up += size
            connection.publish(topic, payload, qos=qos, retain=retain)

    def subscribe(self, filters: tuple[str, ...]) -> None:
        if (connection := self._up()) is not None:
            self._packet_up += sum(len(f) + 3 for f in filters) + 4
            # Some brokers take no more than eight filters in one packet.
            for i in range(0, len(filters), 8):
                connection.subscribe(filters[i : i + 8])

    def unsubscribe(self, filters: tuple[str, ...]) -> None:
        if (connection := self._up()) is not None:
            self._packet_up += sum(len(f) + 2 for f in filters) + 4
            for i in range(0, len(filters), 8):
                connection.unsubscribe(filters[i : i + 8])

    def acknowledge(self, receipt: int) -> None:
        identifier = self._receipts.pop(receipt, 0)
        if identifier and (connection := self._up()) is not None:
            connection.acknowledge(identifier)

    def wire_bytes(self) -> WireBytes:
        if self._meter.supported:
            return WireBytes(*self._meter.totals(), measured=True)
        return WireBytes(self._packet_up, self._packet_down, measured=False)

    # --- connection

    def _up(self) -> Connection | None:
        return self._connection if self._connection is not None and self._connection.up else None

    async def _keep_connected(self) -> None:
        loop = asyncio.get_running_loop()
        back_off = _BACK_OFF_FIRST_S
        while True:
            try:
                async with asyncio.timeout(_CONNECT_S):
                    connection = await self._connect()
            except Exception as e:
                # Whatever it is (no route, a refused certificate, a name that is none): say it, try again.
                why = str(e) or f"no connection within {_CONNECT_S:.0f} s"
                self._report(LinkDown(f"{self._address.host}:{self._address.port}: {why}"))
            else:
                began = loop.time()
                await self._watch(connection)
                if loop.time() - began > 30:
                    back_off = _BACK_OFF_FIRST_S
            # Jitter, so that a fleet that lost its broker does not come back as one.
            await asyncio.sleep(back_off * random.uniform(0.5, 1.5))
            back_off = min(_BACK_OFF_MOST_S, back_off * 2)

    async def _connect(self) -> Connection:
        a = self._address
        connection, lowest = self._new_connection()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(lambda: lowest, a.host, a.port, ssl=self._tls)
        _give_up_after(transport.get_extra_info("socket"), _UNHEARD_S)
        return connection

    def _new_connection(self) -> tuple[Connection, asyncio.Protocol]:
        """The connection, and what the transport is to talk to: itself, or the WebSocket before it.

        A new one has nothing left over to send from an earlier link.
        """
        a = self._address
        hello = packets.connect(
            self._client_id,
            clean=not self._persistent,
            keep_alive_s=a.keep_alive_s,
            username=a.username,
            password=a.password,
            will=self._will,
        )
        self._connection = Connection(
            hello,
            window=_WINDOW_PERSISTENT if self._persistent else _WINDOW,
            meter=self._meter,
            on_up=lambda: self._report(LinkUp()),
            on_message=self._on_message,
            on_lost=self._on_lost,
        )
        uri = a.websocket_uri
        return self._connection, self._connection if uri is None else WebSocket(self._connection, uri)

    async def _watch(self, connection: Connection) -> None:
        """Keep a connection alive until it ends; break it when the broker is silent for too long.

        Between two pings an idle device sleeps.
        """
        keep_alive_s = self._address.keep_alive_s
        ping_s, most_s = keep_alive_s * PING_SHARE, keep_alive_s * 3 / 2
        asked_since: float | None = None
        wait_s = _LOOK_S
        while not connection.closed.done():
            await asyncio.wait((connection.closed,), timeout=wait_s)
            silent_s, mute_s = connection.silent_s, connection.mute_s
            if not connection.up:
                wait_s = _LOOK_S
                if silent_s > _CONNECT_S:
                    connection.abort(f"no answer within {_CONNECT_S:.0f} s")
                continue
            if silent_s >= most_s:
                connection.abort(f"nothing heard for {silent_s:.0f} s")
            elif mute_s >= ping_s or (silent_s >= ping_s and asked_since != connection.heard_at):
                connection.ping()
                asked_since, mute_s = connection.heard_at, 0.0
            # Both only ever begin anew: nothing is due sooner than it seems now.
            silence_s = most_s if silent_s >= ping_s else ping_s
            # Not less than that: what is due in no time by rounding must not be waited for in vain.
            wait_s = max(0.01, min(silence_s - silent_s, ping_s - mute_s))

    def _report(self, event: LinkEvent) -> None:
        self._events.append(event)
        self._arrived.set()

    def _on_lost(self, why: str, refused: bool) -> None:
        self._receipts.clear()
        self._report(LinkDown(why, refused=refused))

    def _on_message(self, message: Publish) -> None:
        self._receipt += 1
        if message.identifier:
            self._receipts[self._receipt] = message.identifier
        self._packet_down += len(message.topic) + len(message.payload) + 7
        self._waiting_bytes += len(message.payload)
        self._report(Message(message.topic, message.payload, self._receipt))
        if self._connection is not None and self._crowded():
            self._connection.pause()

    def _crowded(self, share: float = 1.0) -> bool:
        """Whether so much waits to be handled that the broker had better keep the rest."""
        return len(self._events) > _WAITING * share or self._waiting_bytes > _WAITING_BYTES * share


def _give_up_after(sock: socket.socket, seconds: float) -> None:
    """Let the kernel break a connection over which bytes were sent that nothing has confirmed for so long.

    Without it an update, or a ping, into a connection that only this end knows of waits for a quarter of an
    hour (tcp(7), TCP_USER_TIMEOUT; RFC 5482). Elsewhere than on Linux the keep-alive finds out, later.
    """
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(seconds * 1000))


def _tls_context(address: Address) -> ssl.SSLContext:
    """TLS 1.2 or later, certificates checked. Raises `TransportError` for files that cannot be used."""
    try:
        context = ssl.create_default_context(cafile=address.ca_file)
        if address.cert_file is not None:
            context.load_cert_chain(address.cert_file, address.key_file)
    except (OSError, ssl.SSLError) as e:
        raise TransportError(
            f"TLS files cannot be used ({e})", remedy="check ca_file, cert_file, key_file"
        ) from e
    return context
