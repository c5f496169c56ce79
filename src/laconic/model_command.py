"""The command `laconic model`: versions, taking one back, keeping one for good."""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

from laconic import tables
from laconic.errors import ConfigError
from laconic.exit_codes import OK
from laconic.fleet_command import add_config, order


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Everything that `laconic model` understands."""
    parser.add_argument("action", choices=("list", "rollback", "pin", "unpin"), help="what to do")
    parser.add_argument("version", nargs="?", type=int, help="of rollback, pin and unpin")
    parser.add_argument("--campaign", default="", help="its cohort, if there are several")
    add_config(parser)


def run(options: argparse.Namespace) -> int:
    """List versions, or have the coordinator change them; returns the exit code."""
    from laconic.coordinator.inquiry import inquiry

    if options.action != "list":
        if options.version is None or options.version < 0:
            raise ConfigError(
                "version", value=options.version, limit="0 or more", remedy="see laconic model list"
            )
        what = "rollback" if options.action == "rollback" else "pin"
        details: dict[str, Any] = {"campaign": options.campaign, "number": options.version}
        return order(
            options, what, **details, **({} if what != "pin" else {"pinned": options.action == "pin"})
        )
    with inquiry(options.config, os.environ) as asked:
        found = asked.ask("versions", campaign=options.campaign)
    if options.json:
        print(json.dumps(found, indent=2))
        return OK
    head = (
        "version",
        "model",
        "made",
        "round",
        "updates",
        "silent",
        "samples",
        "loss",
        "accuracy",
        "status",
        "",
    )
    rows = [
        (
            str(v["version"]),
            v["model"],
            tables.moment(v["created_at"]),
            *(str(v[k]) for k in ("round", "updates", "silent", "samples")),
            tables.number(v["loss"]),
            tables.number(v["accuracy"]),
            v["status"] + (", pinned" if v["pinned"] else "") + ("" if v["kept"] else ", weights dropped"),
            v["why"],
        )
        for v in found["versions"]
    ]
    tables.show("versions", head, rows, right=(0, *range(3, 9)))
    return OK
