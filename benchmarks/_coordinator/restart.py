"""Part restart: from the start of the process to its subscription at the broker, after a long life."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import numpy as np
from _result import Bar, at_most

from laconic.budget.spending import Period, Spent
from laconic.coordinator.advance import first
from laconic.coordinator.campaign import Progress
from laconic.coordinator.compartment import compartment_of
from laconic.coordinator.history import Contribution, RoundRecord
from laconic.coordinator.ledger import DeviceRecord
from laconic.coordinator.migrations import upgrade
from laconic.coordinator.registry import Registry
from laconic.runtime import Bundle
from laconic.storage import SqliteStore
from laconic.training import prepare
from laconic.training.models import digits_cnn

DEVICES = 10_000
ROUNDS = 1_000
NAMED = 1_000
"""Devices in each round's record, as many as a record names by default."""
RUNS = 5
LIMIT_S = 2.0
_PATIENCE_S = 60.0


def measure() -> dict[str, Any]:
    """Seconds from exec to SUBSCRIBE as mosquitto logs it, over several starts with the same store."""
    program = shutil.which("mosquitto", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))
    if program is None:
        raise SystemExit("bench: restart needs mosquitto")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store_bytes = _make(folder)
        bare = [_import_s() for _ in range(RUNS)]
        seconds = [_start_s(program, folder, _free_port()) for _ in range(RUNS)]
    return {
        "devices": DEVICES,
        "rounds": ROUNDS,
        "store_bytes": store_bytes,
        "seconds": [round(s, 3) for s in seconds],
        "median_s": round(median(seconds), 3),
        "imports_alone_s": round(median(bare), 3),
    }


def bars(found: dict[str, Any]) -> list[Bar]:
    """Issue 5: a restart with 1,000 rounds of history and 10,000 devices takes less than 2 s."""
    return [at_most("restart: seconds to the subscription", found["median_s"], LIMIT_S)]


def _make(folder: Path) -> int:
    """A store as a long life leaves it; returns its size in bytes."""
    (folder / "model.bundle").write_bytes(prepare(digits_cnn(0)))
    bundle = Bundle.read((folder / "model.bundle").read_bytes())
    store = SqliteStore(folder / "coordinator.db")
    upgrade(store, "default")
    own = compartment_of(store, "default")
    registry = Registry(
        own, bundle.schema, bundle=bundle.hash[:16], key=None, chunk_bytes=49_152, keep_versions=16
    )
    version = first(bundle.initial, bundle.schema, lambda w: None)
    entries = dict(registry.add(version, 1.7e9, round_number=0, updates=0, silent=0, samples=0))
    names = [f"device-{i:05d}" for i in range(DEVICES)]
    for number in range(1, ROUNDS + 1):
        entries[f"round/{number:08d}"] = msgspec.msgpack.encode(_round(number, names[:NAMED]))
    entries["progress"] = msgspec.msgpack.encode(Progress(number=ROUNDS + 1, opened_at=1.7e9))
    rng = np.random.default_rng(0)
    store.write(own.entries(entries))
    store.write({f"device/{n}": msgspec.msgpack.encode(_device(n, rng)) for n in names})
    store.close()
    return (folder / "coordinator.db").stat().st_size


def _device(name: str, rng: np.random.Generator) -> DeviceRecord:
    period = Period(20_000, 1, 2, int(rng.integers(10**6)), int(rng.integers(10**7)), 12.5)
    return DeviceRecord(
        name,
        last_seen=1.7e9,
        samples=100,
        charge=float(rng.random()),
        bytes_up=int(rng.integers(10**9)),
        bytes_down=int(rng.integers(10**9)),
        joules_compute=float(rng.random() * 1e5),
        committed=900,
        last_update="ab" * 8,
        zone="Europe/Rome",
        spent=Spent(period, period),
    )


def _round(number: int, names: list[str]) -> RoundRecord:
    return RoundRecord(
        number=number,
        task="cd" * 8,
        base=number - 1,
        opened_at=1.6e9 + number,
        closed_at=1.6e9 + number + 60,
        version=number,
        asked=DEVICES,
        committed=DEVICES,
        who_asked=names,
        who_committed=[Contribution(n, 10_000, 100, 0, 1.5, 0.5, 2.0, 1.0) for n in names],
    )


def _import_s() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import laconic.coordinator.daemon"], check=True)
    return time.perf_counter() - began


def _start_s(program: str, folder: Path, port: int) -> float:
    log = folder / f"mosquitto-{port}.log"
    (folder / "mosquitto.conf").write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nuser {getpass.getuser()}\n"
        f"log_type subscribe\nlog_dest file {log}\n"
    )
    (folder / "coordinator.toml").write_text(
        'bundle = "model.bundle"\n[rounds]\nrounds = 100000\nmin_devices = 5\n'
        f'[broker]\nurl = "mqtt://127.0.0.1:{port}"\n'
    )
    broker = subprocess.Popen([program, "-c", str(folder / "mosquitto.conf")], stderr=subprocess.DEVNULL)
    coordinator = None
    try:
        _until(log.exists)
        time.sleep(0.2)
        command = [sys.executable, "-m", "laconic.cli", "coordinator", "--json", "--config"]
        began = time.perf_counter()
        coordinator = subprocess.Popen(
            [*command, str(folder / "coordinator.toml")], stdout=subprocess.DEVNULL
        )
        _until(lambda: "laconic/v1/d/+/up/#" in log.read_text())
        return time.perf_counter() - began
    finally:
        for process in (coordinator, broker):
            if process is not None:
                process.terminate()
                process.wait(30)


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not true():
        if time.monotonic() > deadline:
            raise SystemExit("bench: restart waited in vain")
        time.sleep(0.005)
