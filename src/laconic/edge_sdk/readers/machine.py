"""This machine as sensors: what its readers measure, and by published profiles what nothing measures."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from laconic.edge_sdk.power import (
    ModelledBattery,
    RadioMeter,
    board_named,
    origin_of,
    radio_costs,
    radio_named,
)
from laconic.edge_sdk.readers.detect import board_here, detect
from laconic.edge_sdk.readers.energy import WorkEnergy
from laconic.edge_sdk.readers.sample import Reader
from laconic.edge_sdk.readers.sampler import Sampler, Taken
from laconic.edge_sdk.sensors import Origin, Readings
from laconic.transport.link import WireBytes

NOTHING = "nothing that reads it"


@dataclass(frozen=True, slots=True)
class Line:
    """One quantity: what it is now, and where that comes from."""

    quantity: str
    value: float | bool | None
    unit: str
    origin: Origin
    source: str


class Machine:
    """Sensors of the machine that this runs on.

    Readers are asked in a background thread, which begins with the first `read` and ends with `close` or when
    nobody holds the machine any more. One for a process: its energy is that of all work in the process.
    """

    def __init__(
        self,
        wire: Callable[[], WireBytes],
        *,
        readers: Sequence[Reader] | None = None,
        board: str | None = None,
        radio: str | None = None,
        battery_wh: float | None = None,
        charge: float = 1.0,
        metered: bool = False,
        threads: int = 1,
        background: bool = True,
        root: Path = Path("/"),
        clock: Callable[[], float] = time.monotonic,
        own_s: Callable[[], float] = time.process_time,
    ) -> None:
        """`readers`: in the order in which they are believed; None: those that `detect` finds.

        `board`: profile for joules of computing where nothing measures them; None: by the device tree, if it
        has one. `radio`: profile for joules of the radio; None: they are not known. `battery_wh`: what a full
        battery holds; without a reader for it, a battery is modelled that began at `charge`. `metered`: the
        owner's word, which no reader takes back. `threads`: on how many cores it trains. `background`: False
        for one who calls `sample` himself. `root`: where `proc` and `sys` lie.

        Asks every reader once, which takes as long as their commands take. Raises `ConfigError` for a board
        or radio that has no profile, a capacity or a charge that is none.
        """
        name = board_here(root) if board is None else board
        self._board_name, self._radio_name = name, radio
        self._board = None if name is None else board_named(name)
        self._radio = None if radio is None else RadioMeter(radio_costs(radio_named(radio)), wire)
        self._battery = None if battery_wh is None else ModelledBattery(battery_wh, charge)
        self._wire, self._metered, self._clock = wire, metered, clock
        self._background = background
        cores = 0 if self._board is None else min(max(1, threads), self._board.cores)
        self._energy = WorkEnergy(None if self._board is None else self._board.core_w * cores)
        self._sampler = Sampler(
            detect(root, battery_wh=battery_wh) if readers is None else readers,
            battery_joules=None if battery_wh is None else battery_wh * 3600,
            clock=clock,
            own_s=own_s,
        )
        self._finalizer = weakref.finalize(self, self._sampler.stop)

    def close(self) -> None:
        """End the background thread, and wait for it."""
        self._finalizer()
        self._sampler.join()

    def sample(self) -> None:
        """Ask every reader now, in this thread; for one who wants an answer and can wait."""
        self._sampler.step(everyone=True)

    def worked(self, seconds: float) -> None:
        self._take()
        self._energy.worked(self._clock(), seconds)

    def read(self, now: float) -> Readings:
        if self._background:
            self._sampler.start()
        self._take()
        return self._read(now)

    def describe(self, now: float) -> list[Line]:
        """Every quantity, with where it comes from: reader and path, profile and its source, or unknown."""
        self._take()
        r = self._read(now)
        modelled, word = "modelled: [power] battery_wh, charge", "the configuration"
        battery = self._source("charge") or (modelled if self._battery else "no battery found")
        charger = self._source("charging") or (
            modelled if self._battery else "no battery found: taken to be on the mains"
        )
        power = self._value("power_w")
        load, heat, slow = self._source("cpu_load"), self._source("temperature_c"), self._source("throttled")

        def measured(value: object) -> Origin:
            return Origin.UNKNOWN if value is None else Origin.MEASURED

        charging_origin = self._origin("charging") or Origin.MODELLED
        return [
            Line("charge", r.charge, "", Origin.UNKNOWN if r.charge is None else r.charge_origin, battery),
            Line("charging", r.charging, "", charging_origin, charger),
            Line(
                "metered",
                r.metered,
                "",
                r.metered_origin,
                word if self._metered else self._source("metered") or NOTHING,
            ),
            Line("power", power, "W", measured(power), self._source("power_w") or NOTHING),
            Line(
                "idle power",
                self._energy.idle_w,
                "W",
                measured(self._energy.idle_w),
                "power while this is quiet",
            ),
            Line("joules_compute", r.joules_compute, "J", r.compute_origin, self._compute_source()),
            Line("joules_radio", r.joules_radio, "J", r.radio_origin, self._radio_source()),
            Line("bytes_up", r.bytes_up, "B", r.bytes_origin, "the socket to the broker"),
            Line("bytes_down", r.bytes_down, "B", r.bytes_origin, "the socket to the broker"),
            Line("temperature", r.temperature_c, "degC", measured(r.temperature_c), heat or NOTHING),
            Line("throttled", r.throttled, "", measured(r.throttled), slow or NOTHING),
            Line("cpu_load", r.cpu_load, "", self._origin("cpu_load") or Origin.UNKNOWN, load or NOTHING),
        ]

    def notes(self) -> list[str]:
        """What readers have to say besides."""
        return [
            f"{reader.source}: {note}"
            for reader, taken in self._sampler.newest()
            for note in taken.sample.notes
        ]

    def _take(self) -> None:
        while self._sampler.slices:
            self._energy.add(self._sampler.slices.popleft())

    def _read(self, now: float) -> Readings:
        if self._radio is None:
            wire, radio, radio_origin = self._wire(), 0.0, Origin.UNKNOWN
        else:
            (wire, radio), radio_origin = self._radio.read(), Origin.MODELLED
        compute, compute_origin = self._energy.joules, self._compute_origin()
        charge, charging, charge_origin = self._battery_state(now, compute + radio)
        metered = any(t.sample.metered is True for _, t in self._sampler.newest())
        heat = [t.sample.temperature_c for _, t in self._now() if t.sample.temperature_c is not None]
        slow = [t.sample.throttled for _, t in self._now() if t.sample.throttled is not None]
        load = [t.sample.cpu_load for _, t in self._now() if t.sample.cpu_load is not None]
        return Readings(
            charge=charge,
            charging=charging,
            metered=self._metered or metered,
            bytes_up=wire.up,
            bytes_down=wire.down,
            joules_compute=compute,
            joules_radio=radio,
            measured=compute_origin is Origin.MEASURED and radio == 0,
            temperature_c=max(heat, default=None),
            throttled=any(slow) if slow else None,
            cpu_load=load[0] if load else None,
            charge_origin=charge_origin,
            metered_origin=Origin.MODELLED if self._metered else self._origin("metered") or Origin.UNKNOWN,
            bytes_origin=origin_of(wire),
            compute_origin=compute_origin,
            radio_origin=radio_origin,
            age_s=max((self._sampler.age_s(t) for _, t in self._sampler.newest()), default=0.0),
        )

    def _battery_state(self, now: float, spent: float) -> tuple[float | None, bool, Origin]:
        """Charge, charging, and where the charge comes from.

        A battery that cannot be read any more keeps the charge that it had, and does not charge: what is
        unknown must not let anything begin.
        """
        known, plugged = self._first("charge"), self._first("charging")
        if known is None and plugged is None:
            if self._battery is None:
                return None, True, Origin.MODELLED
            board_w = 0.0 if self._board is None else self._board.idle_w.value
            idle_w = self._energy.idle_w
            charge = self._battery.charge(now, spent, board_w if idle_w is None else idle_w)
            return charge, False, Origin.MODELLED
        charging = False
        if plugged is not None and self._sampler.fresh(*plugged):
            charging = plugged[1].sample.charging is True
        origin = self._origin("charge") or self._origin("charging") or Origin.UNKNOWN
        return (None if known is None else known[1].sample.charge), charging, origin

    def _compute_origin(self) -> Origin:
        if self._energy.measured:
            return Origin.MEASURED
        return Origin.UNKNOWN if self._energy.silent else Origin.MODELLED

    def _compute_source(self) -> str:
        share, work_w = self._energy.measured_share, self._energy.work_w
        said = []
        if work_w is not None and share is not None:
            meter = self._source("power_w") or self._source("stored_joules") or self._source("charge")
            said.append(f"{share:.0%} of the work by {meter}: {work_w:.2f} W above idle")
        if self._board is not None and share != 1:
            said.append(f"profile {self._board_name}: {self._board.what}")
        return "; else ".join(said) or NOTHING

    def _radio_source(self) -> str:
        return (
            NOTHING
            if self._radio_name is None
            else f"profile {self._radio_name}: {radio_named(self._radio_name).what}"
        )

    def _now(self) -> Iterator[tuple[Reader, Taken]]:
        return ((r, t) for r, t in self._sampler.newest() if self._sampler.fresh(r, t))

    def _first(self, quantity: str) -> tuple[Reader, Taken] | None:
        """The first reader that tells a quantity, however long ago."""
        return next(
            (rt for rt in self._sampler.newest() if getattr(rt[1].sample, quantity) is not None), None
        )

    def _value(self, quantity: str) -> float | None:
        found = self._first(quantity)
        value = getattr(found[1].sample, quantity) if found and self._sampler.fresh(*found) else None
        return value if isinstance(value, float) else None

    def _source(self, quantity: str) -> str | None:
        found = self._first(quantity)
        return None if found is None else found[0].source

    def _origin(self, quantity: str) -> Origin | None:
        found = self._first(quantity)
        if found is None:
            return None
        return Origin.MODELLED if quantity in found[1].sample.inferred else Origin.MEASURED
