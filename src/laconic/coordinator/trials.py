"""The trial of a new version: who is asked to measure it, when that is enough, and what follows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from laconic.coordinator import budgets, canary, notes
from laconic.coordinator.canary import Canary
from laconic.coordinator.ledger import online
from laconic.coordinator.offering import trial_offer_of
from laconic.coordinator.records import Status
from laconic.coordinator.registry import Entries
from laconic.node import Effect, Send
from laconic.protocol import topics
from laconic.protocol.messages import encode

if TYPE_CHECKING:
    from laconic.coordinator.course import Course


class Trials:
    """Runs the trials of one campaign, one at a time: while there is one, no round opens.

    Devices only measure the version, they do not train on it: there is nothing that could be lost, or be
    counted, when it is taken back.
    """

    def __init__(self, course: Course) -> None:
        self._course = course
        self._asked: set[str] = set()
        self._heard: set[str] = set()

    @property
    def on(self) -> Canary | None:
        """The trial that is on."""
        return self._course.custody.canary

    def begin(self, entries: Entries, publication: list[Effect], now: float) -> list[Effect]:
        """Let a part of the fleet measure the newest version; that, too, ends the round.

        `entries` save the version, `publication` brings it to the broker.
        """
        course = self._course
        closed, due = course.closing.balance(entries, now)
        trial = self._prepare(due)
        entries |= course.custody.try_out(trial)
        course.wait(now + course.campaign.models.canary_deadline_s)
        begun = notes.trial("begun", trial, reports=0)
        return [course.save(entries), *publication, closed, begun, *self.ask()]

    def _prepare(self, due: float) -> Canary:
        """The trial of the newest version; `due`: when the next round may open after it."""
        course, newest = self._course, self._course.registry.current
        c, here = course.campaign, [r.name for r in online(course.ledger, course.campaign.cohort)]
        begun = canary.begin(c.models, c.fleet, course.round.number, newest.version, newest.name, here)
        self._asked, self._heard = set(), set()
        return Canary(begun.version, begun.task, begun.share, due)

    def ask(self) -> list[Effect]:
        """Offer the trial to everybody who is here, is chosen, and owes an answer."""
        course = self._course
        names = [r.name for r in online(course.ledger, course.campaign.cohort)]
        return [effect for name in names for effect in self.arrived(name)]

    def arrived(self, device: str) -> list[Effect]:
        """A device is here: ask it, if it is chosen and has not answered."""
        course, trial = self._course, self.on
        record = course.ledger[device]
        if trial is None or device in self._heard or not record.online:
            return []
        c = course.campaign
        allowance = course.treasury.allowance(device)
        if not canary.members(trial, [device]) or budgets.refusal(record, c.eligibility, allowance):
            return []
        self._asked.add(device)
        base = course.registry.current
        offer = trial_offer_of(c, trial, course.round.number, base, bundle=course.bundle)
        return [Send(topics.device_task(device), encode(course.treasury.offer_to(device, offer)))]

    def left(self, device: str, now: float) -> list[Effect]:
        """A device has gone: the trial does not wait for it."""
        if device not in self._asked - self._heard:
            return []
        self._asked.discard(device)
        return self._enough(now)

    def answered(
        self, device: str, task: str, *, samples: int, loss: float | None, accuracy: float | None, now: float
    ) -> list[Effect] | None:
        """What a device says of the version; None if it is not the trial that it answers."""
        trial = self.on
        if trial is None or task != trial.task or device not in self._asked:
            return None
        self._heard.add(device)
        self._course.custody.heard(device, samples, loss, accuracy)
        return self._enough(now)

    def timed_out(self, now: float) -> list[Effect]:
        """The deadline has passed: go by the reports that there are, or ask more devices."""
        course, trial = self._course, self.on
        assert trial is not None
        reports, settings = course.custody.reports, course.campaign.models
        if reports >= settings.canary_reports or (reports and trial.share >= 1.0):
            return self._decide(now)
        course.wait(now + settings.canary_deadline_s)
        wider = canary.widened(trial)
        saved = [course.save(course.custody.try_out(wider))] if wider != trial else []
        return [*saved, notes.trial("extended", wider, reports=reports), *self.ask()]

    def _enough(self, now: float) -> list[Effect]:
        course = self._course
        if self._asked <= self._heard and course.custody.reports >= course.campaign.models.canary_reports:
            return self._decide(now)
        return []

    def _decide(self, now: float) -> list[Effect]:
        """There are reports enough: promote the version, or take it back."""
        course, trial = self._course, self.on
        assert trial is not None
        finding = course.custody.judge_newest()
        if finding.target is not None:
            return course.rollbacks.take_back(finding.target, finding.why, now)
        reports = course.custody.reports
        entries = course.registry.note(trial.version, status=Status.PUBLISHED)
        entries |= {**course.custody.settle(), **course.custody.try_out(None)}
        promoted = [course.offering.pointer(), notes.trial("passed", trial, reports=reports)]
        return course.closing.go_on(entries, promoted, now, trial.due)
