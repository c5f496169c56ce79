"""MQTT through a WebSocket, against a real mosquitto behind a relay such as a web server is; and portals."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from mosquitto import Mosquitto
from scenes import play

from laconic.errors import ConfigError
from laconic.transport import mqtt
from laconic.transport.link import LinkDown, LinkUp, Message
from laconic.transport.mqtt import Address, MqttLink

websockets = pytest.importorskip("websockets.asyncio.server")
accept_key = pytest.importorskip("websockets.utils").accept_key

pytestmark = pytest.mark.usefixtures("impatient")


@contextlib.asynccontextmanager
async def relay(port: int, *, tls: ssl.SSLContext | None = None, cut: int = 1000) -> AsyncIterator[int]:
    """A WebSocket server before a broker's port; what the broker says goes out in pieces of `cut` bytes."""

    async def serve(client: Any) -> None:
        assert client.subprotocol == "mqtt"
        reader, writer = await asyncio.open_connection("127.0.0.1", port)

        async def down() -> None:
            while data := await reader.read(cut):
                await client.send(data)
            await client.close()

        task = asyncio.ensure_future(down())
        try:
            async for message in client:
                assert isinstance(message, bytes)
                writer.write(message)
                await writer.drain()
        finally:
            task.cancel()
            writer.close()

    async with websockets.serve(serve, "127.0.0.1", 0, subprotocols=["mqtt"], ssl=tls) as server:
        yield next(iter(server.sockets)).getsockname()[1]


async def there_and_back(address: Address, payload: bytes) -> MqttLink:
    link = MqttLink(address, "d0")
    await link.open(None)
    assert isinstance(await link.next_event(), LinkUp)
    link.subscribe(("echo",))
    link.publish("echo", payload, qos=1, retain=True)
    event = await link.next_event()
    assert isinstance(event, Message)
    assert event.payload == payload
    link.acknowledge(event.receipt)
    return link


@pytest.mark.broker
@pytest.mark.parametrize("cut", [1, 7, 65_536])
def test_messages_go_both_ways_however_they_are_cut(broker: Mosquitto, cut: int) -> None:
    async def scene() -> None:
        async with relay(broker.port, cut=cut) as port:
            payload = b"x" * (2000 if cut < 100 else 100_000)
            link = await there_and_back(Address.parse(f"ws://127.0.0.1:{port}/mqtt"), payload)
            wire = link.wire_bytes()
            assert wire.measured
            assert wire.up > len(payload)
            await link.close()

    play(scene())


@pytest.mark.broker
def test_encrypted(broker: Mosquitto, tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-days", "1", "-subj", "/CN=hub", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", str(key), "-out", str(cert)],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)

    async def scene() -> None:
        async with relay(broker.port, tls=context) as port:
            parsed = Address.parse(f"wss://127.0.0.1:{port}/mqtt")
            link = MqttLink(parsed, "stranger")
            await link.open(None)
            event = await link.next_event()
            assert isinstance(event, LinkDown)
            assert "certificate" in event.why
            await link.close()
            link = await there_and_back(mqtt.replace(parsed, ca_file=cert), b"hello")
            await link.close()

    play(scene())


@pytest.mark.broker
def test_when_the_broker_goes_the_link_comes_back_with_it(broker: Mosquitto) -> None:
    async def scene() -> None:
        async with relay(broker.port) as port:
            link = await there_and_back(Address.parse(f"ws://127.0.0.1:{port}"), b"one")
            broker.kill()
            assert isinstance(await link.next_event(), LinkDown)
            broker.start()
            while not isinstance(await link.next_event(), LinkUp):
                pass
            await link.close()

    play(scene())


LOGIN = b"HTTP/1.1 302 Found\r\nLocation: http://portal.example/login\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize("scheme", ["ws", "mqtt"])
@pytest.mark.parametrize("answer", [LOGIN, b"<html>please log in</html>", b""])
def test_a_portal_that_wants_a_login_is_noticed(scheme: str, answer: bytes) -> None:
    """It takes the connection, and says something that no broker says, or hangs up."""

    async def scene() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(10)
            writer.write(answer)
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        link = MqttLink(Address.parse(f"{scheme}://127.0.0.1:{port}"), "d0")
        await link.open(None)
        for _ in range(2):
            event = await link.next_event()
            assert isinstance(event, LinkDown)
            assert not event.refused
            assert event.why
        await link.close()
        server.close()

    play(scene())


def test_one_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt, "_CONNECT_S", 0.2)

    async def scene() -> None:
        held = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            held.append(writer)
            await reader.read()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        for scheme in ("ws", "mqtt"):
            link = MqttLink(Address.parse(f"{scheme}://127.0.0.1:{port}"), "d0")
            await link.open(None)
            event = await link.next_event()
            assert isinstance(event, LinkDown)
            assert "no answer" in event.why
            await link.close()
        server.close()

    play(scene())


CONNACK = b"\x82\x04\x20\x02\x00\x00"


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (
            b"\x82\x7f" + (2**30).to_bytes(8, "big") + bytes(2**16),
            "1073741824 bytes exceeds limit",
        ),
        (b"\x82\x84abcd1234", "incorrect masking"),
        (b"\x81\x05hello", "the broker sent text"),
        (b"\x02\x01\x30" + b"\x00\x01\x00" * 99, "length of a PUBLISH"),
        (CONNACK + b"\x88\x07\x03\xf5later", "1013 (try again later) later"),
        (CONNACK + (b"\x89\x7d" + bytes(125)) * 2**17, "signs of life"),
    ],
    ids=["a frame of a gigabyte", "masked", "text", "in pieces", "closed", "pings alone"],
)
def test_a_broker_that_is_none_is_given_up_and_why_is_said(sent: bytes, why: str) -> None:
    """Recorded: who only pinged and did not listen filled the memory; a proxy's reason to close was lost."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        key = re.search(r"Sec-WebSocket-Key: (\S+)", request)
        assert key is not None
        accepted = f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept_key(key[1])}"
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(f"HTTP/1.1 101 \r\n{accepted}\r\n\r\n".encode() + sent)
        with contextlib.suppress(ConnectionError):
            await writer.drain()

    async def scene() -> None:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            link = MqttLink(Address.parse(f"ws://127.0.0.1:{port}"), "d0")
            await link.open(None)
            while not isinstance(event := await link.next_event(), LinkDown):
                pass
            assert why in event.why
            await link.close()

    play(scene())


def test_addresses() -> None:
    assert Address.parse("ws://hub").websocket_uri == "ws://hub:80/mqtt"
    assert Address.parse("wss://hub/a/b").websocket_uri == "wss://hub:443/a/b"
    assert Address.parse("wss://[::1]:9/x").websocket_uri == "wss://[::1]:9/x"
    assert Address.parse("ws://me:secret@hub:9001").websocket_uri == "ws://hub:9001/mqtt"
    assert Address.parse("mqtt://hub").websocket_uri is None
    for url in ("http://hub", "mqtt://hub/path", "ws://hub/mqtt?x=1", "ws://"):
        with pytest.raises(ConfigError, match="broker address"):
            Address.parse(url)
