"""A virtual world in which the production nodes run: virtual clock, links, broker, crashes.

`Scenario` and `run` are the way in for programs (docs/scenarios.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from laconic.device_sim.scenario.results import Result
    from laconic.device_sim.scenario.running import run
    from laconic.device_sim.scenario.scenario import Scenario

__all__ = ["Result", "Scenario", "run"]

_PLACES = {"Result": "results", "Scenario": "scenario", "run": "running"}


def __getattr__(name: str) -> Any:
    # The world is there without coordinator, model and data, which these need.
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"laconic.device_sim.scenario.{_PLACES[name]}"), name)
