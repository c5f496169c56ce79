"""The `laconic` command."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from laconic import (
    __version__,
    codec_command,
    device_command,
    fleet_command,
    model_command,
    prepare_command,
    round_command,
    sim_command,
)
from laconic.errors import ConfigError, LaconicError
from laconic.exit_codes import INTERNAL, INTERRUPTED, OK, exit_code


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the process's exit code (docs/exit-codes.md)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    as_json = "--json" in arguments
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    try:
        options = _options(arguments)
        as_json = options.json
        code: int = options.command(options)
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except LaconicError as e:
        kind = type(e).__name__
        if as_json:
            print(json.dumps({"error": kind, "message": str(e)}))
        print(f"laconic: {kind}: {e}", file=sys.stderr)
        return exit_code(e)
    except BrokenPipeError:
        # Whoever read our output has gone; so do we, without a word.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return INTERNAL


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are errors as all others are, without the list of every option."""

    def error(self, message: str) -> NoReturn:
        raise _misuse(self.prog, message)


def _misuse(command: str, complaint: str) -> ConfigError:
    return ConfigError(" ".join(complaint.split()), remedy=f"see `{command} --help`")


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    # Left to itself, argparse would let the outermost command complain of what none of them knows.
    options, unknown = _parser().parse_known_args(arguments)
    if unknown:
        raise _misuse(f"laconic {options.name}", f"unrecognized arguments: {' '.join(unknown)}")
    return options


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="laconic", description="Federated learning for devices that pay for every joule and every byte."
    )
    parser.add_argument("--version", action="version", version=f"laconic {__version__}")
    common = _Parser(add_help=False)
    common.add_argument("--json", action="store_true", help="JSON on standard output, for programs")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="name")

    demo = commands.add_parser(
        "demo", parents=[common], help="a whole fleet on this machine, learning handwritten digits"
    )
    demo.add_argument("--devices", type=int, default=10, help="how many devices (default 10)")
    demo.add_argument("--rounds", type=int, help="how many rounds (default: see docs/demo.md)")
    demo.add_argument("--seed", type=int, default=0, help="of the data's split and the model's first weights")
    demo.add_argument("--broker", metavar="URL", help="use this broker: mqtt://host:port, or 'embedded'")
    demo.add_argument("--simulated", action="store_true", help="in the simulator: no processes, no broker")
    demo.add_argument("--output", type=Path, default=Path("laconic-demo"), help="folder for the report")
    demo.set_defaults(command=_demo)

    prepare = commands.add_parser("prepare", parents=[common], help="make a training bundle of an ONNX model")
    prepare_command.add_arguments(prepare)
    prepare.set_defaults(command=prepare_command.run)

    codec = commands.add_parser("codec", parents=[common], help="explain what an update frame consists of")
    codec_command.add_arguments(codec)
    codec.set_defaults(command=codec_command.run)

    coordinator = commands.add_parser("coordinator", parents=[common], help="run a coordinator, or check one")
    coordinator.add_argument(
        "action",
        nargs="?",
        choices=("run", "check", "finish"),
        default="run",
        help="run it; check what it needs; or have the one that runs finish its rounds and end",
    )
    coordinator.add_argument("--config", type=Path, required=True, help="its TOML file")
    coordinator.set_defaults(command=_coordinator)

    device = commands.add_parser("device", parents=[common], help="run a device, or several in one process")
    device_command.add_arguments(device)
    device.set_defaults(command=device_command.run)

    fleet = commands.add_parser("fleet", parents=[common], help="how campaigns and devices stand")
    fleet_command.add_fleet_arguments(fleet)
    fleet.set_defaults(command=fleet_command.fleet)

    campaign = commands.add_parser("campaign", parents=[common], help="pause or resume a campaign")
    fleet_command.add_campaign_arguments(campaign)
    campaign.set_defaults(command=fleet_command.campaign)

    rounds = commands.add_parser(
        "round", parents=[common], help="who was asked in a round, and what came of it"
    )
    round_command.add_arguments(rounds)
    rounds.set_defaults(command=round_command.run)

    model = commands.add_parser("model", parents=[common], help="list versions, roll back, pin")
    model_command.add_arguments(model)
    model.set_defaults(command=model_command.run)

    sim = commands.add_parser("sim", help="a fleet in the simulator: run, report, compare, advise")
    sim_command.add_commands(sim, common)
    return parser


# A command imports what it needs when it runs: a device has no onnx, a coordinator no plots.


def _demo(options: argparse.Namespace) -> int:
    try:
        from laconic.demo.command import run
    except ModuleNotFoundError as e:
        raise ConfigError(f"{e.name} is not installed", remedy="pip install 'laconic[demo]'") from e
    return run(
        devices=options.devices,
        rounds=options.rounds,
        seed=options.seed,
        broker=options.broker,
        output=options.output,
        as_json=options.json,
        simulated=options.simulated,
    )


def _coordinator(options: argparse.Namespace) -> int:
    from laconic.coordinator import preflight
    from laconic.coordinator.daemon import run
    from laconic.transport.process import leave, print_json, print_text

    if options.action == "check":
        return preflight.run(options.config, os.environ, as_json=options.json)
    if options.action == "finish":
        return fleet_command.order(options, "finish")
    asyncio.run(run(options.config, os.environ, print_json if options.json else print_text))
    return leave(OK)


if __name__ == "__main__":
    sys.exit(main())
