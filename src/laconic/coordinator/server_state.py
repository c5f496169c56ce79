"""What the server remembers from one step to the next, besides the model."""

from __future__ import annotations

import msgspec

from laconic.coordinator import restoring, scaffold
from laconic.coordinator.advance import Version
from laconic.coordinator.aggregation import echo, optimizers
from laconic.coordinator.aggregation.plausible import NormHistory
from laconic.coordinator.aggregation.settings import checked
from laconic.coordinator.campaign import Campaign
from laconic.coordinator.fold import Fold
from laconic.coordinator.open_round import OpenRound
from laconic.coordinator.registry import Entries, Registry
from laconic.node import StoreView
from laconic.protocol.messages import Echo, Folded
from laconic.schema import Schema


class ServerState:
    """Moments of the server's optimizer, the echo, the sum of control variates, and usual norms.

    Moments and echo belong to a version: they begin anew when the newest is another, as after a rollback.
    """

    def __init__(self, campaign: Campaign, schema: Schema, registry: Registry, store: StoreView) -> None:
        """Raises `ConfigError` for settings that contradict each other, and `StorageError` for records that
        cannot be read."""
        echo.checked(campaign.echo, campaign.aggregation)
        checked(campaign.aggregation, size=schema.size, min_reports=campaign.plan.min_reports)
        scaffold.checked(
            schema,
            rule=campaign.aggregation,
            lateness=campaign.lateness,
            echo_gain=campaign.echo.gain,
        )
        self._campaign, self._schema, self._registry, self._store = campaign, schema, registry, store
        self._controls = scaffold.restore(store.get(scaffold.KEY), schema)
        """Of all updates that are in the store no more."""
        self.moments()
        self._echo_of = self._newest
        self._echo = echo.restore(store.get("server-echo"), campaign.echo, self._newest, schema.size)
        self.usual: NormHistory = restoring.norms(store)
        """How long updates of earlier rounds were."""

    @property
    def _newest(self) -> str:
        """Short hash of the newest version; "" before the first."""
        return "" if self._registry.empty else self._registry.current.name

    def moments(self) -> optimizers.Moments:
        """What the server optimizer remembers for a step from the newest version."""
        saved = self._store.get("server-optimizer")
        return optimizers.restore(saved, self._campaign.server, self._newest, self._schema.size)

    def remember(self, result: Version) -> Entries:
        """Moments and echo of the version that is now the newest."""
        c, moments, name = self._campaign, result.moments, self._newest
        self._echo, self._echo_of = result.echo, name
        saved = optimizers.save(c.server, moments, name) if moments.vectors else None
        return {"server-optimizer": saved, "server-echo": echo.save(c.echo, result.echo, name)}

    # --- echo

    @property
    def fleet_echo(self) -> echo.FleetEcho:
        """What the next step adds to its round's mean."""
        return self._echo if self._echo_of == self._newest else echo.NOTHING_SAID

    def hush(self) -> None:
        """What devices have said so far is not repeated; the caller deletes the record."""
        self._echo = echo.NOTHING_SAID

    def echo_on_offer(self, number: int) -> Echo | None:
        """What devices are told of the echo in round `number`."""
        c = self._campaign
        if not c.echo.gain:
            return None
        source = self.fleet_echo.source(f"{c.fleet}/{c.cohort}/{self._registry.began_at}", number)
        return Echo(c.echo.gain, c.echo.memory, source, self.fleet_echo.tick)

    def folded(self, number: int, discount: float) -> Folded | None:
        """Where an update that is committed now is folded, for its device's account."""
        told = self.echo_on_offer(number)
        return None if told is None else Folded(told.source, told.tick, discount)

    # --- a round's end

    def controls_after(self, fold: Fold) -> scaffold.Sum:
        """With the updates folded, whether they make a version or not: devices have moved on."""
        if not self._controls.size:
            return self._controls
        return scaffold.after(self._controls, fold.mean(), fold.weight, self._schema.controls)

    def close(self, book: OpenRound) -> Entries:
        """Take in what a round's book says of norms and control variates, to be saved."""
        entries: Entries = {}
        if (usual := self.usual.after(book.norms.values())) is not self.usual:
            self.usual = usual
            entries["norms"] = msgspec.msgpack.encode(usual)
        self._controls = self.controls_after(book.fold)
        return entries | scaffold.save(self._controls)
