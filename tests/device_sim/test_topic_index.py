"""The indexed broker says what the plain one says, message by message."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from laconic.device_sim.topics import IndexedBroker
from laconic.node import Will
from laconic.transport.broker import Broker

levels = st.sampled_from(["a", "b", "c", ""])
topics = st.lists(levels, min_size=1, max_size=3).map("/".join)
filters = st.one_of(
    topics,
    st.lists(st.sampled_from(["a", "b", "+"]), min_size=1, max_size=3).map("/".join),
    st.lists(st.sampled_from(["a", "b", "+"]), max_size=2).map(lambda x: "/".join([*x, "#"])),
)
clients = st.sampled_from(["x", "y", "z"])
payloads = st.sampled_from([b"", b"1", b"2"])


class Both(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.plain, self.indexed = Broker(), IndexedBroker()

    @rule(client=clients, topic=topics, payload=payloads, willing=st.booleans())
    def connect(self, client: str, topic: str, payload: bytes, willing: bool) -> None:
        will = Will(topic, payload) if willing else None
        self.plain.connect(client, will)
        self.indexed.connect(client, will)

    @rule(client=clients, politely=st.booleans())
    def disconnect(self, client: str, politely: bool) -> None:
        assert self.indexed.disconnect(client, politely=politely) == self.plain.disconnect(
            client, politely=politely
        )
        assert self.indexed.connected(client) == self.plain.connected(client)

    @rule(client=clients, wanted=st.lists(filters, max_size=3).map(tuple))
    def subscribe(self, client: str, wanted: tuple[str, ...]) -> None:
        if self.plain.connected(client):
            assert self.indexed.subscribe(client, wanted) == self.plain.subscribe(client, wanted)

    @rule(client=clients, unwanted=st.lists(filters, max_size=3).map(tuple))
    def unsubscribe(self, client: str, unwanted: tuple[str, ...]) -> None:
        if self.plain.connected(client):
            self.plain.unsubscribe(client, unwanted)
            self.indexed.unsubscribe(client, unwanted)

    @rule(topic=topics, payload=payloads, retain=st.booleans())
    def publish(self, topic: str, payload: bytes, retain: bool) -> None:
        ours = self.indexed.publish(topic, payload, retain=retain)
        assert ours == self.plain.publish(topic, payload, retain=retain)
        assert self.indexed.retained == self.plain.retained


def test_both_brokers_say_the_same() -> None:
    run_state_machine_as_test(Both, settings=settings(max_examples=40, stateful_step_count=25, deadline=None))


def test_nothing_is_left_of_those_who_have_gone() -> None:
    broker = IndexedBroker()
    for i in range(50):
        broker.connect(f"d{i}", None)
        broker.subscribe(f"d{i}", (f"a/d{i}/#", "a/+"))
        broker.publish(f"a/d{i}/x", b"1", retain=True)
    for i in range(50):
        broker.publish(f"a/d{i}/x", b"", retain=True)
        broker.disconnect(f"d{i}", politely=True)
    assert not broker._filters.below
    assert not broker._topics.below


def test_a_subscription_without_a_session_is_an_error_as_it_is_there() -> None:
    for broker in (Broker(), IndexedBroker()):
        with pytest.raises(KeyError):
            broker.subscribe("x", ("a",))
