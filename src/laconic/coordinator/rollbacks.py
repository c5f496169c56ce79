"""Versions that are refused, and versions that are taken back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from laconic.coordinator import notes, rounds
from laconic.coordinator.advance import Score, Version
from laconic.coordinator.custody import Finding
from laconic.coordinator.registry import Entries
from laconic.coordinator.way_back import WayBack, way_back
from laconic.errors import ConfigError
from laconic.node import Effect

if TYPE_CHECKING:
    from laconic.coordinator.course import Course


class Rollbacks:
    """Keeps a campaign's newest version from being a bad one.

    A rollback is decided and written down first; it is done when the way back has been computed, and it is
    begun again by a process that finds one that is not done.
    """

    def __init__(self, course: Course) -> None:
        self._course = course

    def order(self, version: int, now: float) -> list[Effect]:
        """Bring back the weights of an older version, as a new one: somebody wants it so.

        Raises `ConfigError` for a version whose weights are not kept, or are those of the newest.
        """
        registry = self._course.registry
        if registry.weights_of(version).tobytes() == registry.weights.tobytes():
            raise ConfigError(
                "version to roll back to",
                value=version,
                limit=f"one with other weights than the newest, {registry.current.version}",
            )
        return self.take_back(version, "by hand", now)

    def refuse(self, candidate: Version, finding: Finding, now: float) -> list[Effect]:
        """Do not publish a candidate, and drop its round's updates: folded again they would be as bad again.

        Residual, optimizer and echo stay what they are for the newest version; but devices were told that
        their updates would sound.
        """
        assert finding.target is not None
        course, book, number = self._course, self._course.book, self._course.round.number
        entries = course.registry.refuse(
            candidate,
            now,
            round_number=number,
            updates=book.updates,
            silent=book.silent,
            samples=book.samples,
            why=finding.why,
        )
        score = candidate.score
        loss, accuracy = (None, None) if score is None else (score.loss, score.accuracy)
        refused = notes.refused(number, book, loss=loss, accuracy=accuracy, why=finding.why)
        course.server.hush()
        entries |= {**course.closing.taken(), "server-echo": None}
        if finding.target == course.registry.current.version:
            return course.closing.end(entries, [refused], now)
        closed, _ = course.closing.balance(entries, now)
        return [refused, closed, *self.take_back(finding.target, finding.why, now, entries)]

    def take_back(self, target: int, why: str, now: float, entries: Entries | None = None) -> list[Effect]:
        """Begin to replace the newest version by an older one; `entries` are saved with the decision."""
        course, asked = self._course, self._course.custody.request
        again = asked.again if asked is not None else not (course.progress.open or course.advancing)
        entries = {**(entries or {}), **course.custody.ask(target, why, again=again)}
        return [course.save(entries), *course.step(rounds.TakenBack(), now), self.go_back()]

    def go_back(self) -> Effect:
        """Compute the way back that has been decided on."""
        course, registry, request = self._course, self._course.registry, self._course.custody.request
        assert request is not None
        weights, schema = registry.weights, course.schema
        target, record = registry.weights_of(request.target), registry[request.target]
        score = None if record.loss is None else Score(record.loss, record.accuracy)
        return course.closing.compute(
            lambda: way_back(weights, target, schema, version=request.target, why=request.why, score=score)
        )

    def went_back(self, back: WayBack, now: float) -> list[Effect]:
        """An older version's weights are the newest again.

        What was learnt from the models in between is dropped: the updates committed and not folded, and the
        tasks whose updates would still be taken. Devices keep what they have not sent.
        """
        course, closing = self._course, self._course.closing
        request, dropped = course.custody.request, course.book.updates
        assert request is not None
        entries = closing.taken()
        course.book.norms.clear()
        open_round = course.progress.open
        closed, _ = closing.balance(entries, now)
        # Nobody was kept from working but by this: the next round needs no pause.
        due = course.progress.opened_at + course.campaign.plan.interval_s
        entries |= course.custody.go_back(
            back, now, round_number=course.round.number, settings=course.campaign.digest()
        )
        course.server.hush()
        course.progress = msgspec.structs.replace(course.progress, tasks=[])
        current = course.registry.current
        publication = [*course.registry.publish_newest(*back.steps), course.offering.pointer()]
        publication += [notes.rolled_back(current, dropped=dropped), *([closed] if open_round else [])]
        return closing.go_on(entries, publication, now, due, again=request.again)
