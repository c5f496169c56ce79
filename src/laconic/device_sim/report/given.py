"""The settings of a run as a table: those that are not as by default, and some that always matter."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from laconic.device_sim.scenario.comparing import flat
from laconic.device_sim.scenario.results import Result
from laconic.device_sim.scenario.settings import BatterySection, DevicesSection, ScenarioSettings
from laconic.pages import element, escape


def table(run: Result) -> str:
    """As a card of the run's page."""
    standard = _standard(run)
    given = [
        (k, v)
        for k, v in flat(run.settings)
        if k not in standard or standard[k] != v or k.rpartition(".")[2] in _TELLING
    ]
    rows = "".join(
        f'<tr><th scope="row">{_key(k)}</th>{element("td", _value(v))}</tr>'
        for k, v in given
        if v is not None and k != "name"
    )
    return (
        '<section class="card alone"><h2>Settings</h2><p class="says">Those that are not as they are by'
        ' default, and some that always matter.</p><table class="facts"><tbody>'
        + rows
        + "</tbody></table></section>"
    )


def _key(key: str) -> str:
    """A key that may go on in a second line after its dots."""
    return escape(key).replace(".", ".<wbr>")


_TELLING: Final = frozenset({"seed", "built_in", "source", "division", "board", "radio", "charger"})
"""Settings that are told even where they are as by default."""


def _standard(run: Result) -> dict[str, Any]:
    """What all keys are by default, in classes of devices of the same names."""
    named = [d for d in run.settings.get("devices", ()) if isinstance(d, dict) and "name" in d]
    devices = tuple(
        DevicesSection(name=str(d["name"]), battery=BatterySection() if d.get("battery") else None)
        for d in named
    )
    return dict(flat(msgspec.to_builtins(ScenarioSettings(name="", devices=devices))))


def _value(value: Any) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)
