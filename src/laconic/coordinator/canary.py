"""A new version on trial: a part of the fleet measures it before everybody else is told of it."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from laconic.coordinator.verdict import ModelSettings
from laconic.protocol.identity import draws, selected, share_for, task_id


class Canary(msgspec.Struct, frozen=True):
    """The trial of the newest version. Its reports are not saved: whoever is asked again says them again."""

    version: int
    task: str
    share: float
    """The part of the fleet that is asked; it grows while too few report."""
    due: float = 0.0
    """When the next round may open, if the version is promoted."""


def begin(
    settings: ModelSettings, fleet: str, number: int, version: int, model: str, here: Iterable[str]
) -> Canary:
    """The trial of `version`, made by round `number`: the task's hash chooses, as it does for a round's.

    Enough of those who are `here` are asked to make up `canary_reports`.
    """
    # No fleet has a / in its name: the trial's task is no round's.
    task = task_id(f"{fleet}/canary", number, model)
    share = max(settings.canary_share, share_for(draws(here, task), settings.canary_reports))
    return Canary(version, task, share)


def widened(canary: Canary) -> Canary:
    """Twice as many are asked."""
    return msgspec.structs.replace(canary, share=min(1.0, 2 * canary.share))


def members(canary: Canary, names: Iterable[str]) -> list[str]:
    """Who among `names` is asked: each device finds the same."""
    return [name for name in names if selected(name, canary.task, canary.share)]
