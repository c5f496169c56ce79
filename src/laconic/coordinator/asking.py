"""Who is asked to work on a round: when it opens, when a device comes later, when too few have reported.

In a cohort's offer by a hash, which each device finds for itself; by name whom the strategy chooses
(`laconic.coordinator.selection`).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from laconic.budget.allowance import Room
from laconic.coordinator import budgets, notes, selection
from laconic.coordinator.campaign import Campaign, Progress
from laconic.coordinator.ledger import DeviceRecord, Ledger, online, participation
from laconic.coordinator.selection import Candidate, Context
from laconic.coordinator.treasury import Treasury
from laconic.errors import ConfigError
from laconic.node import Note
from laconic.protocol.identity import draws, selected, share_for

_MANY: Final = 10**12
"""Devices: more than there will be."""


@dataclass(frozen=True, slots=True)
class Picked:
    """Who is asked."""

    names: list[str]
    share: float = 1.0
    """What the offer says: the part of those who hear it that is asked."""
    notes: tuple[Note, ...] = ()


class Asking:
    """Decides for one campaign, and writes down in the ledger who has been asked and who waits."""

    def __init__(self, campaign: Campaign, ledger: Ledger, treasury: Treasury) -> None:
        """Raises `ConfigError` for a strategy that cannot be used."""
        self._campaign, self._ledger, self._treasury = campaign, ledger, treasury
        if campaign.selection.by_name and not campaign.targeted:
            raise ConfigError(
                f"selection.strategy {campaign.selection.strategy!r} in an offer to the whole cohort",
                limit="uniform, without most_rounds_waiting",
                remedy="set rounds.targeted: devices cannot find out for themselves that they are chosen",
            )
        self._strategy = selection.strategy_of(campaign.selection)

    def first(self, task: str, number: int, now: float) -> Picked:
        """Who is asked when round `number` opens with `task`."""
        here = online(self._ledger, self._campaign.cohort)
        able = self._able(here, now)
        if self._campaign.selection.by_name:
            picked = self._by_name(able, self._count(len(able)), task, number)
        else:
            picked = self._by_hash(here, able, task)
        self._waiting(able, number)
        self.write_down(picked.names, number)
        return picked

    def joins(self, device: str, progress: Progress, expected: int, now: float) -> bool:
        """Whether a device is asked that comes into the open round, in which `expected` are expected.

        Of a targeted campaign's whoever was asked already, and others as long as fewer than the target are
        expected; without a target, and of an offer to the cohort, those whose hash falls into the share.
        """
        c, able = self._campaign, self._able([self._ledger[device]], now)
        if not able:
            return False
        if c.targeted and device in progress.expected:
            return True
        if c.targeted and c.plan.target_reports:
            return expected < c.plan.asked(_MANY)
        return selected(device, progress.task, c.share if c.selection.by_name else progress.share)

    def more(self, progress: Progress, expected: Collection[str], now: float) -> Picked:
        """Who is asked as well, when too few have reported: as many again, or all that there are.

        By hash everybody of twice the share, those who are `expected` already among them.
        """
        able = self._able(online(self._ledger, self._campaign.cohort), now)
        if self._campaign.selection.by_name:
            others = [r for r in able if r.name not in expected]
            picked = self._by_name(others, max(1, len(expected)), progress.task, progress.number)
        else:
            share = _wider(progress.share)
            drawn = draws((r.name for r in able), progress.task)
            picked = Picked(selection.chosen(able, drawn, share), share)
        self._waiting(able, progress.number)
        self.write_down((n for n in picked.names if n not in expected), progress.number)
        return picked

    def write_down(self, names: Iterable[str], number: int) -> None:
        """In the ledger: these are asked in round `number`."""
        for record in [self._ledger[name] for name in names]:
            part = participation.asked(record.participation, self._campaign.cohort, number)
            self._ledger.put(msgspec.structs.replace(record, participation=part))

    def fairness(self) -> float:
        """Jain's index of how often the cohort's devices have been asked."""
        cohort = self._campaign.cohort
        return selection.jain(
            participation.in_campaign(r.participation, cohort).asked
            for r in self._ledger
            if r.cohort == cohort
        )

    # --- how

    def _able(self, records: Sequence[DeviceRecord], now: float) -> Sequence[DeviceRecord]:
        return [r for r in records if self._treasury.refusal(r, now) is None]

    def _count(self, able: int) -> int:
        c = self._campaign
        if c.plan.target_reports:
            return max(c.plan.asked(able), c.plan.min_reports)
        return max(math.ceil(c.share * able - 1e-9), c.plan.min_reports)

    def _by_hash(self, here: Sequence[DeviceRecord], able: Sequence[DeviceRecord], task: str) -> Picked:
        plan = self._campaign.plan
        share = self._campaign.share
        drawn = draws((r.name for r in here), task)
        if plan.target_reports:
            share = share_for(drawn, plan.asked(len(here)))
        names = selection.chosen(able, drawn, share)
        while len(names) < min(plan.min_reports, len(here)) and share < 1.0:
            share = _wider(share)
            names = selection.chosen(able, drawn, share)
        return Picked(names, share)

    def _by_name(self, able: Sequence[DeviceRecord], count: int, task: str, number: int) -> Picked:
        c = self._campaign
        work = self._treasury.work(task)
        made = [self._candidate(r, work, number) for r in able]
        context = Context(c.fleet, c.cohort, task, number)
        # A plug-in may want fewer, but not so few that the round could not close.
        least = min(count, c.plan.min_reports)
        choice = selection.choose(c.selection, self._strategy, made, count, context, least)
        failed = () if choice.failure is None else (notes.selection_failed(number, choice.failure),)
        return Picked(choice.names, notes=failed)

    def _candidate(self, record: DeviceRecord, work: budgets.Work, number: int) -> Candidate:
        cost, _ = budgets.predicted(record, work, Room())
        part = participation.in_campaign(record.participation, self._campaign.cohort)
        each = record.seconds_per_sample
        return Candidate(
            record.name,
            record.samples,
            cost.joules,
            cost.bytes,
            charge=record.charge,
            charging=record.charging,
            metered=record.metered,
            seconds=None if each is None else each * record.samples,
            loss=part.loss,
            asked=part.asked,
            asked_round=part.asked_round,
            waited=part.waited(number),
            reliability=record.reliability,
        )

    def _waiting(self, able: Iterable[DeviceRecord], number: int) -> None:
        """From the first round that could ask it on, a device waits."""
        cohort = self._campaign.cohort
        for record in able:
            if record.participation.cohort != cohort:
                part = participation.seen(record.participation, cohort, number)
                self._ledger.put(msgspec.structs.replace(self._ledger[record.name], participation=part))


def _wider(share: float) -> float:
    return min(1.0, 2 * max(share, 0.01))
