"""The demonstration's broker: mosquitto where there is one, the embedded one elsewhere, or the user's own."""

from __future__ import annotations

import queue
import shutil
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from laconic.demo.processes import Children
from laconic.errors import TransportError
from laconic.transport.mqtt import Address

_START_S = 15.0
_ANSWER_S = 5.0
EMBEDDED = "embedded"
YOURS = "yours"
SIMULATED = "simulated"


@dataclass(frozen=True)
class RunningBroker:
    """A broker that takes connections."""

    url: str
    kind: str
    """mosquitto, embedded, yours or simulated."""


def find_mosquitto() -> str | None:
    """The mosquitto program; Debian keeps it where only root's PATH looks."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


def start_broker(children: Children, folder: Path, url: str | None) -> RunningBroker:
    """Start a broker on a free port of 127.0.0.1, or check that the one at `url` answers.

    `url` "embedded" means the embedded one even where mosquitto is installed.

    Raises `TransportError` when no broker answers.
    """
    if url is not None and url != EMBEDDED:
        address = Address.parse(url)
        _wait_for(address.host, address.port, children, 3.0)
        _wait_for_mqtt(address)
        return RunningBroker(url, YOURS)
    port = free_port()
    mosquitto = None if url == EMBEDDED else find_mosquitto()
    if mosquitto is not None:
        config = folder / "mosquitto.conf"
        config.write_text(
            f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nset_tcp_nodelay true\n"
            "max_inflight_messages 64\nmax_queued_messages 20000\nlog_type error\n"
        )
        command, kind = [mosquitto, "-c", str(config)], "mosquitto"
    else:
        command, kind = [sys.executable, "-m", "laconic.demo.embedded_broker", str(port)], EMBEDDED
    children.start("broker", command)
    _wait_for("127.0.0.1", port, children, _START_S)
    return RunningBroker(f"mqtt://127.0.0.1:{port}", kind)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


def _wait_for_mqtt(address: Address) -> None:
    """What listens must be an MQTT broker that lets us in."""
    answer: queue.Queue[str] = queue.Queue()
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv311)
    if address.username is not None:
        client.username_pw_set(address.username, address.password)
    client.on_connect = lambda c, u, f, reason, p: answer.put(str(reason) if reason.is_failure else "")
    try:
        client.connect(address.host, address.port)
        client.loop_start()
        refusal = answer.get(timeout=_ANSWER_S)
    except (OSError, queue.Empty):
        refusal = "no answer in MQTT"
    finally:
        client.disconnect()
        client.loop_stop()
    if refusal:
        raise TransportError(
            f"broker {address.host}:{address.port}", value=refusal, limit="an MQTT 3.1.1 broker"
        )


def _wait_for(host: str, port: int, children: Children, patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while True:
        children.check()
        try:
            socket.create_connection((host, port), timeout=1).close()
            return
        except OSError as e:
            if time.monotonic() > deadline:
                raise TransportError(
                    f"no broker answers at {host}:{port} ({e})", remedy="is it running? try without --broker"
                ) from e
            time.sleep(0.05)
