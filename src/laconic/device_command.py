"""`laconic device`: run devices, or say what this machine can tell of itself."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from collections.abc import Sequence
from pathlib import Path

from laconic import tables
from laconic.errors import ConfigError
from laconic.exit_codes import OK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("--config", type=Path, action="append", help="a TOML file; repeatable")
    parser.add_argument(
        "--probe", action="store_true", help="run nothing: say what this machine tells of power and network"
    )


def run(options: argparse.Namespace) -> int:
    """Run the devices until a signal, or probe. Raises `LaconicError`."""
    paths: list[Path] = options.config or []
    if options.probe:
        return _probe(paths, as_json=options.json)
    if not paths:
        raise ConfigError("the option --config is needed", remedy="see `laconic device --help`")
    from laconic.edge_sdk import daemon
    from laconic.transport.process import print_json, print_text

    asyncio.run(daemon.run(paths, os.environ, print_json if options.json else print_text))
    return OK


def _probe(paths: Sequence[Path], *, as_json: bool) -> int:
    if len(paths) > 1:
        raise ConfigError("configurations with --probe", value=len(paths), limit="one at most")
    from laconic.edge_sdk.daemon import Configured, readers_of
    from laconic.edge_sdk.readers.probe import HEAD, as_object, as_text, probe

    if paths:
        config = Configured.read(paths[0], os.environ).config
        power = config.power
        lines, notes = probe(
            readers=readers_of(power),
            board=power.board,
            radio=power.radio,
            battery_wh=power.battery_wh,
            charge=power.charge,
            metered=config.metered,
        )
    else:
        lines, notes = probe()
    if as_json:
        print(json.dumps({"quantities": [as_object(line) for line in lines], "notes": notes}))
        return OK
    tables.show("what this machine tells of itself", HEAD, [as_text(line) for line in lines], right=(1,))
    for note in notes:
        print(note)
    return OK
