"""The commands of `laconic sim`: run scenarios, report on them, compare two runs, advise."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from laconic import advise_command, tables
from laconic.config import toml_value
from laconic.errors import ConfigError
from laconic.exit_codes import OK

if TYPE_CHECKING:
    from laconic.device_sim.cluster import Engine
    from laconic.device_sim.scenario.results import Result
    from laconic.device_sim.scenario.sweep import Run


def add_commands(parser: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    """The commands of `laconic sim`."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="action")

    run = commands.add_parser("run", parents=[common], help="run a scenario, or a sweep of it")
    _add_run_arguments(run)
    run.set_defaults(command=_run)

    report = commands.add_parser("report", parents=[common], help="make a page of a run, or of a sweep")
    report.add_argument("folder", type=Path, help="of the results")
    report.add_argument(
        "--round", type=int, help="whose line of time is drawn (default: the first, a middle one, the last)"
    )
    report.set_defaults(command=_report)

    compare = commands.add_parser("compare", parents=[common], help="what differs between two runs")
    compare.add_argument("a", type=Path, help="folder of a run's results")
    compare.add_argument("b", type=Path, help="of another one's")
    compare.set_defaults(command=_compare)

    advise = commands.add_parser("advise", parents=[common], help="is federation worth it for these data?")
    advise_command.add_arguments(advise)
    advise.set_defaults(command=advise_command.run)


def _add_run_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("scenario", type=Path, help="its file")
    add("--seed", type=int, help="instead of the scenario's")
    add("--output", type=Path, help="folder for the results (default: laconic-sim/NAME)")
    add(
        "--set",
        action="append",
        metavar="KEY=VALUE",
        help="instead of the scenario's value; paths from its folder; repeatable",
    )
    add(
        "--sweep",
        action="append",
        metavar="KEY=A,B,C",
        help="run with each of these values; repeatable: all combinations",
    )
    add("--threads", type=int, help="computations at once (default: a thread for each core)")
    add(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="where devices train: in this process (default), or on a Ray cluster, with the same result",
    )
    add("--workers", type=int, help="of Ray: calls at once (default: one for each core)")
    add(
        "--address",
        help="of a Ray cluster that is there (default: RAY_ADDRESS, else one is started)",
    )


def _run(options: argparse.Namespace) -> int:
    if options.engine != "ray":
        for name in ("workers", "address"):
            if getattr(options, name) is not None:
                raise ConfigError(f"--{name}", value=getattr(options, name), limit="only with --engine ray")
    from laconic.device_sim.scenario.display import display
    from laconic.device_sim.scenario.scenario import Scenario
    from laconic.device_sim.scenario.sweep import run_all

    scenario = Scenario.read(options.scenario)
    sweep = dict(_swept(text) for text in options.sweep or [])
    swept = {**scenario.settings.sweep, **sweep}
    values = [] if options.seed is None else [_unswept("--seed", "seed", options.seed, swept)]
    values += [_set(text, swept) for text in options.set or []]
    scenario = scenario.replaced(dict(values))
    output = options.output or Path("laconic-sim") / scenario.settings.name
    with (
        _engine(options) as engine,
        display(watched=sys.stderr.isatty() and not options.json) as view,
    ):
        try:
            runs = run_all(
                scenario,
                output,
                sweep=sweep,
                threads=(os.cpu_count() or 1) if options.threads is None else options.threads,
                engine=engine,
                begin=view.begin,
            )
        except KeyboardInterrupt:
            kept = "runs that had ended are kept, the same command goes on" if swept else "it begins anew"
            print(f"interrupted: {kept}", file=sys.stderr)
            raise
    if options.json:
        print(json.dumps([_summary(r) for r in runs], indent=2))
        return OK
    show(runs, scenario.settings.name)
    print(f"results: {output}; a page of them: laconic sim report {output}")
    return OK


@contextmanager
def _engine(options: argparse.Namespace) -> Iterator[Engine]:
    """Where devices train. One cluster serves all runs of a sweep, and none is started if they are there."""
    if options.engine != "ray":
        yield "local"
        return
    from laconic.device_sim.cluster import Cluster

    with Cluster(workers=options.workers, address=options.address) as cluster:
        yield cluster


def _report(options: argparse.Namespace) -> int:
    from laconic.device_sim.scenario.sweep import lacking_in, runs_in

    try:
        from laconic.device_sim.report.writing import write
    except ModuleNotFoundError as e:
        raise ConfigError(f"{e.name} is not installed", remedy="pip install 'laconic[sim]'") from e
    page = write(runs_in(options.folder), options.folder, number=options.round)
    if lacking := lacking_in(options.folder):
        print(f"{lacking} more runs of this sweep have not ended yet", file=sys.stderr)
    print(json.dumps({"report": str(page)}) if options.json else f"report: {page}")
    return OK


def _compare(options: argparse.Namespace) -> int:
    from laconic.device_sim.scenario import comparing

    a, b = options.a, options.b
    left, right = _one(a), _one(b)
    found = {"settings": comparing.settings(left, right), "results": comparing.results(left, right)}
    if options.json:
        print(json.dumps({k: [d._asdict() for d in v] for k, v in found.items()}, indent=2))
        return OK
    for what, differences in found.items():
        rows = [(d.key, _plain(d.a), _plain(d.b), d.change_told) for d in differences]
        tables.show(what, ("", str(a), str(b), "change"), rows or [("no difference", "", "", "")], right=(3,))
    return OK


def _one(folder: Path) -> Result:
    """The results of the only run in a folder."""
    from laconic.device_sim.scenario.sweep import runs_in

    runs = runs_in(folder)
    if len(runs) > 1:
        raise ConfigError(
            f"runs in {folder}",
            value=len(runs),
            limit="1: it is a sweep",
            remedy=f"name one of its folders, as {runs[0].folder}, or see laconic sim report {folder}",
        )
    return runs[0].result


def _plain(value: object) -> str:
    return f"{value:.5g}" if isinstance(value, float) else "-" if value is None else str(value)


def show(runs: Sequence[Run], title: str) -> None:
    """Print a row for each run."""
    from laconic.device_sim.report import labels, remarks
    from laconic.quantities import format_hours, format_joules

    names, same = labels.short([r.label for r in runs])
    known = any(r.result.totals.accuracy is not None for r in runs)
    head = ("run", "rounds", "time", "accuracy" if known else "loss", "up", "down", "work", "wasted", "Jain")
    rows = []
    for r, name in zip(runs, names, strict=True):
        t = r.result.totals
        rows.append(
            (
                name or title,
                str(t.rounds),
                format_hours(t.hours),
                tables.number(t.accuracy if known else t.loss, 3),
                tables.size(t.bytes_up),
                tables.size(t.bytes_down),
                format_joules(t.useful_j + t.silent_j + t.wasted_j + t.upkeep_j),
                format_joules(t.wasted_j),
                f"{t.jain:.2f}" if t.committed else "-",
            )
        )
    tables.show(f"{title}, {', '.join(same)}" if same else title, head, rows, right=range(1, 9))
    for r, name in zip(runs, names, strict=True):
        for remark in remarks.of(r.result.totals):
            print(f"{name}: {remark}" if name else remark)
    if there := sum(r.cached for r in runs):
        print(f"{there} of {len(runs)} had been run before")
    if gone := sum(r.replaced for r in runs):
        which = f"{gone} of {len(runs)} " if len(runs) > 1 else ""
        print(f"{which}took the place of results of other settings, files or versions")


def _summary(r: Run) -> dict[str, Any]:
    import msgspec

    return {
        "label": r.label,
        "folder": str(r.folder),
        "cached": r.cached,
        "digest": r.result.digest,
        "totals": msgspec.to_builtins(r.result.totals),
    }


def _set(text: str, sweep: Container[str]) -> tuple[str, Any]:
    """`key=value`. A key that is swept would take its values from there: it is refused."""
    key, equals, value = (part.strip() for part in text.partition("="))
    if not (key and equals and value):
        raise ConfigError("--set", value=text, limit="KEY=VALUE")
    return _unswept("--set", key, toml_value(value), sweep)


def _unswept(option: str, key: str, value: Any, sweep: Container[str]) -> tuple[str, Any]:
    """A value for a key that has one only."""
    if key in sweep:
        raise ConfigError(
            option, value=f"{key}={value}", limit="no key of the sweep", remedy=f"--sweep {key}={value}"
        )
    return key, value


def _swept(text: str) -> tuple[str, list[Any]]:
    """`key=a,b,c`: each value as TOML writes it, or else a word."""
    key, equals, values = text.partition("=")
    if not (key and equals and values):
        raise ConfigError("--sweep", value=text, limit="KEY=A,B,C")
    return key.strip(), [toml_value(v.strip()) for v in values.split(",")]
