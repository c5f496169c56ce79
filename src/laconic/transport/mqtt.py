"""A link over MQTT 3.1.1: paho-mqtt on asyncio's event loop, so that one process can hold thousands."""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.reasoncodes import ReasonCode

from laconic.config import BrokerSection, read_secret, within
from laconic.errors import ConfigError, LimitExceeded, TransportError
from laconic.node import Will
from laconic.transport.link import LinkDown, LinkEvent, LinkUp, Message, WireBytes
from laconic.transport.meter import SocketMeter

_BACK_OFF_FIRST_S: Final = 0.5
_BACK_OFF_MOST_S: Final = 120.0
_READ_AT_ONCE: Final = 256
_SCHEMES: Final = {"mqtt": 1883, "mqtts": 8883}


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

    @staticmethod
    def parse(url: str) -> Address:
        """`mqtt://[user[:password]@]host[:port]`, or `mqtts://` for TLS.

        Raises `ConfigError` for anything else.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as e:
            raise ConfigError(f"broker address ({e})", value=url, limit="mqtt://host:port") from e
        if parts.scheme not in _SCHEMES or not parts.hostname:
            raise ConfigError("broker address", value=url, limit="mqtt://host:port or mqtts://host:port")
        return Address(
            parts.hostname,
            port or _SCHEMES[parts.scheme],
            tls=parts.scheme == "mqtts",
            username=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
        )


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
    """One MQTT client. Everything runs on the event loop but the blocking TCP connect."""

    def __init__(self, address: Address, client_id: str, *, persistent: bool = False) -> None:
        """`persistent` keeps the session at the broker, which then redelivers what was not acknowledged."""
        self._address = address
        self._events: deque[LinkEvent] = deque()
        self._arrived = asyncio.Event()
        self._meter = SocketMeter()
        self._packet_up = self._packet_down = 0
        self._receipts: dict[int, tuple[int, int]] = {}
        self._receipt = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._lost = asyncio.Event()
        self._up = False
        self._will: Will | None = None
        self._client_id, self._persistent = client_id, persistent
        self._tls = _tls_context(address) if address.tls else None
        self._client = self._new_client()

    def _new_client(self) -> paho.Client:
        """A client for one connection: a new one has nothing left over to send from an earlier link."""
        c = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            clean_session=not self._persistent,
            protocol=paho.MQTTv311,
            manual_ack=True,
            reconnect_on_failure=False,
        )
        c.on_connect, c.on_disconnect, c.on_message = self._on_connect, self._on_disconnect, self._on_message
        c.on_socket_open, c.on_socket_close = self._on_socket_open, self._on_socket_close
        c.on_socket_register_write = self._on_register_write
        c.on_socket_unregister_write = self._on_unregister_write
        # A coordinator answers a thousand devices at once; paho looks through all that waits at every answer.
        c.max_inflight_messages_set(4096 if self._persistent else 64)
        if self._address.username is not None:
            c.username_pw_set(self._address.username, self._address.password)
        if self._tls is not None:
            c.tls_set_context(self._tls)
        if self._will is not None:
            c.will_set(self._will.topic, self._will.payload, qos=1, retain=self._will.retain)
        return c

    # --- Link

    async def open(self, will: Will | None) -> None:
        self._loop, self._will = asyncio.get_running_loop(), will
        self._keeper = asyncio.ensure_future(self._keep_connected())

    async def close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._client.is_connected():
            if self._will is not None:
                self._client.publish(self._will.topic, self._will.payload, qos=1, retain=self._will.retain)
            self._client.disconnect()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2):
                    await self._lost.wait()
        self._meter.detach()

    async def next_event(self) -> LinkEvent:
        while not self._events:
            self._arrived.clear()
            await self._arrived.wait()
        return self._events.popleft()

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
        if self._up:
            self._packet_up += size
            self._client.publish(topic, payload, qos=qos, retain=retain)

    def subscribe(self, filters: tuple[str, ...]) -> None:
        if self._up:
            self._packet_up += sum(len(f) + 3 for f in filters) + 4
            # Some brokers take no more than eight filters in one packet.
            for i in range(0, len(filters), 8):
                self._client.subscribe([(f, 1) for f in filters[i : i + 8]])

    def unsubscribe(self, filters: tuple[str, ...]) -> None:
        if self._up:
            self._packet_up += sum(len(f) + 2 for f in filters) + 4
            for i in range(0, len(filters), 8):
                self._client.unsubscribe(list(filters[i : i + 8]))

    def acknowledge(self, receipt: int) -> None:
        mid, qos = self._receipts.pop(receipt, (0, 0))
        if qos and self._up:
            self._client.ack(mid, qos)

    def wire_bytes(self) -> WireBytes:
        if self._meter.supported:
            return WireBytes(*self._meter.totals(), measured=True)
        return WireBytes(self._packet_up, self._packet_down, measured=False)

    # --- connection

    async def _keep_connected(self) -> None:
        loop = asyncio.get_running_loop()
        back_off = _BACK_OFF_FIRST_S
        while True:
            self._lost.clear()
            self._client = self._new_client()
            try:
                await loop.run_in_executor(
                    None,
                    lambda: self._client.connect(
                        self._address.host, self._address.port, self._address.keep_alive_s
                    ),
                )
            except Exception as e:
                # Whatever it is (no route, a refused certificate, a name that is none): say it, try again.
                self._report(LinkDown(f"{self._address.host}:{self._address.port}: {e}"))
            else:
                began = loop.time()
                while not self._lost.is_set():
                    self._client.loop_misc()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(1):
                            await self._lost.wait()
                if loop.time() - began > 30:
                    back_off = _BACK_OFF_FIRST_S
            # Jitter, so that a fleet that lost its broker does not come back as one.
            await asyncio.sleep(back_off * random.uniform(0.5, 1.5))
            back_off = min(_BACK_OFF_MOST_S, back_off * 2)

    def _report(self, event: LinkEvent) -> None:
        self._events.append(event)
        self._arrived.set()

    def _on_connect(
        self, client: Any, userdata: Any, flags: Any, reason: ReasonCode, properties: Any
    ) -> None:
        if reason.is_failure:
            self._report(LinkDown(f"refused by the broker: {reason}", refused=True))
            self._client.disconnect()
        else:
            self._up = True
            self._report(LinkUp())

    def _on_disconnect(
        self, client: Any, userdata: Any, flags: Any, reason: ReasonCode, properties: Any
    ) -> None:
        self._up = False
        self._receipts.clear()
        self._report(LinkDown(str(reason)))
        self._lost.set()

    def _on_message(self, client: Any, userdata: Any, message: paho.MQTTMessage) -> None:
        self._receipt += 1
        self._receipts[self._receipt] = (message.mid, message.qos)
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = ""
        self._packet_down += len(topic) + len(message.payload) + 7
        self._report(Message(topic, bytes(message.payload), self._receipt))

    # --- paho's sockets on asyncio; connect() calls back from its own thread

    def _on_loop(self, action: Any, *arguments: Any) -> None:
        assert self._loop is not None
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is self._loop:
            action(*arguments)
        else:
            self._loop.call_soon_threadsafe(action, *arguments)

    def _on_socket_open(self, client: Any, userdata: Any, sock: Any) -> None:
        self._on_loop(self._attach, sock)

    def _attach(self, sock: Any) -> None:
        assert self._loop is not None
        if sock.fileno() >= 0:
            self._meter.attach(sock)
            self._loop.add_reader(sock, self._readable)

    def _readable(self) -> None:
        # paho reads one packet at a time: take what is there, so that it can be handled as a group.
        for _ in range(_READ_AT_ONCE):
            waiting = len(self._events)
            if self._client.loop_read() != MQTTErrorCode.MQTT_ERR_SUCCESS:
                self._lost.set()
            if len(self._events) == waiting or self._lost.is_set():
                break

    def _on_socket_close(self, client: Any, userdata: Any, sock: Any) -> None:
        self._meter.detach()
        if self._loop is not None and sock.fileno() >= 0:
            self._loop.remove_reader(sock)
            self._loop.remove_writer(sock)

    def _on_register_write(self, client: Any, userdata: Any, sock: Any) -> None:
        self._on_loop(self._watch_write, sock)

    def _watch_write(self, sock: Any) -> None:
        assert self._loop is not None
        if sock.fileno() >= 0:
            self._loop.add_writer(sock, self._client.loop_write)

    def _on_unregister_write(self, client: Any, userdata: Any, sock: Any) -> None:
        assert self._loop is not None
        if sock.fileno() >= 0:
            self._on_loop(self._loop.remove_writer, sock)


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
