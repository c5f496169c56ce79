"""Whether an offer is for this device, and whether the device is fit for it and can pay for it."""

from __future__ import annotations

from laconic.budget.costs import MANIFEST_BYTES, message_bytes
from laconic.edge_sdk import policy
from laconic.edge_sdk.bookkeeping import Bookkeeping
from laconic.edge_sdk.learner import Learner
from laconic.edge_sdk.purse import Need
from laconic.edge_sdk.sensors import Sensors
from laconic.edge_sdk.settings import DeviceSettings
from laconic.edge_sdk.work import codec_of, touched
from laconic.protocol.identity import selected
from laconic.protocol.messages import Offer


class Screening:
    """Judges offers by what the device is, has and may."""

    def __init__(
        self, settings: DeviceSettings, learner: Learner, sensors: Sensors, books: Bookkeeping
    ) -> None:
        self._settings, self._learner, self._sensors, self._books = settings, learner, sensors, books

    def chosen(self, offer: Offer) -> bool:
        """Whether the offer is of work, and its hash has chosen this device."""
        return offer.work and selected(self._settings.name, offer.task, offer.share)

    def unfit(self, offer: Offer, held: str, now: float) -> str | None:
        """Why the device does not take an offer, in a skip's word for it; `held`: the model it has."""
        if offer.bundle != self._learner.bundle:
            return "model"
        if offer.work and self._learner.samples == 0:
            return "data"
        if why := self.forbidden(offer, now):
            return why
        # How much is to be fetched is known when the manifest is here.
        down = 0 if offer.model == held else message_bytes(MANIFEST_BYTES)
        return None if self._books.affords(self.need(offer, down), now) else "budget"

    def forbidden(self, offer: Offer, now: float) -> str | None:
        """Why the owner's limits, the offer's terms or the allowance forbid any work now."""
        return policy.refusal(
            self._settings.limits,
            offer.eligibility,
            self._sensors.read(now),
            allowance=self._books.terms,
            now=now,
            zone=self._settings.zone,
        )

    def need(self, offer: Offer, down: int) -> Need:
        """What is ahead of a task with `down` bytes to fetch."""
        return self._books.task_need(
            samples=touched(offer, self._learner.samples) if offer.work else 0,
            down=down,
            fits=codec_of(offer).kind == "deadzone",
        )
