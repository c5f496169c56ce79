"""The demonstration as a person or a program runs it: real processes, a real broker."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import paho.mqtt.client as paho
import psutil
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from laconic.demo.broker import free_port
from laconic.demo.data import split_digits
from laconic.errors import ConfigError

PROMISED = {
    "accuracy",
    "accuracy_fedavg",
    "accuracy_alone",
    "accuracy_pooled",
    "bytes",
    "bytes_fedavg",
    "ratio",
    "joules",
    "seconds",
    "rounds",
    "devices",
}


def demo(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "laconic.cli", "demo", *arguments]


def test_a_device_has_mostly_one_class_and_shares_no_sample() -> None:
    split = split_digits(10, skew=0.9, seed=0)
    parts = [*split.devices, split.held_out]
    seen = [image.tobytes() for part in parts for image in part.x]
    whole = [image.tobytes() for image in split_digits(1, skew=1.0, seed=0).held_out.x]
    assert len(seen) > 1700
    # The data itself holds a few images twice; no more than those are shared.
    assert len(seen) - len(set(seen)) <= 5
    assert set(whole) == {image.tobytes() for image in split.held_out.x}
    # The other tenth is drawn from all classes, its own among them.
    for number, part in enumerate(split.devices):
        assert np.mean(part.y == number) == pytest.approx(0.91, abs=0.02)
        assert part.x.dtype == np.float32
        assert 0.0 <= part.x.min() <= part.x.max() <= 1.0


@pytest.mark.parametrize("devices", [1, 7, 10, 33, 120])
def test_every_device_has_data(devices: int) -> None:
    assert all(len(part.y) >= 9 for part in split_digits(devices, skew=0.9, seed=1).devices)


@pytest.mark.parametrize("devices", [0, 121])
def test_a_count_of_devices_without_data_is_refused(devices: int) -> None:
    with pytest.raises(ConfigError, match="--devices"):
        split_digits(devices, skew=0.9, seed=0)


def test_embedded_broker_and_json(tmp_path: Path) -> None:
    """Recorded: a variable that overrides a coordinator's settings changed the rounds unseen; in a folder of
    a long path the coordinator ended at once, since no control socket can lie there."""
    output = tmp_path / ("deep" * 25)
    done = subprocess.run(
        demo("--broker", "embedded", "--devices", "3", "--rounds", "2", "--json", "--output", str(output)),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "LACONIC_ROUNDS_ROUNDS": "3", "LACONIC_DEVICE_NAME": "other"},
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result.keys() >= PROMISED
    assert result["broker"] == "embedded"
    assert (result["rounds"], result["devices"]) == (2, 3)
    assert 1 < result["bytes_fedavg"]["up"] / (2 * 3 * 4 * result["parameters"]) < 1.4
    assert result["ratio"] > 10
    for run in (result["laconic"], result["fedavg"]):
        assert [p["round"] for p in run["points"]] == [0, 1, 2]
        assert sum(d["bytes_up"] for d in run["devices"]) == run["points"][-1]["bytes_up"]
    assert json.loads((output / "result.json").read_text()) == result
    assert sorted(p.name for p in output.iterdir()) == ["report.html", "report.png", "result.json"]


@pytest.mark.broker
def test_a_broker_of_ones_own_is_left_as_it_was(tmp_path: Path, mosquitto_path: str) -> None:
    port = free_port()
    config = tmp_path / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n")
    with subprocess.Popen([mosquitto_path, "-c", str(config)], stderr=subprocess.DEVNULL) as broker:
        try:
            url = f"mqtt://127.0.0.1:{port}"
            output = str(tmp_path / "out")
            # More than 16 devices: several to a process.
            done = subprocess.run(
                demo("--broker", url, "--devices", "17", "--rounds", "1", "--json", "--output", output),
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            assert json.loads(done.stdout)["broker"] == "yours"
            assert _retained(port) == []
        finally:
            broker.terminate()


def _retained(port: int) -> list[str]:
    """Every retained topic: all of them come before what is published after the subscription."""
    found: list[str] = []
    end = threading.Event()
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.on_connect = lambda c, *_: c.subscribe("#", 1)
    client.on_subscribe = lambda c, *_: c.publish("end", b"x", qos=1)

    def on_message(c: object, u: object, message: paho.MQTTMessage) -> None:
        if message.topic == "end":
            end.set()
        else:
            found.append(message.topic)

    client.on_message = on_message
    client.connect("127.0.0.1", port)
    client.loop_start()
    assert end.wait(10)
    client.disconnect()
    client.loop_stop()
    return found


def _until(moment: str, output: Path) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    """A demonstration that has just said `moment`, and its child processes."""
    process = subprocess.Popen(
        demo("--devices", "3", "--rounds", "3", "--output", str(output)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    for line in process.stdout:
        if moment in line:
            return process, psutil.Process(process.pid).children(recursive=True)
    pytest.fail(f"{moment!r} was never said")


@pytest.mark.parametrize(
    ("number", "moment"),
    [
        (signal.SIGTERM, "broker:"),
        (signal.SIGINT, "laconic round   1"),
        pytest.param(signal.SIGINT, "broker:", marks=pytest.mark.soak),
        pytest.param(signal.SIGTERM, "laconic round   1", marks=pytest.mark.soak),
        pytest.param(signal.SIGINT, "fedavg round   1", marks=pytest.mark.soak),
        pytest.param(signal.SIGTERM, "fedavg round   1", marks=pytest.mark.soak),
    ],
)
def test_interrupted_at_any_time_it_leaves_no_process(
    tmp_path: Path, moment: str, number: signal.Signals
) -> None:
    process, family = _until(moment, tmp_path)
    process.send_signal(number)
    assert process.stdout is not None
    rest = process.stdout.read()
    assert process.wait(30) == 130, rest
    assert "Traceback" not in rest
    _, alive = psutil.wait_procs(family, timeout=5)
    assert alive == []
    assert list(tmp_path.iterdir()) == []


def _over(process: psutil.Process) -> bool:
    """Ended, whether its parent has taken note or not."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no SIGSTOP on this system")
def test_two_signals_and_a_child_that_does_not_listen(tmp_path: Path) -> None:
    """Recorded: the second signal interrupted the wait for a stopped child, which was left behind."""
    process, family = _until("laconic round   1", tmp_path)
    stopped = next(p for p in family if "device" in p.cmdline())
    stopped.suspend()
    process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + 30
    while not any(map(_over, family)):
        assert time.monotonic() < deadline, "the first signal ends the others"
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None
    process.stdout.read()
    assert process.wait(30) == 130
    _, alive = psutil.wait_procs(family, timeout=5)
    assert alive == []


def test_what_listens_must_be_a_broker(tmp_path: Path) -> None:
    """Recorded: any server was taken for a broker, and the demonstration waited for it in vain."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        done = subprocess.run(
            demo("--broker", f"mqtt://127.0.0.1:{port}", "--output", str(tmp_path)),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 7
    assert "no answer in MQTT" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_broker_that_does_not_answer_is_named(tmp_path: Path) -> None:
    done = subprocess.run(
        demo("--broker", "mqtt://127.0.0.1:9", "--output", str(tmp_path)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 7
    assert "127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr
