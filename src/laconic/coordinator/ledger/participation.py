"""How a device has taken part in a campaign: what choosing the next ones needs to know."""

from __future__ import annotations

import msgspec


class Participation(msgspec.Struct, frozen=True, array_like=True):
    """One device's part in its cohort's campaign; another cohort's is nothing to this one."""

    cohort: str = ""
    """Whose campaign; "" if no round has had the device to choose from."""
    asked: int = 0
    """How often it has been asked."""
    asked_round: int = 0
    """In which round it was asked last; 0 for never."""
    waits_since: int = 0
    """That round, or the one before the first in which it could have been asked."""
    loss: float | None = None
    """Mean training loss of the first epoch, as it has told last."""

    def waited(self, number: int) -> int:
        """Rounds that it has waited when round `number` opens."""
        return max(0, number - 1 - self.waits_since) if self.cohort else 0


def in_campaign(participation: Participation, cohort: str) -> Participation:
    """The part that a device has had in a cohort's campaign, none if it comes from another."""
    return participation if participation.cohort == cohort else Participation()


def seen(participation: Participation, cohort: str, number: int) -> Participation:
    """After round `number` has had the device to choose from."""
    known = in_campaign(participation, cohort)
    return known if known.cohort else Participation(cohort, waits_since=number - 1)


def asked(participation: Participation, cohort: str, number: int) -> Participation:
    """After the device has been asked in round `number`; asked twice in it, it counts once."""
    known = seen(participation, cohort, number)
    if known.asked and known.asked_round == number:
        return known
    return msgspec.structs.replace(known, asked=known.asked + 1, asked_round=number, waits_since=number)


def told(participation: Participation, cohort: str, loss: float | None) -> Participation:
    """After the device has trained, with the loss that it tells, if it tells one."""
    known = in_campaign(participation, cohort)
    # Before any round has chosen from it, it cannot wait: what it tells counts from then on.
    return known if loss is None or not known.cohort else msgspec.structs.replace(known, loss=loss)
