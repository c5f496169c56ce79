"""What a broker allows: tried out under names of the fleet that nobody has, and cleaned up.

MQTT 3.1.1 tells a client neither that a publication is refused (it is acknowledged all the same, section
3.3.5) nor, with many brokers, that a subscription is. So the client listens for its own messages: what comes
back may be published and heard; of what does not, one of the two is denied, and nobody can say which.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from laconic.errors import Malformed
from laconic.protocol import topics
from laconic.transport.link import LinkDown, LinkEvent, LinkUp, Message
from laconic.transport.mqtt import Address, MqttLink

_PATIENCE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Right:
    """Something that a coordinator does at its broker."""

    what: str
    topic: str
    needed: bool = True
    """Whether a coordinator itself publishes here; if not, that it could is no part of its rights."""
    retain: bool = False
    payload_bytes: int = 16


@dataclass(frozen=True, slots=True)
class Found:
    """What the broker did: let in or not, and which topics gave their message back."""

    connected: bool
    why: str = ""
    heard: frozenset[str] = frozenset()
    lost: str = ""
    """Why the connection was lost in between, if it was."""
    births: int = 0
    """Retained births of devices that were heard."""


def rights(chunk_bytes: int, name: str) -> list[Right]:
    """What a coordinator must be allowed, under topics of a device, cohort and model called after `name`."""
    model = secrets.token_hex(8)
    return [
        Right("offers to a cohort, retained", topics.cohort_task(name), retain=True),
        Right("offers to a device", topics.device_task(name)),
        Right("answers to a device", topics.ack(name)),
        Right("manifests of models, retained", topics.manifest(model), retain=True),
        Right(
            f"chunks of models, {chunk_bytes} bytes, retained",
            topics.blob_chunk(model, 0),
            retain=True,
            payload_bytes=chunk_bytes,
        ),
        Right("what devices say", topics.telemetry(name), needed=False, payload_bytes=0),
    ]


async def probe(address: Address, wanted: list[Right], name: str) -> Found:
    """Connect as `name`, try every right, take away what was left at the broker.

    The largest is tried last: a broker that does not take it ends the connection.
    """
    link = MqttLink(address, name)
    await link.open(None)
    try:
        event = await _within(link.next_event)
        if event is None:
            return Found(False, "no answer")
        if not isinstance(event, LinkUp):
            return Found(False, event.why if isinstance(event, LinkDown) else "no answer")
        ear = _Ear(link)
        link.subscribe((*sorted(r.topic for r in wanted), topics.EVERY_UP))
        most = max(r.payload_bytes for r in wanted)
        for part in (
            [r for r in wanted if r.payload_bytes < most],
            [r for r in wanted if r.payload_bytes == most],
        ):
            for right in part:
                link.publish(right.topic, b"\0" * right.payload_bytes, qos=1, retain=right.retain)
            await ear.hear({(r.topic, not r.payload_bytes) for r in part})
        heard = frozenset(topic for topic, _ in ear.heard)
        if not ear.lost:
            await _take_away(link, ear, [r for r in wanted if r.retain])
        return Found(True, heard=heard & {r.topic for r in wanted}, lost=ear.lost, births=ear.births)
    finally:
        await link.close()


async def clean(address: Address, wanted: list[Right], name: str) -> None:
    """Take away what a probe that lost its connection has left."""
    link = MqttLink(address, name)
    await link.open(None)
    try:
        if isinstance(await _within(link.next_event), LinkUp):
            link.subscribe(tuple(sorted(r.topic for r in wanted)))
            await _take_away(link, _Ear(link), [r for r in wanted if r.retain])
    finally:
        await link.close()


async def _take_away(link: MqttLink, ear: _Ear, wanted: list[Right]) -> None:
    for right in wanted:
        link.publish(right.topic, b"", qos=1, retain=True)
    # Goodbye must not overtake them.
    await ear.hear({(right.topic, True) for right in wanted})


class _Ear:
    """What comes back over a link: topics, with whether the payload was empty."""

    def __init__(self, link: MqttLink) -> None:
        self._link = link
        self.heard: set[tuple[str, bool]] = set()
        self.births = 0
        self.lost = ""

    async def hear(self, wanted: set[tuple[str, bool]]) -> None:
        """Listen until all of `wanted` has come back, the connection is lost, or patience is."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + _PATIENCE_S
        while not wanted <= self.heard and not self.lost and (left := deadline - clock()) > 0:
            match await _within(self._link.next_event, left):
                case Message(topic, payload, receipt):
                    self._link.acknowledge(receipt)
                    self.births += _birth(topic)
                    # Retained births of a large fleet are not kept.
                    if not _birth(topic):
                        self.heard.add((topic, not payload))
                case LinkDown(why):
                    self.lost = why
                case _:
                    pass


def _birth(topic: str) -> bool:
    with contextlib.suppress(Malformed):
        return isinstance(topics.parse(topic), topics.State)
    return False


async def _within(what: Callable[[], Awaitable[LinkEvent]], seconds: float = _PATIENCE_S) -> LinkEvent | None:
    try:
        async with asyncio.timeout(seconds):
            return await what()
    except TimeoutError:
        return None
