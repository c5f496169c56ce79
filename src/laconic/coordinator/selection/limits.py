"""Whom a budget over a device's life, its battery or its network excludes."""

from __future__ import annotations

import msgspec

from laconic.coordinator.ledger import DeviceRecord
from laconic.protocol.messages import Eligibility


class Budget(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a device may spend in its life under this coordinator; None for no limit."""

    max_bytes: int | None = None
    """Bytes up plus down."""
    max_joules: float | None = None
    """Joules for computing plus radio."""


def refusal(record: DeviceRecord, eligibility: Eligibility, budget: Budget) -> str | None:
    """Why a device is not asked, or None if it may be: battery, charging, metered or budget.

    The device applies the same eligibility itself before it spends anything (`laconic.edge_sdk.policy`):
    what the ledger holds may be minutes old.
    """
    if record.charge is not None and record.charge < eligibility.min_charge and not record.charging:
        return "battery"
    if eligibility.only_charging and not record.charging:
        return "charging"
    if eligibility.only_unmetered and record.metered:
        return "metered"
    if budget.max_bytes is not None and record.bytes_up + record.bytes_down >= budget.max_bytes:
        return "budget"
    if budget.max_joules is not None and record.joules_compute + record.joules_radio >= budget.max_joules:
        return "budget"
    return None
