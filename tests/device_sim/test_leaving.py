"""A process that ends politely in the world: what others hear of it, and what its goodbye weighs."""

from __future__ import annotations

from collections.abc import Sequence

from laconic.device_sim.links import Connection
from laconic.device_sim.wire import Wire
from laconic.device_sim.world import World
from laconic.node import Connected, Effect, Event, Received, Send, Subscribe, Will
from laconic.transport import packets

_WILL = Will("w/d", b"gone")


class _Ear:
    wake_at: float | None = None
    will: Will | None = None

    def __init__(self) -> None:
        self.heard: list[tuple[str, bytes]] = []

    def handle(self, event: Event, now: float) -> Sequence[Effect]:
        match event:
            case Connected():
                return (Subscribe(("#",)),)
            case Received(topic, payload):
                self.heard.append((topic, payload))
        return ()


class _Mouth:
    wake_at: float | None = None
    will: Will | None = _WILL

    def handle(self, event: Event, now: float) -> Sequence[Effect]:
        return (Send("quiet", b"12345", qos=0),) if isinstance(event, Connected) else ()


def _world() -> tuple[World, _Ear]:
    world, ear = World(), _Ear()
    connection = Connection(0.01, wire=Wire(keep_alive_s=None))
    world.add("ear", lambda: ear, connection=connection)
    world.add("d", _Mouth, connection=connection, start_s=2.0)
    return world, ear


def test_a_goodbye_says_once_what_the_will_would_and_weighs_its_packets() -> None:
    world, ear = _world()
    world.run(10.0)
    up, down = world.bytes_of("d")
    ear_up, ear_down = world.bytes_of("ear")
    world.leave("d")
    world.run(20.0)
    goodbye = packets.publish(_WILL.topic, _WILL.payload, retain=True) + packets.DISCONNECT
    assert world.bytes_of("d") == (up + len(goodbye), down)
    # Nobody acknowledges a message of QoS 0.
    assert world.bytes_of("ear") == (ear_up, ear_down + len(goodbye) - len(packets.DISCONNECT))
    assert ear.heard == [("quiet", b"12345"), ("w/d", b"gone")]
    assert world.node("d") is None
    assert world.broker.retained == {"w/d": b"gone"}


def test_what_is_sent_at_qos_0_is_delivered_at_qos_0() -> None:
    world, _ = _world()
    world.run(1.9)
    before = world.bytes_of("ear")
    world.run(10.0)
    sent = packets.publish("quiet", b"12345", retain=False)
    assert world.bytes_of("ear") == (before[0], before[1] + len(sent))


def test_one_that_is_not_connected_leaves_without_a_word() -> None:
    world, ear = _world()
    world.run(2.1)
    world.leave("d")
    world.run(20.0)
    assert world.bytes_of("d") == (0, 0)
    assert ear.heard == []


def test_what_is_under_way_when_the_link_breaks_is_lost_both_ways() -> None:
    class Once(_Mouth):
        will = None

        def handle(self, event: Event, now: float) -> Sequence[Effect]:
            return (Send("first", bytes(1000)), Send("second", b"")) if isinstance(event, Connected) else ()

    def heard(cut: str | None) -> list[str]:
        world, ear, wire = World(), _Ear(), Wire(keep_alive_s=None)
        world.add("ear", lambda: ear, connection=Connection(0.01, down_bytes_per_s=100.0, wire=wire))
        world.add("d", Once, connection=Connection(0.01, 100.0, wire=wire), start_s=2.0)
        if cut is not None:
            # In the midst of the first message, on its way up or on its way down; a new one takes too long.
            world.at({"d": 8.0, "ear": 18.0}[cut], lambda: world.cut(cut, 0.5))
        world.run(25.0)
        return [topic for topic, _ in ear.heard]

    assert heard(None) == ["first", "second"]
    assert heard("d") == []
    assert heard("ear") == []
