"""A coordinator's life as its operator sees it: real processes, a real mosquitto, a supervisor's socket."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from processes import free_port, laconic, until
from sites import Site, softmax_bundle

from laconic.coordinator.ledger import DeviceRecord
from laconic.storage import SqliteStore

pytestmark = pytest.mark.broker

STATED_S = 10.0
"""Within so many seconds a coordinator ends, docs/operating.md says."""


def devices(site: Site, cohort: str, count: int, features: int) -> None:
    """Start devices of a cohort, each with forty examples of its own."""
    arguments: list[str] = []
    for i in range(count):
        x = np.random.default_rng([features, i]).normal(size=(40, features)).astype(np.float32)
        arguments += site.device(cohort, f"{cohort}-{i}", x, (x[:, 0] > 0).astype(np.int64) + (x[:, 1] > 1))
    site.devices(f"devices-{cohort}", arguments)


TWO = """
[metrics]
port = {port}
[[campaign]]
cohort = "houses"
bundle = "houses.bundle"
rounds = {{ rounds = 100000, min_devices = 2, interval_s = 0.3 }}
[[campaign]]
cohort = "cars"
bundle = "cars.bundle"
keep_versions = 1000
rounds = {{ rounds = 100000, min_devices = 1, interval_s = 0.3 }}
"""


def test_two_campaigns_are_watched_ordered_and_ended(site: Site, tmp_path: Path) -> None:
    for name, features in (("houses", 6), ("cars", 4)):
        (tmp_path / f"{name}.bundle").write_bytes(softmax_bundle(features))
    scrape = free_port()
    site.write(TWO.format(port=scrape))
    site.broker()
    code, checked = site.laconic("coordinator", "check")
    assert (code, checked["ok"]) == (0, True), checked
    assert {f["verdict"] for f in checked["findings"]} == {"right"}
    assert _retained(site.port) == {}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(30)
        os.environ["NOTIFY_SOCKET"], os.environ["WATCHDOG_USEC"] = str(tmp_path / "notify"), "60000000"
        try:
            coordinator = site.coordinator()
        finally:
            del os.environ["NOTIFY_SOCKET"], os.environ["WATCHDOG_USEC"]
        assert systemd.recv(1000).startswith(b"READY=1")
        devices(site, "houses", 2, 6)
        devices(site, "cars", 1, 4)
        closed = lambda: {n["campaign"] for n in coordinator.notes("closed") if n["round"] >= 2}  # noqa: E731
        until(lambda: closed() == {"houses", "cars"}, 60, "two rounds of both")

        # A second one on the same store, and whoever only looks.
        code, said = site.laconic("coordinator")
        assert (code, said["error"]) == (5, "StoreLocked")
        _, status = site.laconic("fleet", "status")
        assert status["running"]
        assert {c["campaign"]: c["online"] for c in status["campaigns"]} == {"houses": 2, "cars": 1}
        assert [d["name"] for d in status["devices"]] == ["cars-0", "houses-0", "houses-1"]
        assert all(d["committed"] and d["bytes_today"] for d in status["devices"])
        code, said = site.laconic("round", "show")
        assert (code, said["error"]) == (10, "RemoteProtocolError"), "of which campaign?"
        _, found = site.laconic("round", "show", "1", "--campaign", "houses")
        assert found["round"]["who_asked"] == ["houses-0", "houses-1"]
        assert found["round"]["committed"] == 2
        _, found = site.laconic("model", "list", "--campaign", "cars")
        assert [v["version"] for v in found["versions"]][:3] == [0, 1, 2]

        # A version is taken back, and one is kept for good.
        assert site.laconic("model", "pin", "1", "--campaign", "cars")[0] == 0
        assert site.laconic("model", "rollback", "1", "--campaign", "cars")[0] == 0
        until(lambda: bool(coordinator.notes("rolled back")), 20, "the way back")
        _, found = site.laconic("model", "list", "--campaign", "cars")
        back = coordinator.notes("rolled back")[0]["version"]
        versions = {v["version"]: v for v in found["versions"]}
        assert versions[back]["model"] == versions[1]["model"]
        assert [v for v in versions if versions[v]["pinned"]] == [1]
        assert site.laconic("model", "rollback", "99999", "--campaign", "cars")[0] == 10

        # Metrics agree with what was said.
        with urllib.request.urlopen(f"http://127.0.0.1:{scrape}/metrics", timeout=10) as response:
            text = response.read().decode()
        committed = int(
            float(re.findall(r'updates_total{campaign="houses",fate="committed"} (\S+)', text)[0])
        )
        assert 4 <= committed <= len([n for n in coordinator.notes("committed") if n["campaign"] == "houses"])
        assert 'laconic_devices{campaign="cars",presence="online"} 1.0' in text
        assert "laconic_connected 1.0" in text

        # A pause of one holds one.
        code, _ = site.laconic("campaign", "pause", "houses")
        assert code == 0
        until(lambda: bool(coordinator.notes("held")), 20, "the pause")
        at = time.time()
        until(lambda: sum(n["at"] > at for n in coordinator.notes("closed")) >= 2, 20, "rounds of the other")
        assert {n["campaign"] for n in coordinator.notes("closed") if n["at"] > at} == {"cars"}
        code, said = site.laconic("campaign", "pause", "nobody")
        assert code == 10

        # SIGTERM in mid-round.
        asked = time.monotonic()
        os.kill(coordinator.pid, signal.SIGTERM)
        assert coordinator.wait(30) == 0
        assert time.monotonic() - asked < STATED_S
        words = b""
        while b"STOPPING=1" not in words:
            words = systemd.recv(1000)
            assert words in (b"WATCHDOG=1", b"STOPPING=1")
    assert coordinator.lines[-1]["kind"] == "stopped"
    assert not (tmp_path / "coordinator.db.sock").exists()
    code, status = site.laconic("fleet", "status")
    assert (code, status["running"]) == (0, False)
    assert [c["paused"] for c in status["campaigns"]] == [True, False]
    code, said = site.laconic("campaign", "resume", "houses")
    assert (code, said["error"]) == (10, "RemoteProtocolError"), "only a coordinator that runs can do this"
    told = coordinator.notes("telemetry")[-1]
    store = SqliteStore(tmp_path / "coordinator.db")
    saved = msgspec.msgpack.decode(store.get(f"device/{told['device']}") or b"", type=DeviceRecord)
    store.close()
    assert saved.bytes_up == told["bytes_up"], "what was only in memory is saved"

    # It goes on, and ends when its rounds are over.
    coordinator.start()
    until((tmp_path / "coordinator.db.sock").exists, 30, "the second life")
    code, _ = site.laconic("coordinator", "finish")
    assert code == 0
    assert coordinator.wait(30) == 0


def test_a_broker_that_refuses_ends_it_and_rules_that_deny_are_named(site: Site, tmp_path: Path) -> None:
    (tmp_path / "default.bundle").write_bytes(softmax_bundle(4))
    (tmp_path / "password").write_text("wrong\n")
    (tmp_path / "password").chmod(0o600)
    password = subprocess.run(
        ["mosquitto_passwd", "-b", "-c", str(tmp_path / "users"), "coordinator", "right"], check=False
    ).returncode
    assert password == 0
    (tmp_path / "acl").write_text(
        "user coordinator\ntopic readwrite laconic/v1/g/#\ntopic readwrite laconic/v1/m/#\n"
        "topic read laconic/v1/d/+/up/#\n"
    )
    rules = f"allow_anonymous false\npassword_file {tmp_path / 'users'}\nacl_file {tmp_path / 'acl'}\n"
    site.write('bundle = "default.bundle"', broker='username = "coordinator"\npassword_file = "password"\n')
    site.broker(rules)
    code, said = site.laconic("coordinator", "check")
    assert code == 9
    assert [f["subject"] for f in said["findings"] if f["verdict"] == "wrong"] == ["broker"]
    refused = subprocess.run(
        laconic("coordinator", "--config", str(site.config)), capture_output=True, timeout=60, check=False
    )
    assert refused.returncode == 7
    assert b"BrokerRefused" in refused.stderr

    (tmp_path / "password").write_text("right\n")
    code, said = site.laconic("coordinator", "check")
    assert code == 9
    wrong = {f["subject"] for f in said["findings"] if f["verdict"] == "wrong"}
    assert wrong == {"right to publish offers to a device", "right to publish answers to a device"}
    unsure = {f["subject"] for f in said["findings"] if f["verdict"] == "unsure"}
    assert unsure == {"right to hear what devices say"}


def test_a_broker_that_takes_no_large_packets_is_named(site: Site, tmp_path: Path) -> None:
    (tmp_path / "default.bundle").write_bytes(softmax_bundle(4))
    site.write('bundle = "default.bundle"')
    site.broker("allow_anonymous true\nmax_packet_size 20000\n")
    code, said = site.laconic("coordinator", "check")
    assert code == 9
    (wrong,) = [f for f in said["findings"] if f["verdict"] == "wrong"]
    assert "49152 bytes" in wrong["subject"]
    assert _retained(site.port) == {}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", 2),
        ('bundle = "none.bundle"', 2),
        ('bundle = "damaged.bundle"', 3),
        ('bundle = "good.bundle"\nstore = "damaged.db"', 4),
    ],
    ids=["no bundle", "missing bundle", "damaged bundle", "damaged store"],
)
def test_what_cannot_be_used_has_its_exit_code(site: Site, tmp_path: Path, text: str, code: int) -> None:
    (tmp_path / "good.bundle").write_bytes(softmax_bundle(4))
    (tmp_path / "damaged.bundle").write_bytes(b"\0" * 1000)
    (tmp_path / "damaged.db").write_bytes(b"no database" * 1000)
    site.write(text)
    assert site.laconic("coordinator")[0] == code
    # Nobody listens at the broker's port: the check says what is wrong besides.
    found, said = site.laconic("coordinator", "check")
    assert found == 9
    assert sum(f["verdict"] == "wrong" for f in said["findings"]) >= 1


def _retained(port: int) -> dict[str, bytes]:
    """What lies at the broker under our topics."""
    found: dict[str, bytes] = {}
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id="eye")
    heard: list[str] = []

    def on_message(c: Any, u: Any, m: paho.MQTTMessage) -> None:
        heard.append(m.topic)
        if m.retain:
            found[m.topic] = bytes(m.payload)

    client.on_message = on_message
    client.on_connect = lambda c, *_: (c.subscribe("laconic/#", 1), c.subscribe("end", 1))
    client.on_subscribe = lambda c, *_: c.publish("end", b"", 1)
    client.connect("127.0.0.1", port)
    client.loop_start()
    until(lambda: "end" in heard, 10, "the end")
    client.disconnect()
    client.loop_stop()
    return found
