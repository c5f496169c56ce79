"""What the coordinator tells those who watch it."""

from __future__ import annotations

from collections.abc import Iterable

from laconic.coordinator.campaign import Progress
from laconic.coordinator.canary import Canary
from laconic.coordinator.open_round import OpenRound
from laconic.coordinator.records import ModelRecord
from laconic.errors import LaconicError
from laconic.node import Effect, Note
from laconic.protocol.messages import Fin


def of(campaign: str, effects: Iterable[Effect]) -> list[Effect]:
    """The effects, their notes with the name of the campaign (its cohort) that they are about."""
    return [Note(e.kind, {"campaign": campaign, **e.fields}) if isinstance(e, Note) else e for e in effects]


def committed(
    number: int, device: str, update: str, fin: Fin, *, frame_bytes: int, staleness: int, discount: float
) -> Note:
    """An update is on disk and counts, in round `number`."""
    return Note(
        "committed",
        {
            "round": number,
            "device": device,
            "update": update,
            "frame_bytes": frame_bytes,
            "weight": fin.weight,
            "norm": fin.norm,
            "threshold": fin.threshold,
            "loss_before": fin.loss_before,
            "loss_after": fin.loss_after,
            "seconds": fin.seconds,
            "rate": fin.rate,
            "target": fin.target,
            "staleness": staleness,
            "discount": discount,
        },
    )


def opened(progress: Progress, version: int, *, fairness: float) -> Note:
    """A round is open. `fairness`: Jain's index of how often devices have been asked, this round included."""
    return Note(
        "opened",
        {
            "round": progress.number,
            "task": progress.task,
            "version": version,
            "asked": len(progress.expected),
            "fairness": fairness,
        },
    )


def selection_failed(number: int, failure: LaconicError) -> Note:
    """A plug-in has not chosen the devices of a round: they were chosen without it."""
    return Note("selection failed", {"round": number, "error": type(failure).__name__, "why": str(failure)})


def closed(number: int, book: OpenRound, *, seconds: float) -> Note:
    """A round is over."""
    return Note(
        "closed",
        {
            "round": number,
            "updates": book.updates,
            "late": len(book.late),
            "silent": book.silent,
            "absent": book.absent,
            "seconds": seconds,
        },
    )


def refused(number: int, book: OpenRound, *, loss: float | None, accuracy: float | None, why: str) -> Note:
    """A candidate is not published: its round's updates are dropped."""
    fields = {"round": number, "updates": book.updates, "loss": loss, "accuracy": accuracy, "why": why}
    return Note("refused", fields)


def trial(state: str, canary: Canary, *, reports: int) -> Note:
    """A version's trial has begun, is extended, or is passed."""
    fields = {"state": state, "version": canary.version, "share": canary.share, "reports": reports}
    return Note("trial", fields)


def rolled_back(record: ModelRecord, *, dropped: int) -> Note:
    """A version with the weights of an older one is the newest; `dropped` committed updates go nowhere."""
    return Note(
        "rolled back",
        {
            "version": record.version,
            "rollback_of": record.rollback_of,
            "model": record.name,
            "dropped": dropped,
            "why": record.why,
            "delta_bytes": 0 if record.delta is None else record.delta.size,
            "full_bytes": 0 if record.full is None else record.full.size,
        },
    )


def version(record: ModelRecord) -> Note:
    """A version has been made."""
    return Note(
        "version",
        {
            "version": record.version,
            "round": record.round,
            "model": record.name,
            "updates": record.updates,
            "silent": record.silent,
            "loss": record.loss,
            "accuracy": record.accuracy,
            "delta_bytes": 0 if record.delta is None else record.delta.size,
            "full_bytes": 0 if record.full is None else record.full.size,
        },
    )
