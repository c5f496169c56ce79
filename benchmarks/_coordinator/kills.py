"""Nothing lost, nothing twice: campaigns on a real broker in which everything is killed at random moments.

In each run coordinator, broker and two processes of devices are killed with SIGKILL as a seed has it, while
messages are lost, doubled and overtaken (`_coordinator.faults`) and all links break together. In the end an
oracle that shares no bookkeeping with the engines folds what was committed, in another order.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from _result import Bar, at_least, at_most

from _coordinator.faults import Door, Faults
from _coordinator.lives import BUNDLE, CHANGE, CODEC, COMMITTED, OWN, SCHEMA, TAKEN
from laconic.compression import decode, whole
from laconic.coordinator.advance import advance, first
from laconic.coordinator.campaign import Committed
from laconic.coordinator.fold import Fold
from laconic.coordinator.ledger import DeviceRecord
from laconic.coordinator.records import ModelRecord
from laconic.edge_sdk.records import restore
from laconic.storage import SqliteStore

RUNS = 200
ROUNDS, DEVICES = 4, 4
PROCESSES = ((0, 1), (2, 3))
"""Which devices share a process."""
MOST_KILLS = 7
PATIENCE_S = 90.0
"""How long a run may take, with everything that happens in it."""


class Unsettled(Exception):
    """A run that has not come to its end."""


def measure(runs: int = RUNS, first_seed: int = 0) -> dict[str, Any]:
    """So many runs, one seed each: what happened in them, and what was found wrong."""
    totals: Counter[str] = Counter()
    wrong: list[dict[str, Any]] = []
    began = time.monotonic()
    for seed in range(first_seed, first_seed + runs):
        folder = Path(tempfile.mkdtemp(prefix="laconic-kills-"))
        try:
            totals.update(asyncio.run(_live(folder, seed)))
            totals.update(verify(folder))
        except (AssertionError, Unsettled) as e:
            kept = Path(tempfile.gettempdir()) / f"laconic-kills-seed-{seed}"
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(folder, kept)
            wrong.append({"seed": seed, "error": f"{type(e).__name__}: {e}", "kept": str(kept)})
            print(f"bench: kills: seed {seed}: {e}", file=sys.stderr)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        print(f"bench: kills: {seed - first_seed + 1} of {runs}, {len(wrong)} wrong", file=sys.stderr)
    seconds = time.monotonic() - began
    return {
        "runs": runs,
        "seconds_a_run": round(seconds / runs, 2),
        **dict(sorted(totals.items())),
        "wrong": wrong,
    }


def bars(found: dict[str, Any]) -> list[Bar]:
    """Every run as it should be, with blows in it."""
    return [
        at_most("kills: runs with an update lost or counted twice", len(found["wrong"]), 0),
        at_least("kills: kills a run", round(found.get("kills", 0) / found["runs"], 2), 3),
    ]


# --- one run


async def _live(folder: Path, seed: int) -> Counter[str]:
    """Run a campaign to its end, with blows."""
    chance = random.Random(seed)
    broker_port = _free_port()
    settings = folder / "mosquitto.conf"
    user = "user root\n" if os.geteuid() == 0 else ""
    settings.write_text(
        f"listener {broker_port} 127.0.0.1\nallow_anonymous true\n{user}persistence true\n"
        f"persistence_location {folder}/\nautosave_interval 1\nmax_queued_messages 20000\n"
        "max_inflight_messages 64\nlog_type error\n"
    )
    program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        raise Unsettled("no mosquitto on the PATH")
    async with Door(broker_port, Faults(), chance) as door:
        own = [sys.executable, "-m", "_coordinator.lives"]
        at = [str(folder), str(door.port)]
        coordinator = _Process(
            [*own, "coordinator", *at, str(ROUNDS), str(DEVICES)], folder / "coordinator.log"
        )
        fleet = [
            _Process([*own, "devices", *at, *map(str, numbers)], folder / f"devices-{numbers[0]}.log")
            for numbers in PROCESSES
        ]
        broker = _Process([program, "-c", str(settings)], folder / "mosquitto.log")
        everybody = [broker, coordinator, *fleet]
        try:
            for process in everybody:
                await process.start()
            await asyncio.wait_for(_blows(chance, door, everybody, coordinator), PATIENCE_S)
            door.quiet = True
            await asyncio.wait_for(coordinator.said("finished"), PATIENCE_S)
            (folder / "goal").write_text(str(await _newest(coordinator)))
            await asyncio.gather(*(asyncio.wait_for(p.ended(), PATIENCE_S) for p in fleet))
        except TimeoutError as e:
            raise Unsettled(f"not settled within {PATIENCE_S:.0f} s; {coordinator.told}") from e
        finally:
            for process in everybody:
                await process.stop()
        kills = {f"kills of {name}": n for name, n in _kills(broker, coordinator, fleet).items()}
        again = {f"{kind} at the coordinator": coordinator.told[kind] for kind in ("duplicate", "rejected")}
        return Counter({**kills, "kills": sum(kills.values()), **door.counts, **again})


async def _blows(chance: random.Random, door: Door, everybody: list[_Process], coordinator: _Process) -> None:
    """Kill now this one, now that one, and start it again, until it is enough or the campaign is over."""
    await coordinator.said("opened")
    for _ in range(chance.randint(3, MOST_KILLS)):
        await asyncio.sleep(chance.uniform(0.02, 0.6))
        if coordinator.told["finished"]:
            return
        if chance.random() < 0.15:
            door.cut()
        victims = [p for p in everybody if chance.random() < 0.3] or [chance.choice(everybody)]
        for victim in victims:
            victim.kill()
        await asyncio.sleep(chance.uniform(0.0, 0.3))
        for victim in victims:
            await victim.start()


def _kills(broker: _Process, coordinator: _Process, fleet: list[_Process]) -> dict[str, int]:
    return {"broker": broker.kills, "coordinator": coordinator.kills, "devices": sum(p.kills for p in fleet)}


async def _newest(coordinator: _Process) -> int:
    # The version is saved before the round is told to be closed.
    versions = [int(line["version"]) for line in coordinator.lines if line["kind"] == "opened"]
    return max(versions, default=0) + 1


class _Process:
    """A program that can be killed and started again; what it tells is kept over its lives."""

    def __init__(self, command: list[str], log: Path) -> None:
        self._command, self._log = command, log
        self._running: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._news = asyncio.Condition()
        self.told: Counter[str] = Counter()
        self.lines: list[dict[str, Any]] = []
        self.kills = 0

    async def start(self) -> None:
        with self._log.open("ab") as log:
            self._running = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                cwd=Path(__file__).resolve().parents[1],
            )
        self._reader = asyncio.ensure_future(self._read(self._running))

    def kill(self) -> None:
        """kill -9, if it has not ended by itself."""
        if self._running is not None and self._running.returncode is None:
            self._running.send_signal(signal.SIGKILL)
            self.kills += 1

    async def ended(self) -> None:
        """Wait for its own end. Raises `Unsettled` for one that ended in an error."""
        assert self._running is not None
        if code := await self._running.wait():
            raise Unsettled(f"exit code {code}: {self._log.read_text()[-2000:]}")

    async def stop(self) -> None:
        if self._running is not None and self._running.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._running.terminate()
            try:
                await asyncio.wait_for(self._running.wait(), 5)
            except TimeoutError:
                self._running.kill()
                await self._running.wait()
        if self._reader is not None:
            await self._reader

    async def said(self, kind: str) -> None:
        """Wait until it has told this. Raises `Unsettled` if it ends by itself in an error."""
        async with self._news:
            await self._news.wait_for(lambda: self.told[kind] or self._failed())
        if not self.told[kind]:
            raise Unsettled(f"ended: {self._log.read_text()[-2000:]}")

    def _failed(self) -> bool:
        return self._running is not None and (self._running.returncode or 0) > 0

    async def _read(self, running: asyncio.subprocess.Process) -> None:
        assert running.stdout is not None
        async for text in running.stdout:
            with contextlib.suppress(json.JSONDecodeError):
                line = json.loads(text)
                self.lines.append(line)
                self.told[line["kind"]] += 1
            async with self._news:
                self._news.notify_all()
        await running.wait()
        async with self._news:
            self._news.notify_all()


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


# --- the oracle


def verify(folder: Path) -> Counter[str]:
    """Hold what is on the disks against what was archived, write by write. Raises `AssertionError`.

    * Every committed update is in exactly one version, and each version is the fold of exactly its updates.
    * Every device holds the newest version, bit for bit, and waits for no answer.
    * On every device: all changes made = committed updates (decoded) + residual.
    * Every device's page of the ledger counts its committed updates, their samples, and names the last.
    """
    store = SqliteStore(folder / "coordinator.db")
    committed = {
        key.removeprefix(COMMITTED): msgspec.msgpack.decode(store.get(key) or b"", type=Committed)
        for key in store.keys(COMMITTED)
    }
    versions = [first(np.zeros(SCHEMA.size, np.float32), SCHEMA, lambda w: None)]
    counted: list[str] = []
    keys = list(store.keys(f"{OWN}model/"))
    for number, key in enumerate(keys):
        record = msgspec.msgpack.decode(store.get(key) or b"", type=ModelRecord)
        assert record.version == number
        if number:
            taken = [_update_of(k, record, committed) for k in store.keys(f"{TAKEN}{number:08d}/")]
            counted += taken
            versions.append(_next(versions[-1], [committed[u] for u in taken], record))
        assert versions[number].digest == record.weights, f"version {number} is not the fold of its updates"
    assert len(counted) == len(set(counted)), "an update is in two versions"
    assert set(counted) == committed.keys(), "a committed update is in no version"
    for number in range(DEVICES):
        _verify_device(folder, number, committed, versions[-1], store)
    store.close()
    return Counter({"committed": len(committed), "versions": len(versions) - 1})


def _update_of(taken: str, record: ModelRecord, committed: dict[str, Committed]) -> str:
    """Which update a key of the archive stands for: a device has one in a round."""
    device = taken.rsplit("/", 1)[1]
    found = [c.update for c in committed.values() if c.device == device and c.round == record.round]
    assert len(found) == 1, f"{device} has {len(found)} committed updates in round {record.round}"
    return found[0]


def _next(before: Any, updates: list[Committed], record: ModelRecord) -> Any:
    fold = Fold(SCHEMA.size)
    for c in sorted(updates, key=lambda c: c.update, reverse=True):
        fold.add(whole(decode(c.frame, SCHEMA, limit_bytes=4 * SCHEMA.size)), c.weight)
    fold.add_silent(record.samples - fold.weight)
    return advance(
        before.weights,
        before.residual,
        fold.mean(),
        SCHEMA,
        codec=CODEC,
        seed=record.version,
        full=False,
        evaluate=lambda w: None,
    )


def _verify_device(
    folder: Path, number: int, committed: dict[str, Committed], newest: Any, ledger: SqliteStore
) -> None:
    name = f"d{number}"
    store = SqliteStore(folder / f"{name}.db")
    assert store.get("outbox") is None, f"{name} still waits for an answer"
    disk = restore(store, SCHEMA, bundle=BUNDLE, initial=np.zeros(SCHEMA.size, np.float32))
    assert not disk.damaged, f"{name}: {disk.damaged}"
    assert disk.held.weights.tobytes() == newest.weights.tobytes(), f"{name} does not hold the newest version"
    own = [c for c in committed.values() if c.device == name]
    changes = [np.frombuffer(store.get(k) or b"", np.float32) for k in store.keys(CHANGE)]
    made = np.sum(changes, axis=0, dtype=np.float64) if changes else np.zeros(SCHEMA.size)
    sent = [decode(c.frame, SCHEMA, limit_bytes=4 * SCHEMA.size) for c in own]
    total = np.sum(sent, axis=0, dtype=np.float64) if sent else np.zeros(SCHEMA.size)
    off = float(np.abs(total + disk.residual.values - made).max())
    assert off < 1e-4, f"{name}: changes and what was sent of them differ by {off}"
    store.close()
    record = msgspec.msgpack.decode(ledger.get(f"device/{name}") or b"", type=DeviceRecord)
    assert record.committed == len(own), f"{name}: {record.committed} in the ledger, {len(own)} committed"
    last = max(own, key=lambda c: c.round, default=None)
    assert record.last_update == (last.update if last else ""), f"{name}: last update"


def main() -> None:
    """The part alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the first run")
    options = parser.parse_args()
    print(json.dumps(measure(options.runs, options.seed), indent=2))


if __name__ == "__main__":
    main()
