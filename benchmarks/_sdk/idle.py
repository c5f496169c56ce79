"""What a device costs while there is nothing to do: memory, processor time, bytes, as the kernel has them."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from _result import Bar, at_most

from _sdk.gauge import Gauge
from _sdk.latency import MODELS
from _sdk.site import as_installed, broker, furnish, laconic, process, until

QUIET_S: Final = 200.0
SETTLE_S: Final = 75.0
"""After the round: longer than a device keeps what it trains with."""
RESIDENT_LIMIT_MB: Final = 70.0
CORE_LIMIT_PERCENT: Final = 0.1
BYTES_LIMIT_PER_HOUR: Final = 200.0
_MODEL: Final = "lenet"
"""For the bars; the memory of a larger one is above all copies of its weights."""

_STAGES: Final = ("numpy", "onnxruntime", "asyncio", "msgspec, zstandard, sqlite3", "laconic.edge_sdk")
_STAGE_CODE: Final = """
import sys, time
from importlib import import_module
def told(stage):
    rows = dict(line.split()[:2] for line in open("/proc/self/smaps_rollup") if line.endswith("kB\\n"))
    print(stage, rows["Rss:"], rows["Pss:"], time.process_time(), sep="|")
told("python")
for stage in sys.argv[1:]:
    for name in stage.split(", "):
        import_module(name)
    told(stage)
"""


def measure(quiet_s: float = QUIET_S) -> dict[str, Any]:
    """For each model: a device's process after a round, then for `quiet_s`; and what imports cost."""
    return {"imports": _imports(), **asyncio.run(_all(quiet_s))}


def bars(found: Mapping[str, Any]) -> list[Bar]:
    """Of the model `lenet`."""
    it = found[_MODEL]
    return [
        at_most("idle: resident, MB", it["resident_mb"], RESIDENT_LIMIT_MB),
        at_most("idle: share of a core, percent", it["core_percent"], CORE_LIMIT_PERCENT),
        at_most("idle: bytes an hour besides pings", it["bytes_per_hour"], BYTES_LIMIT_PER_HOUR),
    ]


async def _all(quiet_s: float) -> dict[str, Any]:
    # At once: neither has anything to do.
    found = await asyncio.gather(*(_measured(name, quiet_s, SETTLE_S) for name in MODELS))
    return dict(zip(MODELS, found, strict=True))


async def _measured(name: str, quiet_s: float, settle_s: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="laconic-idle-") as made:
        folder = Path(made)
        furnish(folder, name)
        log = folder / "d.log"
        async with broker(folder) as port, Gauge(port) as gauge:
            (folder / "c.toml").write_text(
                f'bundle = "model.bundle"\n[broker]\nurl = "mqtt://127.0.0.1:{port}"\n[rounds]\nrounds = 1\n'
            )
            (folder / "d.toml").write_text(
                'name = "d"\nbundle = "model.bundle"\ndata = "d.npz"\n'
                f'[broker]\nurl = "mqtt://127.0.0.1:{gauge.port}"\n'
            )
            coordinator = laconic("coordinator", "--config", folder / "c.toml")
            device = laconic("device", "--config", folder / "d.toml")
            async with process(device, log) as it:
                await until(lambda: " online" in log.read_text(), "the device to connect")
                await asyncio.sleep(1)
                before = _memory(it.pid)
                async with process(coordinator, folder / "c.log"):
                    await until(lambda: " committed" in log.read_text(), "a round")
                    await asyncio.sleep(1)
                    after_round = _memory(it.pid)
                    await asyncio.sleep(settle_s)
                    begin = _Moment(it.pid, gauge)
                    await asyncio.sleep(quiet_s)
                    end = _Moment(it.pid, gauge)
                    memory = _memory(it.pid)
                    lines = log.read_text().count("\n")
    seconds = end.at - begin.at
    return {
        "resident_mb": memory["Rss"],
        "pss_mb": memory["Pss"],
        "anonymous_mb": memory["Anonymous"],
        "most_mb": memory["VmHWM"],
        "connected_mb": before["Rss"],
        "after_round_mb": after_round["Rss"],
        "core_percent": round(100 * (end.cpu_s - begin.cpu_s) / seconds, 4),
        "wakeups_per_s": round((end.switches - begin.switches) / seconds, 3),
        "threads": memory["threads"],
        "bytes_per_hour": round((end.bytes - begin.bytes) * 3600 / seconds, 1),
        "ping_bytes_per_hour": round((end.ping_bytes - begin.ping_bytes) * 3600 / seconds, 1),
        "quiet_s": round(seconds, 1),
        "lines_of_log": lines,
    }


class _Moment:
    """Counters of a process and its connection, now."""

    def __init__(self, pid: int, gauge: Gauge) -> None:
        self.at = time.monotonic()
        # The clock of another process's processor time (clock_getcpuclockid(3) on Linux).
        self.cpu_s = time.clock_gettime((~pid << 3) | 2)
        self.ping_bytes = gauge.ping_bytes
        self.bytes = gauge.bytes() - gauge.ping_bytes
        switches = [p.read_text() for p in Path(f"/proc/{pid}/task").glob("*/status")]
        self.switches = sum(int(_field(s, "voluntary_ctxt_switches")) for s in switches)


def _memory(pid: int) -> dict[str, float]:
    """Megabytes of a process: resident, its share of what it has in common with others, its own, the most."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    status = Path(f"/proc/{pid}/status").read_text()
    found = {name: round(int(_field(rollup, name)) * 1024 / 1e6, 1) for name in ("Rss", "Pss", "Anonymous")}
    found["VmHWM"] = round(int(_field(status, "VmHWM")) * 1024 / 1e6, 1)
    found["threads"] = int(_field(status, "Threads"))
    return found


def _field(text: str, name: str) -> str:
    match = re.search(rf"^{name}:\s+(\d+)", text, re.MULTILINE)
    assert match is not None
    return match.group(1)


def _imports() -> list[dict[str, Any]]:
    """What each stage adds, in this order, in a process of its own."""
    command = [sys.executable, "-c", _STAGE_CODE, *_STAGES]
    for _ in range(2):
        # The second one finds the modules compiled.
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=as_installed())
    rows, before = [], (0.0, 0.0, 0.0)
    for line in done.stdout.splitlines():
        stage, rss, pss, cpu_s = line.split("|")
        now = int(rss) * 1024 / 1e6, int(pss) * 1024 / 1e6, float(cpu_s)
        mb, pss_mb, spent_s = (round(n - b, 3) for n, b in zip(now, before, strict=True))
        rows.append(
            {"stage": stage, "resident_mb": round(mb, 1), "pss_mb": round(pss_mb, 1), "cpu_s": spent_s}
        )
        before = now
    return rows


def main() -> None:
    """One model for a short time, to look at."""
    name, quiet_s, settle_s = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
    print(json.dumps([_imports(), asyncio.run(_measured(name, quiet_s, settle_s))], indent=1))


if __name__ == "__main__":
    main()
