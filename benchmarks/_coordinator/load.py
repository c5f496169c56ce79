"""Load: thousands of devices over real MQTT connections send their updates to one coordinator at once.

A mosquitto, a swarm (`_coordinator.swarm`), and at its other end first a bare subscriber that only counts
messages, then `laconic coordinator` itself. The model has 1,000,000 parameters, an update about 10 KB.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np
import paho.mqtt.client as paho
from _result import Bar, at_least, at_most
from onnx import TensorProto, helper, numpy_helper
from paho.mqtt.enums import CallbackAPIVersion

from _coordinator.swarm import Sent, Swarm
from laconic.compression import PRESETS, encode
from laconic.errors import TransportError
from laconic.runtime import Bundle
from laconic.schema import Schema
from laconic.training import prepare
from laconic.training.assemble import IR_VERSION, OPSET

DEVICES, FEW = 10_000, 1_000
PARAMETERS = 1_000_000
CODEC = replace(PRESETS["fast"], density=0.0065)
"""The preset made for speed, with so many values that a frame takes about 10 KB."""
FRAMES = 64
"""Different updates; devices share them, which nothing on the way knows."""
NATIVE = find_spec("numba") is not None
"""Whether the coordinator has the extra `native`, as a server of thousands should."""
RATE = 1_000.0
"""Updates a second, where the time of an answer is measured."""
NOTHING = "0" * 16

_SETTINGS = """
persistence true
persistence_location {folder}/
autosave_interval 1800
max_packet_size 262144
max_queued_messages 60000
max_queued_bytes 1073741824
max_inflight_messages 1000
set_tcp_nodelay true
allow_anonymous true
log_type error
"""


def measure(devices: int = DEVICES, few: int = FEW) -> dict[str, Any]:
    """The rates, the memory with many devices and with few, and the time of an answer at a steady rate."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        bundle = Bundle.read(_bundle(path))
        frames = _frames(bundle.schema)
        bare = _bare(path / "bare", devices, frames)
        full = _full(path, "full", devices, frames)
        plain = _full(path, "plain", devices, frames, native=False)
        small = _full(path, "few", few, frames, native=False)
        steady = _full(path, "steady", devices, frames, rate=RATE)
    return {
        "devices": devices,
        "parameters": bundle.schema.size,
        "frame_bytes": round(statistics.mean(map(len, frames))),
        "bare_updates_per_s": round(bare, 1),
        "updates_per_s": full["updates_per_s"],
        "share_of_bare": round(full["updates_per_s"] / bare, 3),
        "native": NATIVE,
        "rates": {"full": full, "plain": plain, "few": small, "steady": steady},
    }


def bars(found: dict[str, Any]) -> list[Bar]:
    """Half the rate of a bare subscriber; 300 MB, for any number of devices; answers within half a second."""
    runs = found["rates"]
    # Of the base install: compiled loops have a price of their own, which does not depend on the fleet.
    full, few = runs["plain"]["memory_mb"], runs["few"]["memory_mb"]
    return [
        at_least("load: rate against a bare subscriber", found["share_of_bare"], 0.5),
        at_most("load: memory without compiled loops, MB", full, 300),
        at_most(f"load: memory, MB more than with {runs['few']['devices']} devices", full - few, 60),
        at_most(f"load: median answer at {RATE:.0f} updates/s, s", runs["steady"]["median_answer_s"], 0.5),
        at_most("load: updates not committed", sum(r["lost"] for r in runs.values()), 0),
    ]


# --- the bare subscriber


def _bare(folder: Path, devices: int, frames: list[bytes]) -> float:
    """Updates a second that a subscriber reaches that only counts their messages."""
    context = get_context("spawn")
    with _broker(folder) as port:
        ready, done, at = context.Event(), context.Event(), context.Value("d", 0.0)
        counter = context.Process(target=_count, args=(port, devices, ready, done, at), daemon=True)
        counter.start()
        try:
            if not ready.wait(30):
                raise TransportError("the bare subscriber", value="not connected within 30 s")
            swarm = Swarm(port, devices)
            swarm.connect()
            sent = swarm.send(frames, NOTHING, NOTHING, answered=False, over=done.is_set)
            swarm.close()
            if not done.is_set():
                raise TransportError("the bare subscriber", value="not all messages within 200 s")
            return devices / (float(at.value) - sent.first_at)
        finally:
            counter.kill()
            counter.join()


def _count(port: int, messages: int, ready: Event, done: Event, at: Any) -> None:
    """Count the messages of updates; births do not count. `at`: when the last was here."""
    left = messages

    def message(client: paho.Client, userdata: object, found: paho.MQTTMessage) -> None:
        nonlocal left
        left -= 1
        if not left:
            at.value = time.monotonic()
            done.set()

    client = paho.Client(CallbackAPIVersion.VERSION2, client_id="bare", clean_session=False)
    client.on_connect = lambda c, *_: c.subscribe("laconic/v1/d/+/up/u/#", 1)
    client.on_subscribe = lambda *_: ready.set()
    client.on_message = message
    client.connect("127.0.0.1", port)
    client.loop_forever()


# --- the coordinator


def _full(
    folder: Path,
    name: str,
    devices: int,
    frames: list[bytes],
    rate: float | None = None,
    *,
    native: bool = NATIVE,
) -> dict[str, Any]:
    """One round with `laconic coordinator`: every device sends one update and is told `committed`."""
    home = folder / name
    with _broker(home) as port, _coordinator(folder, home, port, devices, native=native) as pid:
        swarm = Swarm(port, devices)
        swarm.connect()
        offer = swarm.wait_for_offer()
        used = _processor_s(pid)
        sent = swarm.send(frames, offer.task, offer.model, rate=rate)
        used = _processor_s(pid) - used
        memory = _memory_mb(pid)
        swarm.close()
    return _said(sent, devices, used, memory)


def _said(sent: Sent, devices: int, processor_s: float, memory_mb: float) -> dict[str, Any]:
    quantiles = statistics.quantiles(sent.answer_s, n=100)
    return {
        "devices": devices,
        "updates_per_s": round(devices / sent.seconds, 1),
        "seconds": round(sent.seconds, 2),
        "median_answer_s": round(quantiles[49], 4),
        "slowest_of_100_s": round(quantiles[98], 4),
        "lost": devices - len(sent.answer_s) + sent.rejected,
        "repeated": sent.repeated,
        "processor_s": round(processor_s, 2),
        "processor_ms_an_update": round(1000 * processor_s / devices, 3),
        "memory_mb": round(memory_mb, 1),
    }


@contextmanager
def _coordinator(folder: Path, home: Path, port: int, devices: int, *, native: bool) -> Iterator[int]:
    """A coordinator whose only round waits for every device."""
    config = home / "coordinator.toml"
    config.write_text(
        f'bundle = "{folder}/model.bundle"\nstore = "coordinator.db"\n'
        f'[broker]\nurl = "mqtt://127.0.0.1:{port}"\n'
        f"[rounds]\nrounds = 1\nmin_devices = {devices}\nmin_reports = {devices}\ndeadline_s = 600\n"
    )
    log = (home / "coordinator.log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", "laconic.cli", "coordinator", "--json", "--config", str(config)],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "LACONIC_NATIVE": str(int(native))},
    )
    try:
        deadline = time.monotonic() + 60
        while b'"kind": "online"' not in (home / "coordinator.log").read_bytes():
            if process.poll() is not None or time.monotonic() > deadline:
                raise TransportError("the coordinator", value=(home / "coordinator.log").read_text()[-2000:])
            time.sleep(0.05)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.close()


def _memory_mb(pid: int) -> float:
    """The most that a process has had in memory, MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return 0.0


def _processor_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# --- broker and model


@contextmanager
def _broker(folder: Path) -> Iterator[int]:
    """A mosquitto that allows as many sockets as this process may have."""
    program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        raise TransportError("mosquitto", value="not on the PATH", remedy="apt-get install mosquitto")
    folder.mkdir()
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = int(s.getsockname()[1])
    config = folder / "mosquitto.conf"
    user = "user root\n" if os.geteuid() == 0 else ""
    config.write_text(f"listener {port} 127.0.0.1\n{user}" + _SETTINGS.format(folder=folder))
    process = subprocess.Popen([program, "-c", str(config)], stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while True:
            with socket.socket() as s:
                if s.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if time.monotonic() > deadline:
                raise TransportError("mosquitto", value="does not listen")
            time.sleep(0.02)
        yield port
    finally:
        process.kill()
        process.wait()


def _bundle(folder: Path) -> bytes:
    """Two layers without biases, 1,000,000 parameters."""
    rng = np.random.default_rng(0)
    hidden, inputs, outputs = 10_000, 90, 10
    weights = {
        "hidden.weight": rng.standard_normal((inputs, hidden)).astype(np.float32) / 10,
        "out.weight": rng.standard_normal((hidden, outputs)).astype(np.float32) / 100,
    }
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "hidden.weight"], ["h"]),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("MatMul", ["r", "out.weight"], ["logits"]),
        ],
        "wide",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("batch", inputs))],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ("batch", outputs))],
        initializer=[numpy_helper.from_array(w, n) for n, w in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    made = prepare(model.SerializeToString())
    (folder / "model.bundle").write_bytes(made)
    return made


def _frames(schema: Schema) -> list[bytes]:
    """Updates as large as the tenth of a step of training, distributed like one (Laplace)."""
    rng = np.random.default_rng(1)
    return [
        encode(rng.laplace(scale=0.001, size=schema.size).astype(np.float32), schema, CODEC, rng).frame
        for _ in range(FRAMES)
    ]


def main() -> None:
    """The part alone."""
    print(json.dumps(measure(*map(int, sys.argv[1:])), indent=2))


if __name__ == "__main__":
    main()
