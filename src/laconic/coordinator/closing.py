"""How a round closes: its updates become a version, and one write says so and how the round has ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from laconic.coordinator import notes, rounds, scaffold
from laconic.coordinator.advance import Version, advance, full_frame
from laconic.coordinator.aggregation import optimizers
from laconic.coordinator.aggregation.gathering import gathered
from laconic.coordinator.aggregation.rule import aggregate
from laconic.coordinator.campaign import Progress
from laconic.coordinator.history import Tally
from laconic.coordinator.records import Status
from laconic.coordinator.registry import Entries
from laconic.coordinator.rounds import Phase
from laconic.coordinator.way_back import WayBack
from laconic.node import Compute, Effect
from laconic.schema import Vector

if TYPE_CHECKING:
    from laconic.coordinator.course import Course

_NOBODY_WORKED_S = 60.0

ADVANCE = "advance/"
"""Jobs that compute a campaign's next version are named so, with the cohort."""


class Closing:
    """Ends the rounds of one campaign, whatever comes of them."""

    def __init__(self, course: Course) -> None:
        self._course = course
        self._turn = 0
        """Number of the last computation: what an earlier one brings has been overtaken."""

    # --- the next version

    def close(self, now: float) -> list[Effect]:
        """No more reports are taken: compute the next version, if anybody had anything to say."""
        course, book = self._course, self._course.book
        finding = course.custody.judge_newest()
        if finding.target is not None:
            return course.rollbacks.take_back(finding.target, finding.why, now)
        echo, weights = course.server.fleet_echo, course.registry.weights
        if not book.updates and not (book.samples and echo.outweighs_silence(weights)):
            # The next round starts from the same version.
            return self.end({}, [], now)
        return [self.compute(self._next_version())]

    def compute(self, work: Callable[[], Version | WayBack]) -> Effect:
        """Let `work` be done away from the event loop; `advanced` takes what comes of it."""
        self._turn += 1
        turn = self._turn
        return Compute(ADVANCE + self._course.campaign.cohort, lambda: (turn, work()))

    def _next_version(self) -> Callable[[], Version]:
        """What computes it, from values that no later message changes."""
        course, c, registry = self._course, self._course.campaign, self._course.registry
        server, schema, evaluate = course.server, course.schema, course.subject.scorer()
        sounding, number = server.fleet_echo, course.round.number
        weights, residual, seed = registry.weights, registry.residual, registry.current.version + 1
        full, must_be_whole = registry.wants_full(), registry.must_be_whole()
        summary = self._summary(seed)
        controls = server.controls_after(course.book.fold)
        samples = scaffold.taking_part(course.ledger, c.cohort) if controls.size else 0

        def compute() -> Version:
            mean = summary()
            moments, change = optimizers.step(c.server, server.moments(), sounding.added(mean))
            change = scaffold.step(
                change, controls, samples, weights=weights, residual=residual, schema=schema
            )
            version = advance(
                weights,
                residual,
                change,
                schema,
                codec=c.delta_codec,
                seed=seed,
                full=full,
                evaluate=evaluate,
            )
            if version.full is None and must_be_whole(version):
                version = replace(version, full=full_frame(version.weights, schema, c.delta_codec))
            return replace(version, moments=moments, echo=sounding.after(mean, c.echo, number))

        return compute

    def _summary(self, seed: int) -> Callable[[], Vector]:
        """What makes the round's one update, once everything is saved."""
        course, rule = self._course, self._course.campaign.aggregation
        if rule.streams:
            mean = course.book.fold.mean()
            return lambda: mean
        keys, idle, store, schema = course.book.keys(), course.book.idle, course.store, course.schema

        def summary() -> Vector:
            rows = gathered(store, keys, schema, silent=idle, memory_bytes=rule.memory_bytes)
            return aggregate(rule, rows, seed)

        return summary

    def advanced(self, result: object, now: float) -> list[Effect]:
        """The next version has been computed: save it, publish it, and end the round."""
        if isinstance(result, Exception):
            # Nothing is lost: the updates are in the store, and a restart comes back to this point.
            raise result
        assert isinstance(result, tuple)
        turn, result = result
        if turn != self._turn:
            return []
        if isinstance(result, WayBack):
            return self._course.rollbacks.went_back(result, now)
        assert isinstance(result, Version)
        course, book = self._course, self._course.book
        if result.digest == course.registry.current.weights:
            # A version is known by its weights: one that changed nothing would be its own parent.
            kept = course.registry.keep(result)
            return self.end({**kept, **course.server.remember(result), **self.taken()}, [], now)
        finding, tries = course.custody.judge_candidate(result), course.campaign.models.tries
        if finding.target is not None:
            return course.rollbacks.refuse(result, finding, now)
        entries = course.custody.settle()
        entries |= course.registry.add(
            result,
            now,
            round_number=course.round.number,
            updates=book.updates,
            silent=book.silent,
            samples=book.samples,
            status=Status.CANDIDATE if tries else Status.PUBLISHED,
            worse=finding.worse,
            why=finding.why,
            settings=course.campaign.digest(),
        )
        entries |= {**course.server.remember(result), **self.taken()}
        publication = [*course.registry.publish_newest(result), notes.version(course.registry.current)]
        if tries:
            return course.trials.begin(entries, publication, now)
        return self.end(entries, [*publication, course.offering.pointer()], now)

    # --- the end of a round

    def taken(self) -> Entries:
        """Takes every committed update out of the store."""
        book = self._course.book
        late = {f"late/{device}/{update}": None for update, device in book.late.items()}
        return {**{f"update/{device}": None for device in book.committed}, **late}

    def end(self, entries: Entries, publication: list[Effect], now: float) -> list[Effect]:
        """One `Save` takes the folded updates out and the new version in; only then is it published."""
        closed, due = self.balance(entries, now)
        return self.go_on(entries, [*publication, closed], now, due)

    def balance(self, entries: Entries, now: float) -> tuple[Effect, float]:
        """Close the book, with what is to be saved of it; returns a note and when the next round may open."""
        course, book, plan = self._course, self._course.book, self._course.campaign.plan
        closed = notes.closed(course.round.number, book, seconds=now - course.progress.opened_at)
        for name in book.unheard():
            course.ledger.vanished(name, course.progress.task)
        entries |= {**self._recorded(now), **course.server.close(book)}
        due = course.progress.opened_at + plan.interval_s
        if not book.samples:
            # Nobody has worked (no battery, no data): asking again at once would not help them.
            due = max(due, now + min(_NOBODY_WORKED_S, plan.deadline_s))
        course.book = course.new_book()
        entries |= course.custody.settle()
        course.progress = msgspec.structs.replace(course.progress, open=False, expected=[])
        entries["progress"] = msgspec.msgpack.encode(course.progress)
        return closed, due

    def go_on(
        self,
        entries: Entries,
        publication: list[Effect],
        now: float,
        due: float,
        *,
        again: bool = False,
    ) -> list[Effect]:
        """Save how a round has ended, and go on with the next one; `again`: with the same one."""
        course = self._course
        over = course.reached() or (again and course.progress.finished)
        after = course.step(rounds.Advanced(over, again), now)
        course.progress = Progress(
            number=course.round.number,
            opened_at=course.progress.opened_at,
            finished=course.finished,
            tasks=course.progress.tasks,
        )
        if course.round.phase is Phase.WAITING and due > now:
            course.wait(due)
        entries |= {"progress": msgspec.msgpack.encode(course.progress)}
        effects = [course.save(entries), *publication, *after]
        if course.finished:
            return effects + course.offering.offer([], work=False)
        opened = course.try_open(now)
        if not course.collecting and not course.campaign.targeted:
            # Whoever comes before the next round must not work for the last one.
            effects.append(course.offering.withdraw())
        return effects + opened

    def _recorded(self, now: float) -> Entries:
        """The record of the round that ends, with the version that it made."""
        course, newest = self._course, self._course.registry.current
        made = newest if newest.version and newest.round == course.round.number else None
        tally, course.tally = course.tally, Tally()
        record = tally.record(
            course.progress,
            course.book,
            now,
            base=newest.version if made is None else newest.version - 1,
            names=course.campaign.history.names,
        )
        if made is not None:
            record = msgspec.structs.replace(
                record, version=made.version, loss=made.loss, accuracy=made.accuracy
            )
        return course.history.add(record)
