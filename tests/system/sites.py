"""A site of one's own for system tests: a folder, a real mosquitto, and a fleet's processes around it."""

from __future__ import annotations

import contextlib
import getpass
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from processes import Process, free_port, laconic, wait_for_port

from laconic.cli import main
from laconic.training import prepare
from laconic.training.builder import value_info

CLASSES = 3


def softmax_bundle(features: int) -> bytes:
    """Softmax regression over `features`, prepared for training."""
    rng = np.random.default_rng(features)
    weights = {
        "W": rng.normal(size=(features, CLASSES)).astype(np.float32),
        "b": np.zeros(CLASSES, np.float32),
    }
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "W", "b"], ["y"])],
        "small",
        [value_info("x", 1, ("batch", features))],
        [value_info("y", 1, ("batch", CLASSES))],
        initializer=[numpy_helper.from_array(a, n) for n, a in weights.items()],
    )
    opsets = [helper.make_opsetid("", 18)]
    return prepare(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


@dataclass
class Site:
    """A folder, a broker, and whatever runs there."""

    folder: Path
    mosquitto: str
    port: int = field(default_factory=free_port)
    running: list[Process] = field(default_factory=list)

    def broker(self, options: str = "allow_anonymous true\n") -> Process:
        """Start mosquitto, and wait until it listens."""
        (self.folder / "mosquitto.conf").write_text(
            f"listener {self.port} 127.0.0.1\npersistence false\nuser {getpass.getuser()}\n{options}"
        )
        process = self.start([self.mosquitto, "-c", str(self.folder / "mosquitto.conf")], "broker")
        wait_for_port(self.port)
        return process

    def start(self, command: list[str], name: str) -> Process:
        """Start a program that ends with the test."""
        process = Process(command, self.folder / f"{name}.log")
        process.start()
        self.running.append(process)
        return process

    def coordinator(self) -> Process:
        """Start a coordinator with the site's configuration."""
        return self.start(laconic("coordinator", "--json", "--config", str(self.config)), "coordinator")

    def device(self, cohort: str, name: str, x: NDArray[np.float32], y: NDArray[np.int64]) -> list[str]:
        """A device's data and configuration; the arguments that start it."""
        np.savez(self.folder / f"{name}.npz", x=x, y=y)
        (self.folder / f"{name}.toml").write_text(
            f'name = "{name}"\ncohort = "{cohort}"\nbundle = "{cohort}.bundle"\ndata = "{name}.npz"\n'
            f'retry_s = 0.5\n[broker]\nurl = "mqtt://127.0.0.1:{self.port}"\n'
        )
        return ["--config", str(self.folder / f"{name}.toml")]

    def devices(self, name: str, arguments: Sequence[str]) -> Process:
        """Start devices, all in one process."""
        return self.start(laconic("device", "--json", *arguments), name)

    @property
    def config(self) -> Path:
        """The coordinator's configuration file."""
        return self.folder / "coordinator.toml"

    def write(self, text: str, *, broker: str = "") -> None:
        """Write the coordinator's configuration; `broker` goes into its section."""
        self.config.write_text(f'{text}\n[broker]\nurl = "mqtt://127.0.0.1:{self.port}"\n{broker}')

    def laconic(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        """A command's exit code and JSON. In this process: starting a Python for each takes long."""
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            code = main([*arguments, "--config", str(self.config), "--json"])
        return code, json.loads(said.getvalue())
