"""`[rounds]` and `[schedule]` of a coordinator's configuration, and the plan that they describe."""

from __future__ import annotations

from laconic.config import Section, within
from laconic.coordinator.rounds import Plan, buffered
from laconic.coordinator.staleness import MOST_STALENESS, Lateness
from laconic.errors import ConfigError

SYNCHRONOUS, BUFFERED = "synchronous", "buffered"
REFUSE, FOLD = "refuse", "fold"


class RoundsSection(Section, frozen=True):
    """`[rounds]`: how many, with how many devices, how long, and what becomes of late updates."""

    mode: str = "synchronous"
    rounds: int = 20
    min_devices: int = 1
    min_reports: int = 1
    deadline_s: float = 600.0
    interval_s: float = 0.0
    target_reports: int = 0
    over_selection: float = 1.3
    buffer: int = 0
    late: str | None = None
    """None: by the mode."""
    max_staleness: int = 50
    staleness_exponent: float = 0.5
    share: float = 1.0
    targeted: bool = False
    exit_when_finished: bool = False


class ScheduleSection(Section, frozen=True):
    """`[schedule]`: when rounds may open, and when there have been enough."""

    start: str = ""
    end: str = ""
    days: str = ""
    time_zone: str = "UTC"
    paused: bool = False
    until_accuracy: float | None = None


def plan_of(section: RoundsSection) -> Plan:
    """How rounds are run. Raises `ConfigError` for values out of range, or that contradict one another."""
    s = section
    _one_of("rounds.mode", s.mode, SYNCHRONOUS, BUFFERED)
    within("rounds.rounds", s.rounds, 1, 10**9)
    within("rounds.min_devices", s.min_devices, 1, 10**9)
    within("rounds.min_reports", s.min_reports, 1, 10**9)
    within("rounds.deadline_s", s.deadline_s, 0.1, 1e7)
    within("rounds.interval_s", s.interval_s, 0.0, 1e7)
    within("rounds.target_reports", s.target_reports, 0, 10**9)
    within("rounds.over_selection", s.over_selection, 1.0, 100.0)
    within("rounds.buffer", s.buffer, 0, 10**9)
    plan = Plan(
        s.rounds,
        s.min_devices,
        s.min_reports,
        s.deadline_s,
        s.interval_s,
        s.target_reports,
        s.over_selection,
    )
    if (s.mode == BUFFERED) != (s.buffer > 0):
        raise ConfigError(
            "rounds.buffer", value=s.buffer, limit='1 or more with mode "buffered", 0 otherwise'
        )
    if s.target_reports and (s.mode == BUFFERED or s.share < 1.0):
        raise ConfigError(
            "rounds.target_reports",
            value=s.target_reports,
            limit=0,
            remedy="the number of devices is given once: by target_reports, buffer or share",
        )
    if max(s.buffer, s.target_reports) and s.min_reports > max(s.buffer, s.target_reports):
        raise ConfigError(
            "rounds.min_reports",
            value=s.min_reports,
            limit=max(s.buffer, s.target_reports),
            remedy="a round cannot close with fewer reports than its minimum: lower it, or raise the target",
        )
    return buffered(plan, s.buffer) if s.mode == BUFFERED else plan


def lateness_of(section: RoundsSection) -> Lateness:
    """What becomes of late updates: without a word in `late`, what suits the mode.

    Raises `ConfigError` for values out of range, or for a buffered mode that refuses.
    """
    s = section
    late = s.late or (FOLD if s.mode == BUFFERED else REFUSE)
    _one_of("rounds.late", late, REFUSE, FOLD)
    within("rounds.max_staleness", s.max_staleness, 1, MOST_STALENESS)
    within("rounds.staleness_exponent", s.staleness_exponent, 0.0, 10.0)
    if s.mode == BUFFERED and late == REFUSE:
        raise ConfigError("rounds.late", value=late, limit=f'"{FOLD}" with mode "{BUFFERED}"')
    return Lateness(s.max_staleness if late == FOLD else 0, s.staleness_exponent)


def _one_of(key: str, value: str, *known: str) -> None:
    if value not in known:
        raise ConfigError(key, value=value, limit=", ".join(known))
