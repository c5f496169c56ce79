"""The command `laconic round`: who was asked in a round, and what became of them."""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

from laconic import tables
from laconic.exit_codes import OK
from laconic.fleet_command import add_config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Everything that `laconic round` understands."""
    parser.add_argument("action", choices=("show", "list"), help="one round, or the last ones")
    parser.add_argument("number", nargs="?", type=int, help="which; without it, the last that is over")
    parser.add_argument("--campaign", default="", help="its cohort, if there are several")
    parser.add_argument("--count", type=int, default=20, help="how many rounds to list, up to 500")
    add_config(parser)


def run(options: argparse.Namespace) -> int:
    """Show one round, or a line for each of the last; returns the exit code."""
    from laconic.config import within
    from laconic.coordinator.inquiry import inquiry

    within("--count", options.count, 1, 500)
    within("number", options.number or 0, 0, 2**53)
    with inquiry(options.config, os.environ) as asked:
        if options.action == "show":
            found = asked.ask("round", campaign=options.campaign, number=options.number)
        else:
            found = asked.ask("rounds", campaign=options.campaign, count=options.count)
    if options.json:
        print(json.dumps(found, indent=2))
    elif options.action == "show":
        _show(found["round"])
    else:
        _list(found["rounds"])
    return OK


def _list(rounds: list[dict[str, Any]]) -> None:
    fates = ("asked", "committed", "late", "silent", "rejected", "absent")
    head = ("round", "opened", "seconds", *fates, "bytes", "version", "loss", "accuracy")
    rows = [
        (
            str(r["number"]),
            tables.moment(r["opened_at"]),
            f"{r['closed_at'] - r['opened_at']:.1f}",
            *(str(r[k]) for k in fates),
            tables.size(r["frame_bytes"]),
            "-" if r["version"] is None else str(r["version"]),
            tables.number(r["loss"]),
            tables.number(r["accuracy"]),
        )
        for r in rounds
    ]
    tables.show("rounds", head, rows, right=(0, *range(2, 13)))


def _show(r: dict[str, Any]) -> None:
    print(f"round {r['number']}: {tables.moment(r['opened_at'])}, {r['closed_at'] - r['opened_at']:.1f} s")
    made = "no new version" if r["version"] is None else f"version {r['version']}"
    print(f"  from version {r['base']} came {made}: loss {tables.number(r['loss'])}, ", end="")
    print(f"accuracy {tables.number(r['accuracy'])}")
    print(f"  training loss {tables.number(r['loss_before'])} -> {tables.number(r['loss_after'])}, ", end="")
    print(f"{r['samples']:,} samples, {tables.size(r['frame_bytes'])} of updates")
    counts = ", ".join(f"{r[k]} {k}" for k in ("asked", "committed", "late", "silent", "rejected", "absent"))
    print(f"  {counts}; extended {r['extended']} times")
    fates = [
        *((c, "committed") for c in r["who_committed"]),
        *((c, f"late by {c[3]}") for c in r["who_late"]),
    ]
    # As history.py writes them: device, bytes, weight, staleness, seconds, norm, losses.
    rows = [
        (c[0], fate, tables.size(c[1]), str(c[2]), *(tables.number(v) for v in c[4:8]), "")
        for c, fate in fates
    ]
    for fate in ("silent", "rejected"):
        rows += [(d, fate, "", "", "", "", "", "", why) for d, why in r[f"who_{fate}"].items()]
    rows += [(d, "absent", "", "", "", "", "", "", "") for d in r["who_absent"]]
    head = ("device", "fate", "bytes", "samples", "seconds", "norm", "loss before", "after", "why")
    tables.show("devices", head, rows, right=range(2, 8))
    named = sum(len(r[f"who_{k}"]) for k in ("committed", "late", "silent", "rejected", "absent"))
    total = sum(r[k] for k in ("committed", "late", "silent", "rejected", "absent"))
    if named < total:
        print(f"  and {total - named} more")
