"""Laws of MQTT packets: whole in whatever pieces, bounded whatever they say; slow readers lose nothing."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mosquitto import Mosquitto

from laconic.errors import LaconicError, LimitExceeded, Malformed
from laconic.transport import packets
from laconic.transport.link import LinkUp, Message
from laconic.transport.mqtt import _WAITING, Address, MqttLink
from laconic.transport.packets import Packet, Splitter

TOPICS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=30)
MESSAGES = st.lists(
    st.tuples(TOPICS, st.binary(max_size=300), st.booleans(), st.integers(0, packets.MAX_IDENTIFIER)),
    max_size=8,
)


@given(MESSAGES, st.lists(st.integers(0, 2000), max_size=12))
def test_messages_are_what_was_sent_whatever_pieces_they_come_in(
    messages: list[tuple[str, bytes, bool, int]], cuts: list[int]
) -> None:
    wire = b"".join(packets.publish(t, p, retain=r, identifier=i) for t, p, r, i in messages)
    bounds = [0, *sorted(min(c, len(wire)) for c in cuts), len(wire)]
    splitter = Splitter(limit_bytes=1000)
    found = [p for a, b in pairwise(bounds) for p in splitter.feed(wire[a:b])]
    assert b"".join(map(packets.raw, found)) == wire
    said = [(m.topic, m.payload, m.identifier) for m in map(packets.message_of, found)]
    assert said == [(t, p, i) for t, p, _, i in messages]
    assert [bool(p.flags & 1) for p in found] == [r for _, _, r, _ in messages]


@given(st.binary(max_size=400))
def test_anything_else_is_refused_with_a_reason_or_waits_for_more(data: bytes) -> None:
    splitter = Splitter(limit_bytes=200)
    try:
        for packet in splitter.feed(data):
            assert len(packet.body) <= 200
            for read in (packets.message_of, packets.identifier_of, packets.refusal):
                try:
                    read(packet)
                except LaconicError:
                    continue
    except LaconicError:
        pass


def test_a_length_over_the_limit_is_refused_before_its_bytes_are_here() -> None:
    with pytest.raises(LimitExceeded):
        list(Splitter(limit_bytes=1000).feed(b"\x30\xff\xff\x03"))
    with pytest.raises(Malformed):
        list(Splitter(limit_bytes=2**30).feed(b"\x30\xff\xff\xff\xff\x01"))
    with pytest.raises(Malformed):
        packets.message_of(Packet(3, 0x04, b"\x00\x01t\x00\x01"))


def test_packets_of_the_standard() -> None:
    """Figures 3.6 (CONNECT), 3.11 (PUBLISH) and 3.23 (SUBSCRIBE) of MQTT 3.1.1, with other names."""
    hello = packets.connect("c", clean=True, keep_alive_s=10, username="u", password="p")
    assert hello == b"\x10\x13\x00\x04MQTT\x04\xc2\x00\x0a\x00\x01c\x00\x01u\x00\x01p"
    assert packets.publish("a/b", b"x", retain=False, identifier=10) == b"\x32\x08\x00\x03a/b\x00\x0ax"
    assert packets.subscribe(["a/b", "c/d"], 10) == b"\x82\x0e\x00\x0a\x00\x03a/b\x01\x00\x03c/d\x01"
    assert packets.acknowledge(258) == b"\x40\x02\x01\x02"


@pytest.mark.broker
def test_a_slow_reader_loses_nothing_and_holds_little(mosquitto_path: str, tmp_path: Path) -> None:
    """Five thousand messages for a link that nobody reads: it holds some of them, and later has them all."""
    broker = Mosquitto(mosquitto_path, tmp_path, options="max_inflight_messages 0")
    broker.start()

    async def scene() -> None:
        slow, sender = (MqttLink(Address("127.0.0.1", broker.port), name) for name in ("slow", "sender"))
        for link in (slow, sender):
            await link.open(None)
            assert isinstance(await link.next_event(), LinkUp)
        slow.subscribe(("t", "sync"))
        slow.publish("sync", b"", qos=1, retain=False)
        assert isinstance(await slow.next_event(), Message)
        for i in range(5000):
            sender.publish("t", b"%d" % i + bytes(1000), qos=1, retain=False)
        await asyncio.sleep(1.0)
        # What one read of the socket brought after the limit is held too.
        assert _WAITING < slow.waiting() < _WAITING + 256 * 1024 // 1000 + 1
        heard = []
        while len(heard) < 5000:
            event = await slow.next_event()
            assert isinstance(event, Message)
            slow.acknowledge(event.receipt)
            heard.append(int(event.payload.rstrip(b"\0")))
        assert heard == list(range(5000))
        for link in (slow, sender):
            await link.close()

    async def bounded() -> None:
        async with asyncio.timeout(30):
            await scene()

    try:
        asyncio.run(bounded())
    finally:
        broker.kill()
