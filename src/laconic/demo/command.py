"""`laconic demo`: the main job, end to end, on real input."""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from pathlib import Path

import msgspec

from laconic import __version__
from laconic.errors import ConfigError


def run(
    *, devices: int, rounds: int | None, seed: int, broker: str | None, output: Path, as_json: bool
) -> int:
    """Run the demonstration; returns the process's exit code.

    Raises `ConfigError` for arguments that cannot be used, `TransportError` when a broker or a process fails.
    """
    try:
        return _run(devices, rounds, seed, broker, output, as_json)
    except ModuleNotFoundError as e:
        raise ConfigError(f"{e.name} is not installed", remedy="pip install 'laconic[demo]'") from e


def _run(devices: int, rounds: int | None, seed: int, broker: str | None, output: Path, as_json: bool) -> int:
    from laconic.demo.baselines import train_curves
    from laconic.demo.broker import start_broker
    from laconic.demo.data import split_digits
    from laconic.demo.display import display, print_summary
    from laconic.demo.fleet import run_fleet
    from laconic.demo.processes import children
    from laconic.demo.report import save_picture, write_report
    from laconic.demo.results import DemoResult
    from laconic.demo.settings import Settings, uncompressed
    from laconic.runtime import Bundle
    from laconic.training import prepare
    from laconic.training.models import digits_cnn

    began = time.monotonic()
    settings = Settings() if rounds is None else Settings(rounds=rounds)
    if settings.rounds < 1:
        raise ConfigError("--rounds", value=rounds, limit="1 or more")
    split = split_digits(devices, skew=settings.skew, seed=seed)
    folder = output.resolve()
    work = folder / f"run-{os.getpid()}"
    work.mkdir(parents=True, exist_ok=True)
    with display(as_json=as_json) as view, children(work / "logs") as processes:
        view.say("preparing the model: ONNX in, a training bundle for stock onnxruntime out")
        model, bundle_file = digits_cnn(seed), work / "digits.bundle"
        (work / "digits.onnx").write_bytes(model)
        data = prepare(model)
        bundle_file.write_bytes(data)
        bundle = Bundle.read(data)
        served = start_broker(processes, work, broker)
        view.say(f"broker: {served.kind} at {served.url}")
        view.say(f"federated: {devices} devices, {bundle.schema.size:,} parameters, {settings.rounds} rounds")
        laconic = run_fleet(
            "laconic",
            folder=work / "laconic",
            children=processes,
            bundle=bundle_file,
            split=split,
            settings=settings,
            broker=served.url,
            show=view.show,
        )
        view.say("the same without compression and gate: plain FedAvg")
        fedavg = run_fleet(
            "fedavg",
            folder=work / "fedavg",
            children=processes,
            bundle=bundle_file,
            split=split,
            settings=uncompressed(settings),
            broker=served.url,
            show=view.show,
        )
        view.say("each device alone, and all data in one place")
        curves = train_curves(bundle, split, settings, seed)
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
