"""The gate over a long life, made short: what it keeps back is not sent, and a silent end is an end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from laconic.device_sim import Result, Scenario, run

SCENARIO = Path(__file__).resolve().parents[3] / "examples" / "scenarios" / "gate-vs-always.toml"
SHORT: dict[str, Any] = {"end.rounds": 8, "data.drift.begin_hour": 12, "data.drift.hours": 24}


def lived(threshold: float) -> Result:
    return run(Scenario.read(SCENARIO).replaced(SHORT | {"coordinator.gate.threshold": threshold}))


def test_a_gate_saves_bytes_and_neither_work_nor_rounds() -> None:
    always, gated = lived(0.0), lived(0.1)
    assert always.totals.committed == 80
    silent = gated.totals.skipped["gate"]
    assert gated.totals.committed + silent == 80
    # An update is 4,810 values of four bytes; a skip is a message, too.
    saved = always.totals.bytes_up - gated.totals.bytes_up
    assert 0.95 * silent * 19_240 < saved < 1.05 * silent * 19_240
    work = gated.totals.useful_j + gated.totals.silent_j
    assert 0.95 * always.totals.useful_j < work < always.totals.useful_j


def test_a_life_ends_with_its_last_round_though_nobody_spoke_in_it() -> None:
    """Recorded: a run went on to the end of its hours, since no version told of its last round."""
    totals = lived(1e9).totals
    assert totals.ended == "finished"
    assert totals.committed == 0
    assert totals.hours < 8 * 6
