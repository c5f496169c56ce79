"""The commands `laconic fleet` and `laconic campaign`: how campaigns and devices stand; pause and resume."""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

from laconic import tables
from laconic.exit_codes import OK

CONFIG = Path("coordinator.toml")


def add_config(parser: argparse.ArgumentParser) -> None:
    """The option by which the coordinator is found."""
    parser.add_argument("--config", type=Path, default=CONFIG, help="the coordinator's TOML file")


def add_fleet_arguments(parser: argparse.ArgumentParser) -> None:
    """Everything that `laconic fleet` understands."""
    parser.add_argument("action", choices=("status",), help="what to show")
    add_config(parser)


def fleet(options: argparse.Namespace) -> int:
    """Show campaigns and devices; returns the exit code."""
    from laconic.coordinator.inquiry import inquiry

    with inquiry(options.config, os.environ) as asked:
        found = asked.ask("status")
        devices = list(asked.devices())
    if options.json:
        print(json.dumps({**found, "devices": devices}, indent=2))
        return OK
    now = time.time()
    print("the coordinator runs" if found["running"] else "no coordinator runs: this is what its store holds")
    show_campaigns(found["campaigns"], now)
    show_devices(devices, now)
    return OK


def add_campaign_arguments(parser: argparse.ArgumentParser) -> None:
    """Everything that `laconic campaign` understands."""
    parser.add_argument("action", choices=("pause", "resume"), help="what to do with it")
    parser.add_argument("campaign", nargs="?", default="", help="its cohort, if there are several")
    add_config(parser)


def campaign(options: argparse.Namespace) -> int:
    """Pause or resume a campaign; returns the exit code."""
    return order(options, options.action, campaign=options.campaign)


def order(options: argparse.Namespace, what: str, **details: object) -> int:
    """Give the running coordinator an order and show how campaigns stand then; returns the exit code."""
    from laconic.coordinator.inquiry import inquiry

    with inquiry(options.config, os.environ) as asked:
        found = asked.order(what, **details)
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        show_campaigns(found["campaigns"], time.time())
    return OK


def show_campaigns(campaigns: list[dict[str, Any]], now: float) -> None:
    """A line for each campaign."""
    head = (
        "campaign",
        "phase",
        "round",
        "open for",
        "asked",
        "in",
        "version",
        "loss",
        "accuracy",
        "devices",
        "online",
    )
    rows = [
        (
            c["campaign"],
            _phase(c),
            f"{c['round']} of {c['rounds']}",
            tables.since(c["opened_at"], now),
            str(c["asked"]),
            f"{c['committed']}+{c['late']}+{c['silent']}",
            "-" if c["version"] is None else str(c["version"]),
            tables.number(c["loss"]),
            tables.number(c["accuracy"]),
            str(c["devices"]),
            "-" if c["online"] is None else str(c["online"]),
        )
        for c in campaigns
    ]
    tables.show("campaigns (in: committed + late + silent)", head, rows, right=range(2, 11))


def show_devices(devices: list[dict[str, Any]], now: float) -> None:
    """A line for each device."""
    head = (
        "device",
        "campaign",
        "presence",
        "charge",
        "bytes today",
        "month",
        "joules today",
        "last seen",
        "committed",
        "skipped",
        "rejected",
        "reliability",
    )
    rows = [
        (
            d["name"],
            d["campaign"],
            "-" if d["online"] is None else "online" if d["online"] else "offline",
            tables.share(d["charge"]) + (" +" if d["charging"] else ""),
            tables.size(d["bytes_today"]) + (" metered" if d["metered"] else ""),
            tables.size(d["bytes_month"]),
            tables.number(d["joules_today"]) + ("" if d["joules_measured"] else " ~"),
            tables.since(d["last_seen"], now),
            str(d["committed"]),
            str(d["skipped"]),
            str(d["rejected"]),
            tables.share(d["reliability"]),
        )
        for d in devices
    ]
    tables.show("devices (+: charging, ~: modelled)", head, rows, right=range(3, 12))


def _phase(c: dict[str, Any]) -> str:
    if c["paused"] and c["phase"] != "paused":
        return f"{c['phase']}, then paused"
    if c["phase"] == "paused" and not c["paused"]:
        return f"until {tables.moment(c['held_until'])}" if c["held_until"] else "paused by schedule"
    return str(c["phase"])
