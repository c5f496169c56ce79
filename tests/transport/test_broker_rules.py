"""Laws of the broker in memory: what MQTT 3.1.1 says of filters, retained messages and wills."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic.node import Will
from laconic.transport.broker import Broker, Delivery, matches
from laconic.transport.link import LinkDown, LinkUp, Message
from laconic.transport.memory import MemoryHub, MemoryLink

LEVELS = st.lists(st.sampled_from(["a", "b", "", "c"]), min_size=1, max_size=4)


@pytest.mark.parametrize(
    ("topic_filter", "topic", "expected"),
    [
        # The examples of MQTT 3.1.1, sections 4.7.1.2 and 4.7.1.3.
        ("sport/tennis/player1/#", "sport/tennis/player1", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/ranking", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", True),
        ("sport/#", "sport", True),
        ("#", "sport/tennis", True),
        ("sport/tennis/+", "sport/tennis/player1", True),
        ("sport/tennis/+", "sport/tennis/player1/ranking", False),
        ("sport/+", "sport", False),
        ("sport/+", "sport/", True),
        ("+/+", "/finance", True),
        ("/+", "/finance", True),
        ("+", "/finance", False),
        ("a/b", "a/B", False),
        ("a", "a/b", False),
        ("a/b", "a", False),
    ],
)
def test_filters_match_as_the_standard_says(topic_filter: str, topic: str, expected: bool) -> None:
    assert matches(topic_filter, topic) is expected


@given(LEVELS, st.data())
def test_a_topic_matches_itself_with_any_level_a_plus_and_any_tail_a_hash(
    levels: list[str], data: st.DataObject
) -> None:
    topic = "/".join(levels)
    plus = [data.draw(st.sampled_from([level, "+"])) for level in levels]
    assert matches("/".join(plus), topic)
    cut = data.draw(st.integers(0, len(levels)))
    assert matches("/".join([*plus[:cut], "#"]), topic)
    assert not matches("/".join([*plus, "x"]), topic)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.binary(max_size=2), st.booleans()), max_size=20))
def test_a_new_subscriber_is_given_the_last_retained_message_of_each_topic(
    said: list[tuple[str, bytes, bool]],
) -> None:
    broker = Broker()
    broker.connect("x", None)
    last: dict[str, bytes] = {}
    for topic, payload, retain in said:
        broker.publish(topic, payload, retain=retain)
        if retain:
            last[topic] = payload
    given_ = broker.subscribe("x", ("#",))
    assert given_ == [Delivery("x", t, p) for t, p in sorted(last.items()) if p]


def test_a_will_is_published_once_and_only_for_those_who_vanish() -> None:
    broker = Broker()
    broker.connect("watcher", None)
    broker.subscribe("watcher", ("w",))
    broker.connect("x", Will("w", b"gone"))
    assert broker.disconnect("x", politely=True) == []
    broker.connect("x", Will("w", b"gone"))
    assert broker.disconnect("x", politely=False) == [Delivery("watcher", "w", b"gone")]
    assert broker.disconnect("x", politely=False) == []
    assert broker.retained == {"w": b"gone"}


def test_overlapping_filters_deliver_once() -> None:
    broker = Broker()
    broker.connect("x", None)
    broker.subscribe("x", ("a/#", "a/b", "+/b"))
    assert len(broker.publish("a/b", b"1", retain=False)) == 1


def test_a_memory_link_counts_reports_and_forgets_like_a_clean_session() -> None:
    async def scene() -> None:
        hub = MemoryHub()
        a, b = MemoryLink(hub, "a"), MemoryLink(hub, "b")
        await a.open(Will("gone", b"a", retain=False))
        await b.open(None)
        assert [await a.next_event(), await b.next_event()] == [LinkUp(), LinkUp()]
        b.subscribe(("t", "gone"))
        a.publish("t", b"123", qos=1, retain=False)
        assert await b.next_event() == Message("t", b"123", 1)
        assert (a.wire_bytes().up, b.wire_bytes().down) == (4, 4)
        a.drop()
        assert isinstance(await a.next_event(), LinkDown)
        assert await b.next_event() == Message("gone", b"a", 2)
        a.publish("t", b"lost", qos=1, retain=False)
        a.reconnect()
        b.unsubscribe(("t",))
        a.publish("t", b"unheard", qos=1, retain=False)
        assert await a.next_event() == LinkUp()
        assert not b.pending()
        await a.close()
        assert await b.next_event() == Message("gone", b"a", 3), "who leaves says so"
        assert not b.pending()

    asyncio.run(scene())
