"""How a round opens, and who is asked to work in it while it is open."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from laconic.coordinator import notes, rounds
from laconic.coordinator.campaign import Progress
from laconic.coordinator.ledger import online
from laconic.coordinator.staleness import PastTask, remember
from laconic.node import Effect
from laconic.protocol.identity import task_id

if TYPE_CHECKING:
    from laconic.coordinator.course import Course


class Opening:
    """Opens the rounds of one campaign, and asks more devices while too few have reported.

    Who is asked is saved, and booked in the ledger, before it is offered.
    """

    def __init__(self, course: Course) -> None:
        self._course = course

    def open(self, now: float) -> list[Effect]:
        """Open the next round from the newest version."""
        course, base = self._course, self._course.registry.current
        number = course.round.number
        task = task_id(course.campaign.fleet, number, base.name)
        past = PastTask(number, task, base.name, base.version)
        tasks = remember(course.progress.tasks, past, course.campaign.lateness)
        course.treasury.begin(task)
        picked = course.asking.first(task, number, now)
        course.treasury.book(picked.names, now)
        course.progress = Progress(
            number=number,
            open=True,
            opened_at=now,
            task=task,
            share=picked.share,
            expected=picked.names,
            tasks=tasks,
        )
        # Late updates that came before are in the book already.
        course.book.expected.update(picked.names)
        effects: list[Effect] = [
            self._saved(),
            *picked.notes,
            notes.opened(course.progress, base.version, fairness=course.asking.fairness()),
            *course.offering.offer(picked.names),
        ]
        late = len(course.book.late)
        for _ in picked.names:
            effects += course.step(rounds.Joined(), now)
        for _ in range(late):
            effects += course.reported_late(now)
        return effects

    def arrived(self, device: str, now: float) -> list[Effect]:
        """A device is here while the round is open: expect it, if it is chosen."""
        course = self._course
        effects: list[Effect] = []
        if device not in course.book.expected:
            if not course.asking.joins(device, course.progress, len(course.book.expected), now):
                return []
            course.asking.write_down([device], course.round.number)
            course.treasury.book([device], now)
            effects += self._expect([device], now)
        if course.campaign.targeted and course.book.awaits(device):
            effects += course.offering.offer([device])
        return effects

    def ask_more(self, now: float) -> list[Effect]:
        """Too few have reported: ask more, and those who owe an answer once more, by name.

        The hash would choose the same few for ever, and an offer may have been lost or displaced.
        """
        course, offering = self._course, self._course.offering
        picked = course.asking.more(course.progress, course.book.expected, now)
        wider = picked.share > course.progress.share
        course.progress = msgspec.structs.replace(course.progress, share=picked.share)
        new = [name for name in picked.names if name not in course.book.expected]
        course.treasury.book(new, now)
        here = online(course.ledger, course.campaign.cohort)
        owing = [r.name for r in here if course.book.awaits(r.name)]
        effects = [*picked.notes, *self._expect(new, now)]
        effects += offering.offer(new) if new or wider else []
        return effects + offering.offer(owing, direct=True)

    def _expect(self, devices: list[str], now: float) -> list[Effect]:
        """More devices are expected in the open round."""
        course = self._course
        course.book.expected.update(devices)
        effects: list[Effect] = []
        asked = course.progress.expected
        if course.campaign.selection.by_name and (new := set(devices).difference(asked)):
            expected = [*asked, *(name for name in devices if name in new)]
            course.progress = msgspec.structs.replace(course.progress, expected=expected)
            effects.append(self._saved())
        for _ in devices:
            effects += course.step(rounds.Joined(), now)
        return effects

    def _saved(self) -> Effect:
        return self._course.save({"progress": msgspec.msgpack.encode(self._course.progress)})
