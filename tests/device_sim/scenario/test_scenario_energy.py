"""Energy is conserved in every scenario: what left a battery, or the mains, is the sum of the parts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from tiny_scenario import TABLE

from laconic.device_sim import Scenario, run
from laconic.device_sim.scenario.settings import CHARGERS, PRESENCES, TLS

PARTS = (
    "idle_j",
    "user_j",
    "compute_j",
    "promotion_j",
    "active_j",
    "tail_j",
    "radio_idle_j",
    "self_discharge_j",
)
RADIOS = ("lte_2012", "umts_2012", "wifi_2012", "wifi_ns3_nic", "nr_mmwave_2021", "ethernet_pi3")


@st.composite
def classes(draw: st.DrawFn, name: str) -> dict[str, Any]:
    """A class of devices: any radio, charger, habit and failure; a battery that may not last an hour."""
    least = draw(st.floats(0.01, 1.0))
    battery = {
        "mah": draw(st.sampled_from([5, 40, 3000])),
        "charge_least": least,
        "charge_most": draw(st.floats(least, 1.0)),
        "charger": draw(st.sampled_from(CHARGERS)),
        "charger_w": draw(st.sampled_from([0.0, 0.5, 2.0, 20.0])),
        "begin_hour": draw(st.sampled_from([0.2, 1.0, 22.0])),
        "hours": draw(st.sampled_from([0.5, 8.0])),
        "jitter_hours": 0.2,
        "user_w": draw(st.lists(st.floats(0.0, 3.0), max_size=4)),
    }
    presence = {
        "kind": draw(st.sampled_from(PRESENCES)),
        "period_hours": draw(st.sampled_from([0.1, 0.7])),
        "swing": draw(st.sampled_from([1.0, 4.0])),
    }
    failures = {
        "drop_out": draw(st.sampled_from([0.0, 0.3])),
        "away_s": 400.0,
        "crash": draw(st.sampled_from([0.0, 0.3])),
        "slow": draw(st.sampled_from([1.0, 7.0])),
    }
    connection: dict[str, Any] = {
        "tls": draw(st.sampled_from(TLS)),
        "loss": draw(st.sampled_from([0.0, 0.05])),
    }
    if draw(st.booleans()):
        connection["medium"] = "ap"
    found: dict[str, Any] = {
        "name": name,
        "count": draw(st.integers(1, 3)),
        "board": draw(st.sampled_from(["phone_mid", "rpi_4b"])),
        "radio": draw(st.sampled_from(RADIOS)),
        "speed": {"sample_s": draw(st.sampled_from([0.01, 2.0])), "spread": 0.2},
        "start_spread_s": draw(st.sampled_from([0.0, 600.0])),
        "connection": connection,
        "presence": presence,
        "failures": failures,
    }
    return found | ({"battery": battery} if draw(st.booleans()) else {})


@settings(max_examples=6, deadline=None, phases=(Phase.generate,))
@given(st.tuples(classes("a"), classes("b")), st.integers(0, 9), st.sampled_from([0.0, 2.6, 21.5]))
def test_energy_is_conserved_in_every_scenario(
    fleet: tuple[dict[str, Any], ...], seed: int, start_hour: float
) -> None:
    end = {"rounds": 3, "hours": 3}
    table = TABLE | {"devices": list(fleet), "seed": seed, "start_hour": start_hour, "end": end}
    result = run(Scenario.of(table))
    assert result.totals.imbalance < 1e-9
    for d in result.devices:
        spent = sum(getattr(d, part) for part in PARTS)
        passed = max(d.battery_start_j + d.charged_j, spent)
        if d.battery_j is not None:
            assert d.battery_start_j + d.charged_j - d.battery_end_j == pytest.approx(
                spent, abs=1e-9 * passed
            )
            assert -1e-9 * d.battery_j <= d.battery_end_j <= d.battery_j * (1 + 1e-9)
        work = d.useful_j + d.silent_j + d.wasted_j + d.upkeep_j
        radio = d.promotion_j + d.active_j + d.tail_j
        assert work == pytest.approx(d.compute_j + radio, abs=1e-9 * passed)
