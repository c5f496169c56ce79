"""The round machine: a table from (phase, what happened) to (next phase, what to do).

Pure: time is an argument, the machine counts devices and knows none of them. The rules are in `TABLE`; an
input that has no row in a phase changes nothing there. docs/rounds.md shows the table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from types import MappingProxyType
from typing import Final, TypeAlias


class Phase(Enum):
    """Where a round stands."""

    WAITING = "waiting"
    """Too few devices are here, or the next round is not due yet."""
    PAUSED = "paused"
    """The schedule opens no round now, or the campaign is paused by hand."""
    COLLECTING = "collecting"
    """The task is on offer; reports come in."""
    ADVANCING = "advancing"
    """Enough reports are in; the next model is computed and tried, or one of before is brought back."""
    FINISHED = "finished"
    """The last round is over, or the model is as good as it was to become."""


EVERYBODY: Final = math.inf
"""Over-selection that asks every device that is here."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How rounds are run.

    A round with `target_reports` closes as soon as so many reports are in, and asks more devices than that:
    the slow and the dead among them are not waited for (Bonawitz et al., "Towards Federated Learning at
    Scale", MLSys 2019, section 2.2). Without a target a round waits for everybody who was asked.
    """

    rounds: int
    """How many rounds in all."""
    min_devices: int
    """A round opens only when so many devices are here."""
    min_reports: int
    """A round closes at its deadline only with so many reports (updates and skips)."""
    deadline_s: float
    """Seconds after which a round no longer waits for the rest."""
    interval_s: float = 0.0
    """Seconds from the opening of one round to the opening of the next, at least."""
    target_reports: int = 0
    """A round closes with so many reports; 0 for as many as are expected."""
    over_selection: float = 1.3
    """With a target: devices asked, in targets."""

    @property
    def asks_all(self) -> bool:
        """Whether a target is reached by asking everybody."""
        return bool(self.target_reports) and self.over_selection == EVERYBODY

    def asked(self, here: int) -> int:
        """How many of `here` devices a round asks, all if there is no target."""
        if not self.target_reports or self.over_selection * self.target_reports >= here:
            return here
        # 10 x 1.1 is more than 11 in floating point, and must not ask a twelfth.
        return min(here, math.ceil(self.over_selection * self.target_reports - 1e-9))

    def enough(self, expected: int) -> int:
        """How many reports close a round in which so many devices are expected."""
        wanted = min(self.target_reports, expected) if self.target_reports else expected
        return max(wanted, self.min_reports)


def buffered(plan: Plan, buffer: int) -> Plan:
    """The plan of buffered-asynchronous rounds: everybody is asked, and a round closes with `buffer` reports.

    With late updates folded (`laconic.coordinator.staleness`) this is FedBuff (Nguyen et al., AISTATS 2022):
    a version for every `buffer` updates, each from whatever version its device began with.
    """
    return replace(plan, target_reports=buffer, over_selection=EVERYBODY)


@dataclass(frozen=True, slots=True)
class Round:
    """The state of the machine."""

    number: int
    phase: Phase
    expected: int = 0
    reported: int = 0
    deadline: float | None = None
    """When `TimedOut` is due, in seconds on the driver's clock."""


# --- what happens


@dataclass(frozen=True, slots=True)
class Present:
    """So many eligible devices are here."""

    devices: int


@dataclass(frozen=True, slots=True)
class Held:
    """No round may open before `until`, in seconds on the driver's clock; None: not in this life."""

    until: float | None


@dataclass(frozen=True, slots=True)
class Joined:
    """One more device is expected to report."""


@dataclass(frozen=True, slots=True)
class Reported:
    """A report of an expected device counts for the first time in this round, or a late one that joined."""


@dataclass(frozen=True, slots=True)
class Left:
    """An expected device has gone before it reported."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """An open round has been restored; it may be complete already."""


@dataclass(frozen=True, slots=True)
class TimedOut:
    """The deadline has passed."""


@dataclass(frozen=True, slots=True)
class TakenBack:
    """The newest model is to be replaced by one of before, whatever is going on: a round ends without one."""


@dataclass(frozen=True, slots=True)
class Advanced:
    """The next model is computed and saved; `reached`: it is as good as it was to become; `again`: no round
    has ended by it, and the same one comes next."""

    reached: bool = False
    again: bool = False


Input: TypeAlias = Present | Held | Joined | Reported | Left | Resumed | TimedOut | TakenBack | Advanced


class Action(Enum):
    """What the engine is to do."""

    OPEN = "publish the task"
    CLOSE = "compute the next model"
    EXTEND = "wait on: too few reports"
    FINISH = "offer the last model without work"


Result: TypeAlias = tuple[Round, Action | None]
_Rule: TypeAlias = Callable[[Plan, Round, Input, float], Result]


def begin(number: int) -> Round:
    """The machine before round `number` has opened."""
    return Round(number, Phase.WAITING)


def resume(number: int, *, expected: int, reported: int, deadline: float) -> Round:
    """The machine of a round that was open when the process ended."""
    return Round(number, Phase.COLLECTING, expected, reported, deadline)


def _open(plan: Plan, state: Round, given: Input, now: float) -> Result:
    assert isinstance(given, Present)
    due = state.deadline is None or now >= state.deadline
    if given.devices < plan.min_devices or not due:
        return state, None
    return Round(state.number, Phase.COLLECTING, deadline=now + plan.deadline_s), Action.OPEN


def _held(plan: Plan, state: Round, given: Input, now: float) -> Result:
    assert isinstance(given, Held)
    return Round(state.number, Phase.PAUSED, deadline=given.until), None


def _released(plan: Plan, state: Round, given: Input, now: float) -> Result:
    return begin(state.number), None


def _not_due(plan: Plan, state: Round, given: Input, now: float) -> Result:
    return replace(state, deadline=None), None


def _joined(plan: Plan, state: Round, given: Input, now: float) -> Result:
    return replace(state, expected=state.expected + 1), None


def _reported(plan: Plan, state: Round, given: Input, now: float) -> Result:
    return _close_if_complete(plan, replace(state, reported=state.reported + 1))


def _left(plan: Plan, state: Round, given: Input, now: float) -> Result:
    return _close_if_complete(plan, replace(state, expected=state.expected - 1))


def _resumed(plan: Plan, state: Round, given: Input, now: float) -> Result:
    return _close_if_complete(plan, state)


def _close_if_complete(plan: Plan, state: Round) -> Result:
    if state.reported >= plan.enough(state.expected):
        return replace(state, phase=Phase.ADVANCING, deadline=None), Action.CLOSE
    return state, None


def _timed_out(plan: Plan, state: Round, given: Input, now: float) -> Result:
    if state.reported >= plan.min_reports:
        return replace(state, phase=Phase.ADVANCING, deadline=None), Action.CLOSE
    # What was committed must reach the model: a round is never thrown away, it waits for its minimum.
    return replace(state, deadline=now + plan.deadline_s), Action.EXTEND


def _advanced(plan: Plan, state: Round, given: Input, now: float) -> Result:
    assert isinstance(given, Advanced)
    if given.again and not given.reached:
        return begin(state.number), None
    if given.reached or state.number >= plan.rounds:
        return Round(state.number, Phase.FINISHED), Action.FINISH
    return begin(state.number + 1), None


def _taken_back(plan: Plan, state: Round, given: Input, now: float) -> Result:
    return Round(state.number, Phase.ADVANCING), None


TABLE: Final[Mapping[tuple[Phase, type[Input]], _Rule]] = MappingProxyType(
    {
        (Phase.WAITING, Present): _open,
        (Phase.WAITING, TimedOut): _not_due,
        (Phase.WAITING, Held): _held,
        (Phase.PAUSED, TimedOut): _released,
        (Phase.COLLECTING, Joined): _joined,
        (Phase.COLLECTING, Reported): _reported,
        (Phase.COLLECTING, Left): _left,
        (Phase.COLLECTING, Resumed): _resumed,
        (Phase.COLLECTING, TimedOut): _timed_out,
        (Phase.ADVANCING, Advanced): _advanced,
        **{(phase, TakenBack): _taken_back for phase in Phase},
    }
)


def step(plan: Plan, state: Round, given: Input, now: float) -> Result:
    """The next state, and what the engine is to do about it."""
    rule = TABLE.get((state.phase, type(given)))
    return (state, None) if rule is None else rule(plan, state, given, now)
