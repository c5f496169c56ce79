"""A round's task as devices are offered it."""

from __future__ import annotations

import msgspec

from laconic.coordinator.campaign import Campaign, Progress
from laconic.coordinator.canary import Canary
from laconic.coordinator.records import ModelRecord
from laconic.protocol.identity import task_id
from laconic.protocol.messages import Echo, Offer


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
