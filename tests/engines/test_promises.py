"""An update within its promise, and that releases before and after it understand each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from chronicle import LoggedWorld, logged, settle, verify
from fleet import Fleet
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.coordinator.engine import CoordinatorEngine
from laconic.edge_sdk.records import Outbox
from laconic.edge_sdk.report import upload
from laconic.node import Effect, Event, Received, Send
from laconic.protocol import topics
from laconic.protocol.messages import MESSAGE_LIMIT_BYTES, Fin, decode, encode
from often import examples

HASH = "0123456789abcdef"
FIELDS_BEFORE = 14
"""Of a `Fin`, before it had room for the frame."""


def of_updates(world: LoggedWorld) -> list[str]:
    """What was sent of updates: `fin+`, which has the frame in it, `fin` and `chunk`, in order."""
    said = []
    for topic, payload in world.published:
        match topics.parse(topic):
            case topics.UpdateFin():
                said.append("fin+" if decode(Fin, payload).frame else "fin")
            case topics.UpdateChunk():
                said.append("chunk")
            case _:
                pass
    return said


class OldCoordinator(CoordinatorEngine):
    """A coordinator that knows no frame in a promise."""

    def handle(self, event: Event, now: float) -> Sequence[Effect]:
        if isinstance(event, Received) and isinstance(topics.parse(event.topic), topics.UpdateFin):
            fields = msgspec.msgpack.decode(event.payload)[:FIELDS_BEFORE]
            event = Received(event.topic, msgspec.msgpack.encode(fields))
        return super().handle(event, now)


class OldFleet(Fleet):
    """A fleet whose coordinator is older than its devices."""

    def coordinator(self) -> CoordinatorEngine:
        return OldCoordinator([(self.campaign(), self.subject())])


def test_a_short_update_is_one_message() -> None:
    fleet = Fleet()
    world = logged(fleet)
    settle(fleet, world)
    assert verify(fleet, world) == 9
    assert of_updates(world) == ["fin+"] * 9


def test_a_coordinator_that_knows_no_frame_in_a_promise_asks_for_the_chunk() -> None:
    fleet = OldFleet()
    world = logged(fleet)
    settle(fleet, world)
    assert verify(fleet, world) == 9
    assert sorted(of_updates(world)) == ["chunk"] * 9 + ["fin"] * 9 + ["fin+"] * 9


def test_an_update_lost_on_its_way_is_asked_for_after_the_bare_promise() -> None:
    fleet = Fleet(devices=1, rounds=1, min_reports=1)
    world = logged(fleet)
    lost: list[int] = []

    def lose(d: Any) -> bool:
        if d.topic.endswith("/fin") and not lost:
            lost.append(len(d.payload))
            return True
        return False

    world.lose = lose
    settle(fleet, world)
    assert verify(fleet, world) == 1
    assert of_updates(world) == ["fin+", "fin", "chunk", "fin"]


@settings(max_examples=examples(60))
@given(st.integers(1, 20_000), st.sampled_from([256, 4096, 16_000, 65_536]))
def test_no_message_is_longer_than_a_control_message_or_a_chunk_may_be(size: int, chunk_bytes: int) -> None:
    fin = Fin(HASH, HASH, size, -(-size // chunk_bytes), bytes(32), 1)
    outbox = Outbox(HASH, HASH, encode(fin), bytes(size))
    sent = [e for e in upload("d", outbox, chunk_bytes=chunk_bytes) if isinstance(e, Send)]
    assert all(len(e.payload) <= max(chunk_bytes, len(outbox.fin)) for e in sent)
    last = decode(Fin, sent[-1].payload)
    assert msgspec.structs.replace(last, frame=b"") == fin
    assert b"".join(e.payload for e in sent[:-1]) + last.frame == outbox.frame
    if size <= min(chunk_bytes, MESSAGE_LIMIT_BYTES) - 256:
        assert len(sent) == 1


@pytest.mark.parametrize("fin", [b"", b"\xc1", encode(Fin(HASH, HASH, 3, 1, bytes(32), 1))[:-40]])
def test_a_promise_that_is_damaged_on_disk_is_sent_as_it_is(fin: bytes) -> None:
    sent = upload("d", Outbox(HASH, HASH, fin, b"abc"), chunk_bytes=4096)
    assert [e.payload for e in sent if isinstance(e, Send)] == [b"abc", fin]
