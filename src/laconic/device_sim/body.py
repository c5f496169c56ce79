"""A host's body: board, radio, battery, charger and user, integrated in closed form from event to event.

Every load is piecewise constant, so that the charge is piecewise linear and nothing ticks:
dE/dt = charger - (idle + user + computing + radio + self-discharge), from empty to full. A full battery's
charger gives what the loads take. An empty one's host is off: nothing but the charger and self-discharge go
on, until the charge is at the level at which it starts again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, isfinite
from typing import Final

from laconic.device_sim.energy import Ledger, Part
from laconic.device_sim.radio import Radio, RadioPower, State, compiled
from laconic.device_sim.signals import DAY_S, Constant, Signal
from laconic.errors import ConfigError, LocalProtocolError
from laconic.profiles import Battery as BatteryProfile
from laconic.profiles import Board, Origin, profiles
from laconic.profiles import Radio as RadioProfile

MONTH_S: Final = 30 * DAY_S
_NONE: Final = Constant(0.0)
_RADIO_PART: Final = (Part.RADIO_IDLE.value, Part.PROMOTION.value, Part.ACTIVE.value, Part.TAIL.value)
"""By `State`."""
_IDLE, _USER, _COMPUTE = Part.IDLE.value, Part.USER.value, Part.COMPUTE.value
_RADIO_IDLE, _LEAK, _CHARGED = Part.RADIO_IDLE.value, Part.SELF_DISCHARGE.value, Part.CHARGED.value


@dataclass(frozen=True, slots=True)
class Cell:
    """A battery. `restart`: the charge, 0 to 1, at which an empty host starts again."""

    capacity_j: float
    self_discharge_w: float = 0.0
    restart: float = 0.05

    def __post_init__(self) -> None:
        if not (0 < self.capacity_j < inf and 0 <= self.self_discharge_w < inf and 0 < self.restart <= 1):
            raise ConfigError("battery", value=self, limit="a capacity above 0, a restart above 0, at most 1")


def cell(mah: float, taken: BatteryProfile | None = None) -> Cell:
    """A battery of so many mAh: E = mAh x 3.6 x V, with the voltage and self-discharge of the profiles.

    Self-discharge is a constant power, so much of the capacity a month of thirty days.
    """
    p = taken or profiles().battery
    joules = mah * 3.6 * p.voltage_v.value
    return Cell(joules, joules * p.self_discharge.value / MONTH_S, p.restart_charge.value)


@dataclass(frozen=True, slots=True)
class Build:
    """What hosts of one kind are made of; they share it."""

    idle_w: float = 0.0
    compute_w: float = 0.0
    """Above idle, while a job runs."""
    radio: RadioPower | None = None
    cell: Cell | None = None
    """None: on mains."""
    origins: Mapping[Part, Origin] | None = None

    @property
    def most_w(self) -> float:
        """No load is larger, the user's apart."""
        leak = self.cell.self_discharge_w if self.cell else 0.0
        return self.idle_w + self.compute_w + (self.radio.most_w if self.radio else 0.0) + leak


def build(
    board: Board, radio: RadioProfile | None = None, *, cores: int = 1, battery: Cell | None = None
) -> Build:
    """A host by the profiles; jobs run on so many cores.

    Power = idle + (load - idle) x cores at work / cores there are. Raises `ConfigError` for more cores than
    there are.
    """
    if not 1 <= cores <= board.cores:
        raise ConfigError("cores that jobs run on", value=cores, limit=f"1 to {board.cores}")
    power = compiled(radio) if radio else None
    # The linear step from idle to load is this model's, so no better than derived.
    origins = {Part.IDLE: board.idle_w.origin, Part.COMPUTE: Origin.DERIVED}
    if board.load_w.origin is Origin.ASSUMED:
        origins[Part.COMPUTE] = Origin.ASSUMED
    if power:
        origins |= {Part(_RADIO_PART[state]): power.origins[state] for state in State}
    if battery:
        origins[Part.SELF_DISCHARGE] = profiles().battery.self_discharge.origin
    return Build(board.idle_w.value, board.core_w * cores, power, battery, origins)


class Body:
    """One host's energy from its first moment on. All times are seconds of the world's clock."""

    __slots__ = (
        "_charger",
        "_jobs",
        "_most_w",
        "_user",
        "build",
        "charger",
        "energy_j",
        "ledger",
        "on",
        "radio",
        "start_j",
        "t",
        "user",
    )

    def __init__(
        self,
        build: Build,
        *,
        charge: float = 1.0,
        charger: Signal = _NONE,
        user: Signal = _NONE,
        start_s: float = 0.0,
    ) -> None:
        """`charge`: 0 to 1 at `start_s`; `charger` and `user`: watts. Raises `ConfigError`."""
        if not 0.0 <= charge <= 1.0:
            raise ConfigError("charge of a battery", value=charge, limit="0 to 1")
        if not (isfinite(charger.most) and isfinite(user.most)):
            raise ConfigError("power of charger or user", value=(charger.most, user.most), limit="finite")
        self.build, self.charger, self.user = build, charger, user
        self.radio = Radio(build.radio) if build.radio else None
        self.ledger = Ledger()
        self.start_j = self.energy_j = charge * build.cell.capacity_j if build.cell else 0.0
        self.on = build.cell is None or self.energy_j > 0
        self.t = start_s
        self._jobs = 0
        self._most_w = build.most_w + user.most
        self._charger = self._user = (0.0, -inf)
        """The present values, and until when they hold: from then on they are looked up."""

    @property
    def charge(self) -> float | None:
        """State of charge, 0 to 1; None without a battery."""
        return self.energy_j / self.build.cell.capacity_j if self.build.cell else None

    @property
    def charging(self) -> bool:
        """Whether power comes from outside; always so without a battery."""
        return self.build.cell is None or self.charger.at(self.t)[0] > 0

    def advance(self, to: float) -> None:
        """Let time pass until `to`; a battery that runs empty on the way switches the host off there."""
        if to > self.t:
            if self._rests_until(to):
                self._rest(to)
                return
            self._walk(to, book=True)
            if self.radio:
                self.radio.forget(self.t)

    def _rests_until(self, to: float) -> bool:
        """Whether all powers stay as they are, and no battery may run empty: mains, most of the time."""
        return (
            self.build.cell is None
            and self.on
            and to <= self._charger[1]
            and to <= self._user[1]
            and (self.radio is None or self.radio.rests(self.t))
        )

    def _rest(self, to: float) -> None:
        """One piece of `_walk`, to the last bit."""
        build, joules, seconds = self.build, self.ledger.joules, to - self.t
        idle_w, user_w = build.idle_w, self._user[0]
        busy_w = build.compute_w if self._jobs else 0.0
        radio_w = build.radio.idle_w if build.radio else 0.0
        joules[_IDLE] += idle_w * seconds
        joules[_USER] += user_w * seconds
        joules[_COMPUTE] += busy_w * seconds
        joules[_RADIO_IDLE] += radio_w * seconds
        joules[_CHARGED] += (idle_w + user_w + busy_w + radio_w) * seconds
        self.t = to

    def begin_job(self) -> None:
        """A job begins now: where `advance` has come to."""
        self._jobs += 1

    def end_job(self) -> None:
        """A job is over. Raises `LocalProtocolError` if none runs."""
        if not self._jobs:
            raise LocalProtocolError("jobs that run", value=0, limit="at least 1")
        self._jobs -= 1

    def close_transfer(self, up_bytes: float, down_bytes: float) -> None:
        """An open transfer is over: what its bytes took is taken at once, as far as the battery has it."""
        if self.radio is None:
            return
        self.radio.close(self.t)
        power = self.radio.power
        joules = up_bytes * power.up_j_per_byte + down_bytes * power.down_j_per_byte
        if self.build.cell:
            joules = min(joules, self.energy_j)
            self.energy_j -= joules
            self.on = self.on and self.energy_j > 0
        else:
            self.ledger.add(Part.CHARGED, joules)
        self.ledger.add(Part.ACTIVE, joules)

    def stop(self) -> None:
        """Nothing runs and nothing is sent any more: the process is gone."""
        self._jobs = 0
        if self.radio:
            self.radio.cut(self.t)

    def switch_on(self) -> None:
        """Start an empty host that has been charged. Raises `LocalProtocolError` below its level."""
        cell = self.build.cell
        if cell and self.energy_j < cell.restart * cell.capacity_j * (1 - 1e-12):
            raise LocalProtocolError("charge at which a host starts", value=self.charge, limit=cell.restart)
        self.on = True

    def empty_at(self, horizon_s: float) -> float:
        """When the battery will be empty if nothing more is begun; infinity if not before `horizon_s`."""
        if not self.build.cell or not self.on:
            return inf
        return self._walk(horizon_s, book=False)

    def charged_at(self, horizon_s: float) -> float:
        """When an empty host may start again; infinity if not before `horizon_s`."""
        if not self.build.cell or self.on:
            return inf
        return self._walk(horizon_s, book=False)

    def lasts_s(self) -> float:
        """Seconds that the battery lasts at least, whatever is begun."""
        if not self.build.cell:
            return inf
        return self.energy_j / self._most_w if self._most_w else inf

    def imbalance(self) -> float:
        """What the ledger is off by, relative to what has passed through it: rounding alone."""
        if not self.build.cell:
            return 0.0
        spent, charged = self.ledger.spent, self.ledger[Part.CHARGED]
        passed = max(spent, charged, self.start_j, 1e-300)
        return abs(self.start_j - self.energy_j + charged - spent) / passed

    def _walk(self, to: float, *, book: bool) -> float:
        """From where we are to `to`, piece by piece; returns when the host's state turned, or infinity.

        With `book` it happens; else it is only looked at, and the walk ends where the state turns: where a
        host that is on runs empty, or one that is off may start.
        """
        cell, joules, on, t, energy = self.build.cell, self.ledger.joules, self.on, self.t, self.energy_j
        capacity = cell.capacity_j if cell else 0.0
        level = cell.restart * capacity if cell else 0.0
        turned = inf
        (charger_w, charger_until), (users_w, user_until) = self._charger, self._user
        while t < to:
            idle_w = user_w = busy_w = radio_w = leak_w = 0.0
            if t >= charger_until:
                charger_w, charger_until = self.charger.at(t)
            stop = to if to < charger_until else charger_until
            part = _RADIO_IDLE
            if on:
                idle_w, busy_w = self.build.idle_w, self.build.compute_w if self._jobs else 0.0
                if t >= user_until:
                    users_w, user_until = self.user.at(t)
                user_w = users_w
                if user_until < stop:
                    stop = user_until
                if self.radio:
                    state, radio_w, until = self.radio.at(t)
                    part = _RADIO_PART[state]
                    if until < stop:
                        stop = until
            if cell:
                # What is empty leaks no more than comes in.
                leak_w = cell.self_discharge_w if energy > 0 else min(cell.self_discharge_w, charger_w)
            seconds = stop - t
            into_w = out_w = idle_w + user_w + busy_w + radio_w + leak_w
            net_w = charger_w - out_w
            after = energy
            if cell and not (net_w > 0 and energy >= capacity):
                into_w, after = charger_w, energy + net_w * seconds
                if not (on or book) and (energy >= level or after >= level):
                    return t + max(0.0, level - energy) / net_w if energy < level else t
                if net_w > 0 and after >= capacity:
                    seconds, after = (capacity - energy) / net_w, capacity
                    stop = min(stop, t + seconds)
                elif net_w < 0 and after <= 0:
                    seconds, after = energy / -net_w, 0.0
                    stop = min(stop, t + seconds)
            if book:
                joules[_IDLE] += idle_w * seconds
                joules[_USER] += user_w * seconds
                joules[_COMPUTE] += busy_w * seconds
                joules[part] += radio_w * seconds
                joules[_LEAK] += leak_w * seconds
                joules[_CHARGED] += into_w * seconds
            t, energy = stop, after
            if cell and on and energy <= 0:
                turned, on = t, False
                if not book:
                    break
                self._jobs = 0
                self.radio = Radio(self.build.radio) if self.build.radio else None
        if book:
            self.t, self.energy_j, self.on = t, energy, on
            self._charger, self._user = (charger_w, charger_until), (users_w, user_until)
        return turned
