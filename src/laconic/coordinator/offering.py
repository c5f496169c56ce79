"""A round's task as devices are offered it, and what of a campaign lies at the broker."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from laconic.coordinator.campaign import Campaign, Progress
from laconic.coordinator.canary import Canary
from laconic.coordinator.records import ModelRecord
from laconic.node import Effect, Send
from laconic.protocol import topics
from laconic.protocol.identity import task_id
from laconic.protocol.messages import Echo, Offer, encode

if TYPE_CHECKING:
    from laconic.coordinator.course import Course


class Offering:
    """Tells the devices of one campaign what there is to do, and where the newest model is."""

    def __init__(self, course: Course) -> None:
        self._course = course

    def offer(self, devices: list[str], *, work: bool = True, direct: bool = False) -> list[Effect]:
        """The open round's task, to the cohort or (`direct`, or in a targeted campaign) to `devices`.

        Without `work` it is word of the newest model.
        """
        course, c = self._course, self._course.campaign
        offer = self._offer(course.server.echo_on_offer(course.round.number), work=work)
        if direct or (c.targeted and work):
            to = course.treasury.offer_to
            return [Send(topics.device_task(name), encode(to(name, offer))) for name in devices]
        return [self._retained(topics.cohort_task(c.cohort), offer)]

    def current(self, device: str) -> list[Effect]:
        """Tell a device what there is to do now, if anything."""
        course = self._course
        return self.offer([device], work=course.collecting and course.book.awaits(device), direct=True)

    def withdraw(self) -> Effect:
        """The last round's task is on offer no more."""
        return Send(topics.cohort_task(self._course.campaign.cohort), b"", retain=True)

    def pointer(self) -> Effect:
        """Where a device that has no model yet finds the newest, whether or not there is a coordinator."""
        return self._retained(
            topics.cohort_model(self._course.campaign.cohort), self._offer(None, work=False)
        )

    def republish(self) -> list[Effect]:
        """Everything that should lie at the broker, which may have lost it."""
        course = self._course
        effects = [*course.registry.publish_all(), self.pointer(), *course.trials.ask()]
        if course.collecting:
            effects += self.offer(course.book.unheard())
        elif course.finished:
            effects += self.offer([], work=False)
        return effects

    def _offer(self, told: Echo | None, *, work: bool) -> Offer:
        course = self._course
        number, base = course.round.number, course.registry.offered
        return offer_of(course.campaign, course.progress, number, base, told, bundle=course.bundle, work=work)

    def _retained(self, topic: str, offer: Offer) -> Effect:
        """What whoever comes later finds, with the terms of all."""
        return Send(topic, encode(self._course.treasury.offer_to(None, offer)), retain=True)


def offer_of(
    campaign: Campaign,
    progress: Progress,
    number: int,
    base: ModelRecord,
    echo: Echo | None,
    *,
    bundle: str,
    work: bool,
) -> Offer:
    """The offer to train `base` in round `number`; without `work`, word of `base` as the newest model."""
    rate = campaign.training.learning_rate * campaign.learning_rate_decay ** (number - 1)
    return Offer(
        task=progress.task if work else task_id(campaign.fleet, number + 1, base.name),
        round=number,
        model=base.name,
        version=base.version,
        bundle=bundle,
        share=progress.share,
        deadline_s=campaign.plan.deadline_s,
        training=msgspec.structs.replace(campaign.training, learning_rate=rate),
        codec=msgspec.msgpack.encode(campaign.codec.to_builtins()),
        gate=campaign.gate,
        eligibility=campaign.eligibility,
        work=work,
        feedback=campaign.feedback,
        max_staleness=campaign.lateness.max_staleness,
        echo=echo,
        evaluate=campaign.models.judges,
    )


def trial_offer_of(
    campaign: Campaign, trial: Canary, number: int, base: ModelRecord, *, bundle: str
) -> Offer:
    """The offer to measure `base`, the version on trial, and to answer without training on it."""
    return Offer(
        task=trial.task,
        round=number,
        model=base.name,
        version=base.version,
        bundle=bundle,
        share=trial.share,
        deadline_s=campaign.models.canary_deadline_s,
        training=campaign.training,
        codec=msgspec.msgpack.encode(campaign.codec.to_builtins()),
        eligibility=campaign.eligibility,
        evaluate=True,
        train=False,
    )
