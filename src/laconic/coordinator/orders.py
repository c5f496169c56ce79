"""What whoever is in charge asks of a running coordinator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from laconic.coordinator import notes
from laconic.coordinator.course import Course
from laconic.errors import RemoteProtocolError
from laconic.node import Effect, Save


@dataclass(frozen=True, slots=True)
class Pause:
    """Open no more rounds of a campaign; one that is open is finished. It holds over restarts."""

    campaign: str


@dataclass(frozen=True, slots=True)
class Resume:
    """Open rounds again, as the schedule allows."""

    campaign: str


@dataclass(frozen=True, slots=True)
class Drain:
    """Open no more rounds of any campaign in this life of the process."""


@dataclass(frozen=True, slots=True)
class Keep:
    """Save what has not been saved: the process is about to end."""


@dataclass(frozen=True, slots=True)
class Rollback:
    """Bring back the weights of an older version of the model, as a new version."""

    campaign: str
    version: int


@dataclass(frozen=True, slots=True)
class Pin:
    """Keep a version's weights whatever its age, or no longer."""

    campaign: str
    version: int
    pinned: bool = True


Order: TypeAlias = Pause | Resume | Drain | Keep | Rollback | Pin


def carry_out(order: object, courses: Mapping[str, Course], now: float) -> list[Effect]:
    """Do what is asked. Raises `LaconicError`, and has changed nothing, if it cannot be done."""
    match order:
        case Pause(campaign):
            return notes.of(campaign, course_of(courses, campaign).pause(now))
        case Resume(campaign):
            return notes.of(campaign, course_of(courses, campaign).resume(now))
        case Drain():
            return [e for name, course in courses.items() for e in notes.of(name, course.drain(now))]
        case Keep():
            return [Save(entries) for c in courses.values() if (entries := c.ledger.unsaved())]
        case Rollback(campaign, version):
            return notes.of(campaign, course_of(courses, campaign).rollbacks.order(version, now))
        case Pin(campaign, version, pinned):
            return notes.of(campaign, course_of(courses, campaign).pin(version, pinned=pinned))
        case _:
            raise RemoteProtocolError("order", value=type(order).__name__, limit="one that is known")


def course_of(courses: Mapping[str, Course], campaign: str) -> Course:
    """The course of a campaign. Raises `RemoteProtocolError` for one that there is not."""
    if campaign not in courses:
        raise RemoteProtocolError("campaign", value=campaign, limit=", ".join(courses))
    return courses[campaign]
