"""No broker, no name service, a certificate that has expired: said, and tried again until it is well."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from laconic.transport import mqtt
from laconic.transport.link import LinkDown, LinkEvent, LinkUp
from laconic.transport.mqtt import Address, MqttLink

TRANSPORT = Path(__file__).resolve().parents[1] / "transport"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt, "_BACK_OFF_FIRST_S", 0.05)
    monkeypatch.setattr(mqtt, "_BACK_OFF_MOST_S", 0.1)


async def until(link: MqttLink, kind: type[LinkEvent]) -> LinkEvent:
    async with asyncio.timeout(20):
        while not isinstance(event := await link.next_event(), kind):
            pass
    return event


def test_a_name_that_cannot_be_resolved_is_said_and_tried_again() -> None:
    async def scene() -> None:
        link = MqttLink(Address("broker.invalid"), "d0")
        await link.open(None)
        for _ in range(2):
            down = await until(link, LinkDown)
            assert isinstance(down, LinkDown)
            assert down.why.startswith("broker.invalid:1883: ")
        await link.close()

    asyncio.run(scene())


class Authority:
    """Certificates made with openssl, as an operator makes them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._openssl(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=authority"
            " -keyout ca.key -out ca.crt"
        )
        self._openssl(
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=broker"
            " -keyout server.key -out server.csr"
        )
        (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")

    def certify(self, days: int) -> None:
        """A certificate for the broker; one of -1 days ended yesterday."""
        self._openssl(
            f"x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days {days}"
            " -extfile names -out server.crt"
        )

    def _openssl(self, line: str) -> None:
        subprocess.run(["openssl", *line.split()], cwd=self.folder, check=True, capture_output=True)


@pytest.fixture
def authority(tmp_path: Path) -> Iterator[Authority]:
    try:
        yield Authority(tmp_path)
    except FileNotFoundError:
        pytest.skip("no openssl on the PATH")


@pytest.mark.broker
def test_an_expired_certificate_is_said_until_there_is_a_new_one(
    authority: Authority, mosquitto_path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(TRANSPORT))
    from mosquitto import Mosquitto

    authority.certify(-1)
    tls = f"cafile {tmp_path}/ca.crt\ncertfile {tmp_path}/server.crt\nkeyfile {tmp_path}/server.key"
    broker = Mosquitto(mosquitto_path, tmp_path, options=tls)
    broker.start()

    async def scene() -> None:
        link = MqttLink(Address("127.0.0.1", broker.port, tls=True, ca_file=tmp_path / "ca.crt"), "d0")
        await link.open(None)
        for _ in range(2):
            down = await until(link, LinkDown)
            assert isinstance(down, LinkDown)
            assert "expired" in down.why
        broker.kill()
        authority.certify(2)
        broker.start()
        await until(link, LinkUp)
        await link.close()

    try:
        asyncio.run(scene())
    finally:
        broker.kill()
