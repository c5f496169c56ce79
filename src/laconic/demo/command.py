"""`laconic demo`: the main job, end to end, on real input."""

from __future__ import annotations

import json
import os
import platform
import shutil
import tempfile
import time
from pathlib import Path

import msgspec

from laconic import __version__
from laconic.demo.baselines import Curves, train_curves
from laconic.demo.broker import SIMULATED, YOURS, RunningBroker, start_broker
from laconic.demo.cleanup import Guest, guest
from laconic.demo.data import Split, split_digits
from laconic.demo.display import Display, display, outcome, print_summary
from laconic.demo.fleet import run_fleet
from laconic.demo.processes import Children, children
from laconic.demo.report import save_picture, write_report
from laconic.demo.results import DemoResult, FleetResult
from laconic.demo.settings import Settings, uncompressed
from laconic.demo.simulated import simulate_fleet
from laconic.demo.site import Site
from laconic.errors import ConfigError
from laconic.runtime import Bundle
from laconic.training import prepare
from laconic.training.models import digits_cnn

_SIMULATED = RunningBroker("mqtt://127.0.0.1", SIMULATED)
"""In devices' files only: nobody connects to it."""


def run(
    *,
    devices: int,
    rounds: int | None,
    seed: int,
    broker: str | None,
    output: Path,
    as_json: bool,
    simulated: bool = False,
) -> int:
    """Run the demonstration; returns the process's exit code. `simulated`: in the simulator's world.

    Raises `ConfigError` for arguments that cannot be used, `TransportError` when a broker or a process fails.
    """
    began = time.monotonic()
    settings = Settings() if rounds is None else Settings(rounds=rounds)
    if settings.rounds < 1:
        raise ConfigError("--rounds", value=rounds, limit="1 or more")
    if simulated and broker is not None:
        raise ConfigError("--broker with --simulated", value=broker, limit="one of the two")
    split = split_digits(devices, skew=settings.skew, seed=seed)
    folder = output.resolve()
    work = folder / f"run-{os.getpid()}"
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise ConfigError(f"cannot make the folder {work} ({e.strerror})", remedy="choose --output") from e
    try:
        with (
            tempfile.TemporaryDirectory(prefix="laconic-") as sockets,
            display(as_json=as_json) as view,
            guest() as visit,
            children(work / "logs") as processes,
        ):
            bundle, served, laconic, fedavg, curves = _run(
                split, settings, seed, broker, simulated, work, Path(sockets), view, visit, processes
            )
    except KeyboardInterrupt:
        shutil.rmtree(work, ignore_errors=True)
        raise
    report = folder / "report.html"
    result = DemoResult(
        accuracy=laconic.accuracy,
        accuracy_fedavg=fedavg.accuracy,
        accuracy_alone=curves.alone[-1],
        accuracy_pooled=curves.pooled[-1],
        bytes=laconic.bytes,
        bytes_fedavg=fedavg.bytes,
        ratio=fedavg.bytes.total / laconic.bytes.total,
        joules=laconic.joules,
        joules_fedavg=fedavg.joules,
        seconds=time.monotonic() - began,
        rounds=settings.rounds,
        devices=devices,
        seed=seed,
        parameters=bundle.schema.size,
        held_out=len(split.held_out.y),
        broker=served.kind,
        settings=msgspec.to_builtins(settings),
        laconic=laconic,
        fedavg=fedavg,
        alone=curves.alone,
        pooled=curves.pooled,
        report=str(report),
        machine=f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        version=__version__,
    )
    text = json.dumps(msgspec.to_builtins(result), indent=2)
    (folder / "result.json").write_text(text + "\n")
    write_report(result, report)
    save_picture(result, folder / "report.png")
    shutil.rmtree(work)
    if as_json:
        print(text)
    else:
        print_summary(result)
    return 0


def _run(
    split: Split,
    settings: Settings,
    seed: int,
    broker: str | None,
    simulated: bool,
    work: Path,
    sockets: Path,
    view: Display,
    visit: Guest,
    processes: Children,
) -> tuple[Bundle, RunningBroker, FleetResult, FleetResult, Curves]:
    count = len(split.devices)
    view.say("preparing the model: ONNX in, a training bundle for stock onnxruntime out")
    model, bundle_file = digits_cnn(seed), work / "digits.bundle"
    (work / "digits.onnx").write_bytes(model)
    bundle_file.write_bytes(prepare(model))
    bundle = Bundle.read(bundle_file.read_bytes())
    served = _SIMULATED if simulated else start_broker(processes, work, broker)
    view.say(f"broker: {served.kind} at {served.url}" if not simulated else "in the simulator: no broker")
    visit.url = served.url if served.kind == YOURS else None
    site = Site(
        work,
        bundle_file,
        served.url,
        sockets,
        # On a broker that others use too, names of our own.
        suffix=f"-{os.getpid()}" if served.kind == YOURS else "",
    )
    visit.traces = [site.traces(name, count) for name in ("laconic", "fedavg")]

    def run_one(name: str, chosen: Settings) -> FleetResult:
        if simulated:
            return simulate_fleet(name, site, split, chosen, view.show)
        return run_fleet(name, site, split, chosen, processes, view.show)

    view.say(f"federated: {count} devices, {bundle.schema.size:,} parameters, {settings.rounds} rounds")
    laconic = run_one("laconic", settings)
    view.say(outcome(laconic))
    view.say("the same without compression and gate: plain FedAvg")
    fedavg = run_one("fedavg", uncompressed(settings))
    view.say(outcome(fedavg))
    view.say("each device alone, and all data in one place")
    return bundle, served, laconic, fedavg, train_curves(bundle, split, settings, seed)
