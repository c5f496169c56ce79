"""examples/mosquitto: mosquitto takes it, our link gets in with a certificate, and nobody is anybody else."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from laconic.config import BrokerSection
from laconic.node import Will
from laconic.protocol import topics
from laconic.transport.link import LinkEvent, LinkUp, Message
from laconic.transport.mqtt import MqttLink, address_of

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLE = REPOSITORY / "examples" / "mosquitto"
KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
TASK, ACK = topics.device_task, topics.ack

pytestmark = [
    pytest.mark.broker,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make certificates with"),
]


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def make_authority(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    openssl(
        folder,
        "req",
        "-x509",
        *KEY,
        "-days",
        "2",
        "-subj",
        "/CN=fleet",
        "-addext",
        "keyUsage=critical,keyCertSign,cRLSign",
        "-keyout",
        "ca.key",
        "-out",
        "ca.crt",
    )


def make_certificate(folder: Path, name: str, *extra: str) -> None:
    """As docs/demo.md says."""
    openssl(folder, "req", *KEY, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
    signing = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2")
    openssl(folder, "x509", "-req", "-in", f"{name}.csr", *signing, "-out", f"{name}.crt", *extra)


@pytest.fixture
def secure_port(
    tmp_path: Path,
    mosquitto_path: str,
    free_port: int,
    start: Callable[..., subprocess.Popen[str]],
    answers: Callable[[int], None],
) -> int:
    """The example broker, on another port and with throw-away certificates."""
    make_authority(tmp_path)
    (tmp_path / "server.ext").write_text("subjectAltName = IP:127.0.0.1\nauthorityKeyIdentifier = keyid\n")
    make_certificate(tmp_path, "server", "-extfile", "server.ext")
    for name in ("coordinator", "pi-0", "pi-1"):
        make_certificate(tmp_path, name)
    shutil.copy(EXAMPLE / "acl", tmp_path)
    # A broker that is started by root gives root up, and must still read its key.
    config = (
        (EXAMPLE / "mosquitto.conf").read_text().replace("listener 8883", f"listener {free_port} 127.0.0.1")
    )
    assert str(free_port) in config
    (tmp_path / "mosquitto.conf").write_text(f"{config}\nuser root\npersistence_location {tmp_path}/\n")
    start(mosquitto_path, "-c", "mosquitto.conf")
    answers(free_port)
    return free_port


class Client:
    """Our own link to the secure broker, and the messages that reached it."""

    def __init__(
        self, folder: Path, port: int, name: str, *, certificate: str | None, client_id: str
    ) -> None:
        section = BrokerSection(
            url=f"mqtts://127.0.0.1:{port}",
            ca_file="ca.crt",
            cert_file=certificate and f"{certificate}.crt",
            key_file=certificate and f"{certificate}.key",
        )
        self.name = name
        self.link = MqttLink(address_of(section, folder), client_id)
        self.heard: list[Message] = []

    async def event(self) -> LinkEvent:
        async with asyncio.timeout(10):
            event = await self.link.next_event()
        if isinstance(event, Message):
            self.heard.append(event)
            self.link.acknowledge(event.receipt)
        return event

    async def until(self, topic: str) -> None:
        """Go on until a message under `topic` has arrived."""
        while not any(m.topic == topic for m in self.heard):
            await self.event()

    def topics(self) -> set[str]:
        return {m.topic for m in self.heard}


async def connect(folder: Path, port: int, name: str, client_id: str = "") -> Client:
    client = Client(folder, port, name, certificate=name, client_id=client_id or name)
    await client.link.open(Will(topics.state(name), b"gone"))
    assert await client.event() == LinkUp()
    return client


def test_certificates_let_in_and_keep_apart(tmp_path: Path, secure_port: int) -> None:
    async def scenario() -> None:
        coordinator = await connect(tmp_path, secure_port, "coordinator", "coordinator-default")
        one = await connect(tmp_path, secure_port, "pi-0")
        two = await connect(tmp_path, secure_port, "pi-1")
        coordinator.link.subscribe((topics.EVERY_UP,))
        own = topics.skip("coordinator")
        while own not in coordinator.topics():
            # Nothing is to be said before the broker knows who listens.
            coordinator.link.publish(own, b"", qos=1, retain=False)
            await coordinator.until(own)
        coordinator.heard.clear()
        one.link.subscribe((topics.cohort_task("default"), TASK("pi-0"), ACK("pi-0")))
        two.link.subscribe((topics.cohort_task("default"), TASK("pi-1"), ACK("pi-1"), ACK("pi-0"), "#"))
        two.link.subscribe((topics.manifest("0" * 16), topics.EVERY_UP))

        # Nobody's words but one's own: neither in another's name, nor in the coordinator's.
        forged = [topics.skip("pi-0"), topics.state("pi-0"), ACK("pi-0"), topics.cohort_task("default")]
        forged += [topics.manifest("0" * 16), "elsewhere"]
        for topic in forged:
            two.link.publish(topic, b"forged", qos=1, retain=False)
        two.link.publish(topics.skip("pi-1"), b"mine", qos=1, retain=False)
        await coordinator.until(topics.skip("pi-1"))
        assert coordinator.topics() == {topics.skip("pi-1")}

        # Nobody's ears but one's own; offers and models are for all.
        for topic in (ACK("pi-0"), TASK("pi-0"), topics.manifest("0" * 16), ACK("pi-1")):
            coordinator.link.publish(topic, b"word", qos=1, retain=False)
        coordinator.link.publish(topics.cohort_task("default"), b"offer", qos=1, retain=False)
        await one.until(topics.cohort_task("default"))
        await two.until(topics.cohort_task("default"))
        assert one.topics() == {ACK("pi-0"), TASK("pi-0"), topics.cohort_task("default")}
        assert two.topics() == {ACK("pi-1"), topics.manifest("0" * 16), topics.cohort_task("default")}
        assert all(m.payload in (b"word", b"offer") for m in (*one.heard, *two.heard))

        # A client id that is claimed throws nobody out: it is the certificate's name that counts.
        await two.link.close()
        thief = Client(tmp_path, secure_port, "pi-1", certificate="pi-1", client_id="pi-0")
        await thief.link.open(None)
        assert await thief.event() == LinkUp()
        one.heard.clear()
        coordinator.link.publish(ACK("pi-0"), b"again", qos=1, retain=False)
        while not one.heard:
            assert isinstance(await one.event(), Message), "the owner was thrown out"
        for client in (thief, coordinator, one):
            await client.link.close()

    asyncio.run(scenario())


def test_without_a_certificate_of_the_fleet_nobody_gets_in(tmp_path: Path, secure_port: int) -> None:
    foreign = tmp_path / "foreign"
    make_authority(foreign)
    make_certificate(foreign, "pi-0")
    for file in ("pi-0.crt", "pi-0.key"):
        shutil.copy(foreign / file, tmp_path / f"foreign-{file}")

    async def refused(certificate: str | None) -> None:
        client = Client(tmp_path, secure_port, "pi-0", certificate=certificate, client_id="pi-0")
        await client.link.open(None)
        assert not isinstance(await client.event(), LinkUp)
        await client.link.close()

    async def scenario() -> None:
        await refused(None)
        await refused("foreign-pi-0")

    asyncio.run(scenario())


def test_a_broker_of_another_authority_is_refused(tmp_path: Path, secure_port: int) -> None:
    make_authority(tmp_path)

    async def scenario() -> None:
        client = Client(tmp_path, secure_port, "pi-0", certificate="pi-0", client_id="pi-0")
        await client.link.open(None)
        assert "certificate verify failed" in str(await client.event())
        await client.link.close()

    asyncio.run(scenario())


def test_an_older_tls_is_refused(tmp_path: Path, secure_port: int) -> None:
    context = ssl.create_default_context(cafile=tmp_path / "ca.crt")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection(("127.0.0.1", secure_port), 5) as raw, pytest.raises(ssl.SSLError):
        context.wrap_socket(raw, server_hostname="127.0.0.1")
