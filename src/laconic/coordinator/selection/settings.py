"""`[selection]` of a coordinator's configuration: the strategy, its settings, and how long a device waits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from laconic.config import Section, within
from laconic.errors import ConfigError

UNIFORM, OORT, STRATIFIED = "uniform", "oort", "stratified"
STRATA: Final = ("samples", "charge", "groups")
_USUALLY_WAITING: Final = 100


class SelectionSection(Section, frozen=True):
    """`[selection]`: who is asked, and how long one may wait."""

    strategy: str = UNIFORM
    most_rounds_waiting: int | None = None
    """None: by the strategy."""
    strata: str = "samples"
    groups: str = ""
    exploration: float = 0.9
    exploration_decay: float = 0.98
    exploration_least: float = 0.2
    clip: float = 0.95
    joules_exponent: float = 0.5
    bytes_exponent: float = 0.5
    slow_exponent: float = 2.0
    fast_share: float = 0.8


@dataclass(frozen=True, slots=True)
class SelectionSettings:
    """How devices are chosen. See docs/selection.md."""

    strategy: str = UNIFORM
    """`uniform`, `oort`, `stratified`, or `package.module:function`."""
    most_rounds_waiting: int = 0
    """Whoever has waited so many rounds is asked first; 0: no such promise."""
    strata: str = "samples"
    groups: tuple[str, ...] = ()
    """Patterns of names, as in shells."""
    exploration: float = 0.9
    """Part of a round's devices, in round 1, that were never asked."""
    exploration_decay: float = 0.98
    """Factor on it from one round to the next."""
    exploration_least: float = 0.2
    clip: float = 0.95
    """Quantile of the devices' statistical utilities above which none counts."""
    joules_exponent: float = 0.5
    bytes_exponent: float = 0.5
    slow_exponent: float = 2.0
    """Of how many times longer than `fast_share` of the devices one takes."""
    fast_share: float = 0.8

    @property
    def by_name(self) -> bool:
        """Whether devices must be told by name that they are chosen: they cannot find out for themselves."""
        return self.strategy != UNIFORM or self.most_rounds_waiting > 0


def selection_of(section: SelectionSection, *, everybody: bool = False) -> SelectionSettings:
    """The settings that a table describes; `everybody`: a round asks all devices that are here.

    Raises `ConfigError` for values that cannot be, and for a choice where there is nothing to choose.
    """
    s = section
    if s.strategy not in (UNIFORM, OORT, STRATIFIED) and ":" not in s.strategy:
        raise ConfigError(
            "selection.strategy",
            value=s.strategy,
            limit=f"{UNIFORM}, {OORT}, {STRATIFIED}, or package.module:function",
        )
    if s.strata not in STRATA:
        raise ConfigError("selection.strata", value=s.strata, limit=", ".join(STRATA))
    groups = tuple(filter(None, (p.strip() for p in s.groups.split(","))))
    if s.strategy == STRATIFIED and s.strata == "groups" and not groups:
        raise ConfigError("selection.groups", value="none", limit='patterns of names with strata "groups"')
    within("selection.most_rounds_waiting", s.most_rounds_waiting or 0, 0, 10**9)
    within("selection.exploration", s.exploration, 0.0, 1.0)
    within("selection.exploration_decay", s.exploration_decay, 0.0, 1.0)
    within("selection.exploration_least", s.exploration_least, 0.0, 1.0)
    within("selection.clip", s.clip, 0.0, 1.0)
    within("selection.joules_exponent", s.joules_exponent, 0.0, 10.0)
    within("selection.bytes_exponent", s.bytes_exponent, 0.0, 10.0)
    within("selection.slow_exponent", s.slow_exponent, 0.0, 10.0)
    within("selection.fast_share", s.fast_share, 0.0, 1.0)
    usual = 0 if s.strategy == UNIFORM else _USUALLY_WAITING
    if everybody and s.strategy != UNIFORM:
        raise ConfigError(
            "selection.strategy",
            value=s.strategy,
            limit="uniform where every round asks everybody",
            remedy="set rounds.target_reports, or rounds.share below 1; a buffered round asks everybody",
        )
    return SelectionSettings(
        s.strategy,
        usual if s.most_rounds_waiting is None else s.most_rounds_waiting,
        s.strata,
        groups,
        s.exploration,
        s.exploration_decay,
        s.exploration_least,
        s.clip,
        s.joules_exponent,
        s.bytes_exponent,
        s.slow_exponent,
        s.fast_share,
    )
