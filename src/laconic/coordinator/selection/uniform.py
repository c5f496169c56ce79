"""Everybody with the same chance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from laconic.coordinator.ledger import DeviceRecord
from laconic.coordinator.selection.candidate import Candidate, Context
from laconic.protocol.identity import all_selected


def chosen(records: Iterable[DeviceRecord], drawn: Mapping[str, int], share: float) -> list[str]:
    """The names among `records` whose draw for a task falls into `share`: the devices find the same."""
    return all_selected((r.name for r in records), drawn, share)


def uniform(candidates: Sequence[Candidate], count: int, context: Context) -> list[str]:
    """`count` names, for offers by name."""
    draws = context.draws(candidates)
    return sorted(draws, key=draws.__getitem__)[:count]
