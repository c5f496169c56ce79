"""What a campaign's tasks may cost its devices: who can bear the open one, what is booked and offered."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from laconic.budget.allowance import FREE, limits_something, of_device
from laconic.budget.costs import Cost
from laconic.compression import CodecSettings
from laconic.coordinator import budgets
from laconic.coordinator.budgets import Work
from laconic.coordinator.campaign import Campaign
from laconic.coordinator.ledger import DeviceRecord, Ledger
from laconic.coordinator.registry import Registry
from laconic.protocol.messages import Allowance, Eligibility, Offer


class Treasury:
    """Keeps the budgets of one campaign."""

    def __init__(self, campaign: Campaign, ledger: Ledger, registry: Registry, *, dense_bytes: int) -> None:
        """`dense_bytes`: of an update as float32. Raises `ConfigError` for a budget that cannot be told."""
        self._campaign, self._ledger, self._registry = campaign, ledger, registry
        self._dense_bytes = dense_bytes
        self._allowances = budgets.allowances_of(campaign.budget)
        self._counts = any(limits_something(a) for a in self._allowances)
        # Asked of every device in every round: where nothing is said, nothing is looked up.
        self._free = not self._allowances and campaign.eligibility == Eligibility()
        self._work: Work | None = None
        self._codecs: dict[str, CodecSettings] = {}
        """Of devices that are asked for shorter updates than others, in the open round."""

    def allowance(self, device: str) -> Allowance:
        """What a device may spend."""
        return of_device(device, self._allowances)

    def begin(self, task: str) -> None:
        """A round's task is known."""
        self._codecs.clear()
        self._work = self.work(task)

    def work(self, task: str) -> Work:
        """What `task` asks of every device, with the versions that can be fetched now."""
        c, (deltas, fulls) = self._campaign, self._registry.sizes()
        return Work(
            task=task,
            epochs=c.training.epochs,
            codec=c.codec,
            chunk_bytes=c.chunk_bytes,
            dense_bytes=self._dense_bytes,
            version=self._registry.current.version,
            deltas=deltas,
            fulls=fulls,
        )

    def expects(self, record: DeviceRecord, now: float) -> Cost:
        """What the open task is expected to cost a device."""
        if self._work is None:
            return budgets.NO_COST
        left = budgets.room_of(record, self.allowance(record.name), now)
        return budgets.predicted(record, self._work, left)[0]

    def refusal(self, record: DeviceRecord, now: float) -> str | None:
        """Why a device is not to be asked, or None.

        What is offered to a whole cohort is heard by all: its devices apply the terms themselves, and only
        those that hear nothing are not expected to answer. Where there are no terms, it is the same.
        """
        if self._free or not self._campaign.targeted:
            return "resting" if record.rest_until > now else None
        allowance = self.allowance(record.name)
        cost = self.expects(record, now) if limits_something(allowance) else budgets.NO_COST
        return budgets.refusal(record, self._campaign.eligibility, allowance, now=now, cost=cost)

    def book(self, devices: Iterable[str], now: float) -> None:
        """The open task is about to be offered: what it is to cost goes into the ledger."""
        if not self._counts or self._work is None:
            return
        for name in devices:
            record, allowance = self._ledger[name], self.allowance(name)
            if limits_something(allowance):
                left = budgets.room_of(record, allowance, now)
                cost, codec = budgets.predicted(record, self._work, left)
                if codec is not self._campaign.codec:
                    self._codecs[name] = codec
                self._ledger.book(name, self._work.task, cost, now)

    def offer_to(self, device: str | None, offer: Offer) -> Offer:
        """An offer with its terms: all of them for a cohort, for one device its own and its codec."""
        if device is None:
            return msgspec.structs.replace(offer, allowances=self._allowances)
        own = [a for a in (self.allowance(device),) if a != FREE]
        codec = self._codecs.get(device)
        return msgspec.structs.replace(
            offer,
            allowances=[msgspec.structs.replace(a, devices="*") for a in own],
            codec=offer.codec if codec is None else msgspec.msgpack.encode(codec.to_builtins()),
        )
