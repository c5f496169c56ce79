"""What surrounds the engine: control socket, metrics, supervisor, faults of the store, several campaigns."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.config import load
from laconic.coordinator import conversations, metrics
from laconic.coordinator.configuration import CoordinatorConfig, campaigns_of
from laconic.coordinator.control_socket import Act, ControlServer, ask
from laconic.coordinator.metrics import Counters, exposition
from laconic.coordinator.status import Request
from laconic.errors import (
    ConfigError,
    DiskFull,
    RemoteProtocolError,
    StorageError,
    StoreDamaged,
    StoreLocked,
)
from laconic.exit_codes import exit_code
from laconic.node import Computed, Note, Woke
from laconic.storage import ReadOnlyStore, SqliteStore
from laconic.transport.supervision import Supervisor
from often import examples

# --- the control socket


def with_server(path: Path, act: Act, talk: Callable[[], Any]) -> Any:
    """What `talk`, in a thread of its own, makes of a server."""

    async def scene() -> Any:
        server = ControlServer(path, act)
        await server.open()
        try:
            assert path.stat().st_mode & 0o777 == 0o600
            return await asyncio.get_running_loop().run_in_executor(None, talk)
        finally:
            await server.close()

    found = asyncio.run(scene())
    assert not path.exists()
    return found


def echo(request: Request) -> dict[str, object]:
    if request.campaign == "nobody":
        raise RemoteProtocolError("campaign", value="nobody", limit="somebody")
    return {"said": request.ask, "number": request.number}


def test_a_request_is_answered_and_a_refusal_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "c.sock"
    assert ask(path, ask="status") is None

    def talk() -> None:
        assert ask(path, ask="round", number=3) == {"said": "round", "number": 3}
        with pytest.raises(RemoteProtocolError, match="campaign, found nobody"):
            ask(path, ask="pause", campaign="nobody")
        for wrong in ({"ask": "what"}, {"ask": "status", "more": 1}, {"ask": "devices", "count": 501}):
            with pytest.raises(RemoteProtocolError, match="refuses"):
                ask(path, **wrong)

    with_server(path, echo, talk)
    assert ask(path, ask="status") is None


def test_a_socket_that_a_kill_has_left_is_replaced_and_a_file_is_not(tmp_path: Path) -> None:
    path = tmp_path / "c.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    assert ask(path, ask="status") is None
    with_server(path, echo, lambda: ask(path, ask="status"))
    path.write_text("a file of somebody's")
    with pytest.raises(ConfigError, match=r"control\.socket"):
        with_server(path, echo, lambda: None)
    assert path.read_text() == "a file of somebody's"


def test_a_path_that_no_socket_can_have_is_named() -> None:
    with pytest.raises(ConfigError, match="107"):
        ControlServer(Path("/" + "x" * 107), echo)


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(st.binary(max_size=200).filter(lambda b: b"\n" not in b), min_size=1, max_size=5))
def test_whatever_is_sent_is_answered_by_a_line_of_json(lines: list[bytes]) -> None:
    server = ControlServer(Path("/tmp/x.sock"), echo)
    for line in lines:
        found = json.loads(server._answered(line + b"\n"))
        assert found["ok"] in (True, False)
        assert found["ok"] or set(found) == {"ok", "error", "message"}


def test_too_long_a_line_ends_its_connection_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "c.sock"

    def talk() -> None:
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(str(path))
            link.settimeout(5)
            link.sendall(b"x" * 100_000)
            assert link.recv(1) == b""
        assert ask(path, ask="status") is not None

    def tolerant() -> None:
        try:
            talk()
        except (BrokenPipeError, ConnectionResetError):
            assert ask(path, ask="status") is not None

    with_server(path, echo, tolerant)


def test_so_many_connections_and_no_more(tmp_path: Path) -> None:
    path = tmp_path / "c.sock"

    def talk() -> int:
        links = []
        for _ in range(conversations.MOST + 4):
            link = socket.socket(socket.AF_UNIX)
            link.connect(str(path))
            link.settimeout(5)
            links.append(link)
        answered = 0
        for link in links:
            try:
                link.sendall(b'{"ask": "status"}\n')
                answered += bool(link.recv(1000))
            except (BrokenPipeError, ConnectionResetError):
                pass
        for link in links:
            link.close()
        return answered

    assert with_server(path, echo, talk) == conversations.MOST


# --- metrics

LABEL = r'[a-z_]+="(?:[^"\\\n]|\\\\|\\"|\\n)*"'
SAMPLE = re.compile(rf"([a-z_]+)(?:\{{({LABEL}(?:,{LABEL})*)\}})? (\S+)")
MEANING = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}


@given(st.text(max_size=30), st.floats())
def test_every_line_is_of_the_format_whatever_a_label_holds(label: str, value: float) -> None:
    text = exposition({"laconic_info": {(label,): value}, "laconic_version": {(label,): 2.0}})
    assert text.endswith("\n")
    # The format knows one line end, the line feed.
    lines = [line for line in text.split("\n") if line and not line.startswith("# ")]
    assert len(lines) == 2
    for line in lines:
        found = SAMPLE.fullmatch(line)
        assert found
        float(found[3].replace("Inf", "inf"))
        quoted = re.fullmatch(r'\w+="(.*)"', found[2], re.DOTALL)
        assert quoted
        assert re.sub(r'\\\\|\\"|\\n', lambda m: MEANING[m[0]], quoted[1]) == label


def test_counters_count_what_is_noted() -> None:
    counters = Counters()
    commit = {"campaign": "c", "staleness": 0, "frame_bytes": 10}
    for note in (
        Note("committed", commit),
        Note("committed", {**commit, "staleness": 2, "frame_bytes": 5}),
        Note("rejected", {"campaign": "c"}),
        Note("skipped", {"campaign": "c", "why": "gate"}),
        Note("skipped", {"campaign": "c", "why": "because of the weather"}),
        Note("closed", {"campaign": "c"}),
        Note("dropped", {"device": "d"}),
        Note("telemetry", {"campaign": "c"}),
    ):
        counters.noted(note)
    counters.handled(Woke(), 0.5)
    counters.handled(Computed("advance/c", None, 2.0), 0.25)
    found = counters.samples()
    assert found["laconic_updates_total"] == {
        ("c", "committed"): 1,
        ("c", "late"): 1,
        ("c", "rejected"): 1,
    }
    assert found["laconic_update_bytes_total"] == {("c",): 15}
    assert found["laconic_skips_total"] == {("c", "gate"): 1, ("c", "other"): 1}
    assert found["laconic_rounds_total"] == {("c",): 1}
    assert found["laconic_dropped_total"] == {(): 1}
    assert found["laconic_event_seconds_total"] == {("woke",): 0.5, ("computed",): 0.25}
    assert found["laconic_version_seconds_total"] == {(): 2.0}
    assert set(found) | set(metrics.gauges({}, 0.0)) == {m.name for m in metrics.METRICS}


# --- the supervisor


def test_systemd_is_told_in_its_own_words(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(5)
        environment = {
            "NOTIFY_SOCKET": str(tmp_path / "notify"),
            "WATCHDOG_USEC": "40000",
            "WATCHDOG_PID": str(os.getpid()),
        }
        supervisor = Supervisor.of(environment)
        supervisor.tell("READY=1", "STATUS=well")
        assert systemd.recv(1000) == b"READY=1\nSTATUS=well"

        async def live() -> None:
            alive = asyncio.ensure_future(supervisor.keep_alive())
            await asyncio.sleep(0.1)
            alive.cancel()

        asyncio.run(live())
        assert [systemd.recv(1000) for _ in range(3)] == [b"WATCHDOG=1"] * 3
    # Nobody listens any more: that is no reason to stop.
    supervisor.tell("STOPPING=1")


def test_no_supervisor_and_another_process_watchdog() -> None:
    assert Supervisor.of({}) == Supervisor()
    assert Supervisor.of({"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}).watchdog_s is None
    Supervisor().tell("READY=1")


# --- faults of the store


def test_a_full_disk_is_told_apart_and_leaves_what_was_there(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "s.db")
    store.write({"kept": b"1"})
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(DiskFull) as full:
        store.write({"kept": b"2", "large": b"x" * 100_000})
    assert exit_code(full.value) == 6
    assert store.get("kept") == b"1"
    store.close()


def test_damage_and_locks_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: connect(*a, **{**k, "timeout": 0.05}))
    damaged = tmp_path / "damaged.db"
    damaged.write_bytes(b"no database" * 1000)
    for kind in (SqliteStore, ReadOnlyStore):
        with pytest.raises(StoreDamaged) as e:
            kind(damaged)
        assert exit_code(e.value) == 4
    held = SqliteStore(tmp_path / "held.db")
    held.write({"a": b"1"})
    for kind in (SqliteStore, ReadOnlyStore):
        with pytest.raises(StoreLocked) as locked:
            kind(tmp_path / "held.db")
        assert exit_code(locked.value) == 5
    held.close()
    with pytest.raises(StorageError, match="there is no store"):
        ReadOnlyStore(tmp_path / "none.db")
    assert not (tmp_path / "none.db").exists()


def test_a_reader_sees_what_was_written_and_changes_nothing(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "s.db")
    store.write({"a/1": b"1", "a/2": b"2", "b": b"3"})
    store.close()
    before = (tmp_path / "s.db").read_bytes()
    reader = ReadOnlyStore(tmp_path / "s.db")
    assert list(reader.keys("a/")) == ["a/1", "a/2"]
    assert reader.get("b") == b"3"
    assert reader.get("c") is None
    assert reader.damage() is None
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader._db.execute("DELETE FROM entries")
    reader.close()
    assert (tmp_path / "s.db").read_bytes() == before


# --- several campaigns


def configured(tmp_path: Path, text: str) -> CoordinatorConfig:
    (tmp_path / "c.toml").write_text(text)
    return load(CoordinatorConfig, tmp_path / "c.toml", {}, who="coordinator")


def test_the_single_form_and_tables_describe_the_same_campaign(tmp_path: Path) -> None:
    single = configured(
        tmp_path, 'bundle = "b"\ncohort = "x"\n[rounds]\nrounds = 7\n[training]\nepochs = 3\n'
    )
    several = configured(
        tmp_path,
        '[[campaign]]\nbundle = "b"\ncohort = "x"\n[campaign.rounds]\nrounds = 7\n'
        "[campaign.training]\nepochs = 3\n",
    )
    ((_, one),) = campaigns_of(single, tmp_path)
    ((_, other),) = campaigns_of(several, tmp_path)
    assert one == other


TWO = '[[campaign]]\nbundle = "a"\ncohort = "houses"\n[[campaign]]\nbundle = "b"\ncohort = "{}"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TWO.format("cars") + "[campaign.rounds]\ndeadline_s = -1\n", r'campaign "cars": rounds\.deadline_s'),
        (TWO.format("houses"), "cohorts of the campaigns"),
        ("keep_versions = 3\n" + TWO.format("cars"), "keep_versions at the top"),
        ('[[campaign]]\ncohort = "x"\n', "bundle"),
        ("", "bundle"),
    ],
)
def test_errors_name_the_campaign(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        campaigns_of(configured(tmp_path, text), tmp_path)


def test_the_bounds_of_a_request() -> None:
    for wrong in ({"ask": "round", "number": -1}, {"ask": "devices", "after": "x" * 65}, {}):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(wrong, Request)
