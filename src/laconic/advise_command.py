"""The command `laconic sim advise`: is federation worth it for these data and this model?"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from laconic import tables
from laconic.config import within
from laconic.errors import ConfigError
from laconic.exit_codes import OK
from laconic.quantities import format_joules

if TYPE_CHECKING:
    from laconic.device_sim.advice.answer import Answer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Everything that `laconic sim advise` understands."""
    add = parser.add_argument
    add("data", type=Path, help="a folder with a file of examples for each device (.npz, .csv), or one file")
    add("--model", required=True, help="an ONNX model, a bundle, or mlp, softmax, linear, signal_cnn")
    add("--label", help="of CSV files: the column that is learnt; all others are features")
    add("--classes", type=_words, default=(), metavar="A,B,C", help="of CSV files: the label's words")
    add("--loss", help="of an ONNX model (default cross_entropy)")
    add("--local", nargs="+", default=[], metavar="PATTERN", help="weights that never leave a device")
    add("--devices", type=_numbers, default=(), metavar="N,M", help="sizes of fleets (default: 1, 2, 4 ...)")
    add(
        "--division",
        choices=("uniform", "own_class", "dirichlet"),
        help="how one file is divided among devices (default uniform)",
    )
    add("--rounds", type=int, default=20, help="(default 20)")
    add("--rounds-a-day", type=float, default=4.0, metavar="N", help="for what a day costs (default 4)")
    add("--epochs", type=int, default=1, help="of a device in a round (default 1)")
    add("--batch-size", type=int, default=16, help="(default 16)")
    add("--learning-rate", type=float, default=0.1, help="(default 0.1)")
    add("--preset", default="small", help="what updates and models are coded with (default small)")
    add("--board", default="rpi_4b", help="of docs/profiles.md (default rpi_4b)")
    add("--radio", default="wifi_2012", help="of docs/profiles.md (default wifi_2012)")
    add("--sample-ms", type=float, help="time to train on a sample (default: by FLOPs, a guess)")
    add("--seeds", type=int, default=1, help="runs of each size (default 1)")
    add("--threads", type=int, help="computations at once (default: a thread for each core)")
    add("--output", type=Path, default=Path("laconic-advice"), help="(default laconic-advice)")


def run(options: argparse.Namespace) -> int:
    """Read, run, answer; returns the exit code."""
    from laconic.device_sim.advice.answer import answer, verdict
    from laconic.device_sim.advice.diverging import doubts
    from laconic.device_sim.advice.question import Question, asked, has_newcomers, manifest_of
    from laconic.device_sim.advice.reading import Labels, read
    from laconic.device_sim.scenario.display import display
    from laconic.device_sim.scenario.sweep import run_all

    for name, least, most in (
        ("rounds", 1, 100_000),
        ("rounds-a-day", 1e-3, 86_400.0),
        ("epochs", 1, 10_000),
        ("batch-size", 1, 65_536),
        ("learning-rate", 1e-12, 1000.0),
        ("sample-ms", 0.0, 1e9),
        ("seeds", 1, 100),
    ):
        if (value := getattr(options, name.replace("-", "_"))) is not None:
            within(f"--{name}", value, least, most)
    if options.loss is None:
        options.loss = "cross_entropy"
    elif Path(options.model).suffix != ".onnx":
        raise ConfigError("--loss", value=options.loss, limit="with an ONNX model")
    given = read(options.data, Labels(options.label, options.classes), manifest_of(options.model))
    names = ("model", "loss", "devices", "division", "rounds", "rounds_a_day", "epochs", "batch_size",
             "learning_rate", "preset", "board", "radio", "sample_ms", "seeds")  # fmt: skip
    question = Question(local=tuple(options.local), **{name: getattr(options, name) for name in names})
    scenario = asked(given, question, options.output)
    with display(watched=sys.stderr.isatty() and not options.json) as view:
        threads = (os.cpu_count() or 1) if options.threads is None else options.threads
        try:
            runs = run_all(scenario, options.output, threads=threads, begin=view.begin)
        except KeyboardInterrupt:
            print("interrupted: runs that had ended are kept, the same command goes on", file=sys.stderr)
            raise
    said = doubts(scenario, runs)
    found = answer(runs, newcomers=has_newcomers(given.names))
    words = [*verdict(found, question.board), *said]
    if options.json:
        print(json.dumps({"sizes": [asdict(s) for s in found.sizes], "verdict": words}, indent=2))
        return OK
    _show(found)
    print()
    print("\n".join(words))
    _picture(found, options.output)
    return OK


def _show(found: Answer) -> None:
    from laconic.device_sim.advice.answer import told

    head = ["devices", "alone", "federated", "pooled", "gain", "up", "down", "work"]
    if found.newcomers:
        head[4:4] = ["new: alone", "new: federated", "new: pooled"]
    rows = []
    for s in found.sizes:
        unit = "points" if found.accuracies else "%"
        row = [
            str(s.devices),
            *(told(v, found) for v in (s.alone, s.federated, s.pooled)),
            f"{100 * s.gain:+.1f} ± {100 * s.gain_error:.1f} {unit}",
            tables.size(s.bytes_up),
            tables.size(s.bytes_down),
            format_joules(s.joules),
        ]
        new = (s.newcomer_alone, s.newcomer_federated, s.newcomer_pooled)
        row[4:4] = [told(score, found) for score in new if score is not None]
        rows.append(row)
    score = "accuracy" if found.accuracies else "loss"
    title = f"{score} on each device's own later examples; bytes and joules of a device and day"
    tables.show(title, head, rows, right=range(1, len(head)))


def _picture(found: Answer, folder: Path) -> None:
    try:
        from laconic.device_sim.advice.picture import draw
    except ModuleNotFoundError as e:
        print(f"no picture: {e.name} is not installed (pip install 'laconic[sim]')")
        return
    try:
        path = draw(found, folder)
    except OSError as e:
        raise ConfigError(f"cannot write to {folder} ({e.strerror})", remedy="choose --output") from e
    print(f"curves: {path}; the scenario, to be changed and run again: {folder / 'scenario.toml'}")


def _words(text: str) -> tuple[str, ...]:
    return tuple(w.strip() for w in text.split(","))


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(sorted({int(n) for n in text.split(",")}))
    except ValueError as e:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers such as 1,2,4") from e
