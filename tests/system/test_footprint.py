"""What a device process costs: what it imports, and the memory it holds after training."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from processes import Process, free_port, laconic, mosquitto, until, wait_for_port

from laconic.demo.data import split_digits
from laconic.training import prepare
from laconic.training.models import digits_cnn

FOREIGN = ("onnx", "sklearn", "amqtt", "matplotlib", "rich", "scipy", "torch")
LATER = ("onnxruntime", "numba", "importlib.metadata")
RESIDENT_LIMIT_BYTES = 150e6


def test_a_device_imports_nothing_but_the_base_install() -> None:
    code = (
        "import sys, laconic.edge_sdk.daemon, laconic.edge_sdk, laconic.cli\n"
        f"print([m for m in {FOREIGN} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_device_that_has_not_been_asked_to_work_holds_no_runtime() -> None:
    code = (
        "import sys, laconic.edge_sdk.daemon, laconic.edge_sdk\n"
        "from laconic.runtime import Bundle, Trainer\n"
        f"print([m for m in {LATER} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_coordinator_imports_no_builder_of_graphs() -> None:
    code = "import sys, laconic.coordinator.daemon\nprint('onnx' in sys.modules, 'sklearn' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False False"


@pytest.mark.broker
def test_resident_memory_after_training(tmp_path: Path, mosquitto_path: str) -> None:
    port = free_port()
    split = split_digits(1, skew=0.9, seed=0)
    (tmp_path / "model.bundle").write_bytes(prepare(digits_cnn(0)))
    split.devices[0].save(tmp_path / "d.npz")
    broker_section = f'[broker]\nurl = "mqtt://127.0.0.1:{port}"\n'
    (tmp_path / "c.toml").write_text(
        f'bundle = "model.bundle"\n{broker_section}[rounds]\nrounds = 5\nexit_when_finished = true\n'
    )
    (tmp_path / "d.toml").write_text(f'name = "d"\nbundle = "model.bundle"\ndata = "d.npz"\n{broker_section}')
    broker = mosquitto(mosquitto_path, tmp_path, port)
    device = Process(laconic("device", "--json", "--config", str(tmp_path / "d.toml")), tmp_path / "d.log")
    coordinator = Process(
        laconic("coordinator", "--json", "--config", str(tmp_path / "c.toml")), tmp_path / "c.log"
    )
    broker.start()
    wait_for_port(port)
    try:
        device.start()
        coordinator.start()
        until(lambda: len(device.notes("committed")) == 5, 60, "five commits")
        resident = psutil.Process(device.pid).memory_info().rss
    finally:
        for process in (device, coordinator, broker):
            process.end()
    assert resident < RESIDENT_LIMIT_BYTES
