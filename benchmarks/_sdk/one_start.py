"""`FOLDER PORT`: one start of a device, in a process that has loaded nothing before."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from itertools import pairwise
from pathlib import Path


class Marks:
    """Seconds of each part, by the clock; and in all how long this thread has worked, and has waited for a
    processor that others had (Linux, Documentation/scheduler/sched-stats.rst)."""

    def __init__(self) -> None:
        self._times = [("", time.perf_counter())]
        self._worked, self._waited = _schedule()

    def mark(self, part: str) -> None:
        self._times.append((part, time.perf_counter()))

    def told(self) -> dict[str, float]:
        worked, waited = _schedule()
        parts = {f"{name}_s": at - before for (_, before), (name, at) in pairwise(self._times)}
        wall_s = self._times[-1][1] - self._times[0][1]
        work_s, wait_s = worked - self._worked, waited - self._waited
        return {"wall_s": wall_s, "alone_s": wall_s - wait_s, "work_s": work_s, **parts}


def _schedule() -> tuple[float, float]:
    worked, waited, _ = Path(f"/proc/self/task/{os.getpid()}/schedstat").read_text().split()
    return int(worked) / 1e9, int(waited) / 1e9


def main() -> None:
    """One start; the times go to standard output."""
    folder, port = Path(sys.argv[1]), int(sys.argv[2])
    began = Marks()
    from laconic.edge_sdk import Device

    began.mark("imports")
    from laconic.runtime import Bundle, Trainer
    from laconic.transport.mqtt import Address

    # What follows is imported by the device itself.
    bundle = Bundle.read((folder / "model.bundle").read_bytes())
    trainer = Trainer(bundle)
    began.mark("bundle")
    connected = asyncio.Event()
    tls = folder.name == "tls"
    device = Device(
        "d",
        broker=Address("127.0.0.1", port, tls=tls, ca_file=folder / "cert.pem" if tls else None),
        bundle=trainer,
        data=folder / "d.npz",
        store=folder / "d.db",
        on_note=lambda note, now: connected.set() if note.kind == "online" else None,
    )
    began.mark("device")

    async def run() -> None:
        async with device:
            began.mark("store")
            await connected.wait()
            began.mark("connection")
            print(json.dumps(began.told()), flush=True)

    asyncio.run(run())


if __name__ == "__main__":
    main()
