"""72 hours on a device that loses its power every 20 minutes: 216 losses, each in the middle of something.

Time is scaled: a life lasts about two seconds, not twenty minutes, and in it the device does what it would
do in those: connects, trains, sends, is told, fetches. A real coordinator, a real broker; the device's disk
keeps what was synced and of the rest whatever a seed has (`_sdk.disk`). After each loss an oracle looks at a
copy of the disk, with none of the engine's bookkeeping.
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from _coordinator.lives import BUNDLE, CHANGE, COMMITTED, SCHEMA
from _result import Bar, at_least, at_most

from _sdk.disk import PowerDisk
from _sdk.gauge import Gauge
from _sdk.power_life import NAME, SENT, SETTLED
from laconic.compression import decode
from laconic.coordinator.campaign import Committed
from laconic.edge_sdk.purse import with_lost_bookings
from laconic.edge_sdk.records import Diary, restore
from laconic.edge_sdk.salvage import open_store
from laconic.storage import SqliteStore

HOURS, EVERY_MINUTES = 72, 20
LOSSES: Final = HOURS * 60 // EVERY_MINUTES
WRITE: Final = "write"
MOMENTS: Final = ("online", "model", "training", "sending", "committed", "", WRITE, WRITE, WRITE)
"""What the power is lost after, by the device's own word; "" is any time at all, "write" amid a write,
as far as another process can hit it."""
LATER_S: Final = {"": 2.0, "training": 0.2, WRITE: 0.01}
"""How long after, at most; 50 ms for the others."""
SYNC_S: Final = 0.01
"""What a memory card takes to have something for certain: so that a loss can find it unfinished."""
PATIENCE_S: Final = 30.0
_OFF: Final = 1e-3
"""Between what was learnt and what is accounted for: float32 sums are rounded; a lost update is off by .1."""
_MOST_OVER_BYTES: Final = 10_000
"""What a loss may count too much: the 3,200 bytes that are always booked, and an update and a model of this
benchmark by the estimates of `laconic.budget.costs`."""


class Unsettled(Exception):
    """A life that did not do what every life does."""


def measure(losses: int = LOSSES, seed: int = 0) -> dict[str, Any]:
    """So many losses of power in a row on one device, and what was found on its disk after each."""
    folder = Path(tempfile.mkdtemp(prefix="laconic-power-run-"))
    began = time.monotonic()
    try:
        run = asyncio.run(_lives(folder, losses, random.Random(seed)))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {
        "losses": losses,
        "simulated_hours": losses * EVERY_MINUTES / 60,
        "seconds": round(time.monotonic() - began, 1),
        "moments": dict(sorted(run.moments.items())),
        "fates": dict(sorted(run.fates.items())),
        "writes_undone": run.undone,
        "committed": run.committed,
        "settled": run.settled,
        "socket_bytes": run.socket_bytes,
        "accounted_bytes": run.accounted_bytes,
        "most_bytes_over_in_a_life": run.most_over,
        "wrong": run.wrong,
    }


def bars(found: dict[str, Any]) -> list[Bar]:
    """Nothing damaged, lost, counted twice or unpaid for, in as many losses as were asked for."""
    wrong: list[str] = [w["what"] for w in found["wrong"]]
    undone = round(found["writes_undone"] / found["losses"], 2)
    most_over = found["most_bytes_over_in_a_life"]
    return [
        at_most("power: stores damaged", wrong.count("damaged"), 0),
        at_most("power: commits lost or counted twice", wrong.count("commits"), 0),
        at_most("power: learnt and not accounted for", wrong.count("learnt"), 0),
        at_most("power: losses after which bytes were unaccounted for", wrong.count("bytes"), 0),
        at_most("power: bytes that one loss counts too much", most_over, _MOST_OVER_BYTES),
        at_least("power: committed updates a loss", round(found["committed"] / found["losses"], 2), 0.5),
        at_least("power: losses that undid a write, share", undone, 0.1),
    ]


@dataclass
class _Run:
    moments: Counter[str] = field(default_factory=Counter)
    fates: Counter[str] = field(default_factory=Counter)
    undone: int = 0
    committed: int = 0
    settled: int = 0
    socket_bytes: int = 0
    accounted_bytes: int = 0
    most_over: int = 0
    wrong: list[dict[str, Any]] = field(default_factory=list)


async def _lives(folder: Path, losses: int, chance: random.Random) -> _Run:
    run, port = _Run(), _free_port()
    disk_folder, goal = folder / "disk", folder / "goal"
    disk_folder.mkdir()
    disk = PowerDisk(disk_folder, folder / "power.log", sync_s=SYNC_S)
    settings = folder / "mosquitto.conf"
    user = "user root\n" if os.geteuid() == 0 else ""
    settings.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n{user}log_type error\n")
    program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        raise Unsettled("no mosquitto on the PATH")
    broker = await _start([program, "-c", str(settings)], folder / "mosquitto.log")
    await _listens(port)
    lives = [
        sys.executable,
        "-m",
        "_coordinator.lives",
        "coordinator",
        str(folder),
        str(port),
        "1000000",
        "1",
    ]
    coordinator = await _start(lives, folder / "coordinator.log")
    try:
        async with Gauge(port) as gauge:
            over = 0
            for number in range(losses):
                moment = chance.choice(MOMENTS)
                device = await _device(disk, gauge.port, goal, folder, limited=number % 2 == 0)
                await _wait_for(device, moment, disk.log, chance)
                run.moments[moment or "any time"] += 1
                device.send_signal(signal.SIGKILL)
                await device.wait()
                run.undone += disk.unsynced() > 0
                run.fates[disk.lose_power(chance)] += 1
                await asyncio.sleep(0.02)
                found = _examine(disk.folder, folder / "copy", gauge.bytes(), over, run, number)
                run.most_over, over = max(run.most_over, found - over), found
                if (number + 1) % 10 == 0:
                    print(f"bench: power: {number + 1} of {losses}, {len(run.wrong)} wrong", file=sys.stderr)
            goal.touch()
            device = await _device(disk, gauge.port, goal, folder, limited=True)
            async with asyncio.timeout(PATIENCE_S):
                assert device.stdout is not None
                await device.stdout.read()
                if await device.wait():
                    raise Unsettled((folder / "device.log").read_text()[-2000:])
            await asyncio.sleep(0.05)
            _examine(disk.folder, folder / "copy", gauge.bytes(), over, run, losses)
    finally:
        for process in (coordinator, broker):
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()
    _compare(disk.folder, folder / "coordinator.db", run)
    return run


async def _start(command: list[str], log: Path, **environment: str) -> asyncio.subprocess.Process:
    with log.open("ab") as told:
        return await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE if environment else asyncio.subprocess.DEVNULL,
            stderr=told,
            env={**os.environ, **environment},
            cwd=Path(__file__).resolve().parents[1],
        )


async def _device(
    disk: PowerDisk, port: int, goal: Path, folder: Path, *, limited: bool
) -> asyncio.subprocess.Process:
    command = [sys.executable, "-m", "_sdk.power_life", str(disk.folder), str(port), str(goal)]
    command.append("limited" if limited else "free")
    return await _start(command, folder / "device.log", **disk.environment)


async def _wait_for(
    device: asyncio.subprocess.Process, moment: str, log: Path, chance: random.Random
) -> None:
    """Until the device says that it has come to `moment`, and a little longer."""
    assert device.stdout is not None
    if moment == WRITE:
        await _wait_for(device, "online", log, chance)
        for _ in range(chance.randint(1, 12)):
            await _grows(log)
        await asyncio.sleep(chance.uniform(0, LATER_S[WRITE]))
        return
    # Not always the first time: later ones find other things written.
    times = chance.randint(1, 3) if moment else 0
    deadline = time.monotonic() + PATIENCE_S
    while times:
        line = await asyncio.wait_for(device.stdout.readline(), deadline - time.monotonic())
        if not line:
            raise Unsettled("the device has ended by itself: see its log")
        times -= line.startswith(b"{") and json.loads(line)["kind"] == moment
        # Word that never comes (a model that is not news) is not waited for for long.
        if time.monotonic() > deadline - PATIENCE_S + 4:
            break
    await asyncio.sleep(chance.uniform(0, LATER_S.get(moment, 0.05)))


async def _grows(log: Path) -> None:
    """Until something has been written, or the device has had its time."""
    size, deadline = log.stat().st_size, time.monotonic() + 2
    while log.stat().st_size == size and time.monotonic() < deadline:
        await asyncio.sleep(0)


def _examine(folder: Path, copy: Path, spent_bytes: int, over: int, run: _Run, number: int) -> int:
    """Hold a copy of the disk against what must be on it; how much more is accounted for than was spent.

    `over`: how much it was before this life, whose own bytes must all be accounted for.
    """
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    store, note = open_store(copy / f"{NAME}.db")

    def found(what: str, how: str) -> None:
        run.wrong.append({"loss": number, "what": what, "how": how})
        print(f"bench: power: loss {number}: {what}: {how}", file=sys.stderr)

    disk = restore(store, SCHEMA, bundle=BUNDLE, initial=np.zeros(SCHEMA.size, np.float32))
    if note is not None or (disk.damaged and not disk.foreign):
        found("damaged", f"{note} {disk.damaged}")
    changes = [np.frombuffer(store.get(k) or b"", np.float32) for k in store.keys(CHANGE)]
    made = np.sum(changes, axis=0, dtype=np.float64) if changes else np.zeros(SCHEMA.size)
    said = [store.get(SENT + update) or b"" for update in _settled(store)]
    taken = np.sum([decode(f, SCHEMA, limit_bytes=4 * SCHEMA.size) for f in said], axis=0, dtype=np.float64)
    off = float(np.abs(taken + disk.residual.values - made).max())
    if off > _OFF:
        found("learnt", f"changes differ by {off} from the residual and what was committed of them")
    diary = with_lost_bookings(disk.diary, disk.booked, time.time(), "")
    accounted = _accounted(diary)
    if accounted - spent_bytes < over:
        found("bytes", f"{over - accounted + spent_bytes} of this life are not accounted for")
    run.socket_bytes, run.accounted_bytes = spent_bytes, accounted
    store.close()
    return accounted - spent_bytes


def _accounted(diary: Diary) -> int:
    return diary.bytes_up + diary.bytes_down + diary.lost_bytes


def _settled(store: SqliteStore) -> list[str]:
    return [(store.get(k) or b"").decode() for k in store.keys(SETTLED)]


def _compare(folder: Path, ledger: Path, run: _Run) -> None:
    """Every update that the coordinator has committed is settled on the device, once."""
    store, archive = SqliteStore(folder / f"{NAME}.db"), SqliteStore(ledger)
    settled = _settled(store)
    committed = [
        msgspec.msgpack.decode(archive.get(k) or b"", type=Committed) for k in archive.keys(COMMITTED)
    ]
    run.committed, run.settled = len(committed), len(settled)
    if sorted(c.update for c in committed) != sorted(settled):
        run.wrong.append({"what": "commits", "how": f"{len(committed)} committed, {len(settled)} settled"})
    if any(store.get(SENT + c.update) != c.frame for c in committed):
        run.wrong.append({"what": "commits", "how": "a frame is another than was sent"})
    store.close()
    archive.close()


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


async def _listens(port: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with contextlib.suppress(OSError):
                (await asyncio.open_connection("127.0.0.1", port))[1].close()
                return
            await asyncio.sleep(0.02)


def main() -> None:
    """The part alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--losses", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(json.dumps(measure(options.losses, options.seed), indent=2))


if __name__ == "__main__":
    main()
