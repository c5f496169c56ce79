"""The contract of `laconic.node`, held to by both drivers: the virtual clock and the real one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence

import pytest
from stages import RealStage, Script, Stage, WorldStage

from laconic.errors import LocalProtocolError, StorageError
from laconic.node import (
    Compute,
    Computed,
    Connected,
    Effect,
    Event,
    Note,
    Received,
    Save,
    Send,
    Started,
    StoreView,
    Subscribe,
    Unsubscribe,
    Woke,
)


@pytest.fixture(params=[WorldStage, RealStage], ids=["virtual", "real"])
def stage(request: pytest.FixtureRequest) -> Stage:
    made: Stage = request.param()
    return made


def on(**reactions: Callable[..., Sequence[Effect]]) -> Script:
    """A script that reacts to some kinds of events: `reaction(script, event, now)`."""

    def react(script: Script, event: Event, now: float) -> Sequence[Effect]:
        reaction = reactions.get(type(event).__name__.lower())
        return reaction(script, event, now) if reaction else ()

    return Script(react)


def kinds(node: Script) -> list[str]:
    return [type(e).__name__ for e in node.events]


def seen(stage: Stage) -> list[str]:
    """What others were sent; the will apart, which a real process publishes as it ends."""
    return [what for how, what in stage.journal if how == "seen" and what != "will"]


def test_life_begins_with_started_then_connected(stage: Stage) -> None:
    node = on()
    stage.play(node, [], until=0.05)
    assert kinds(node) == ["Started", "Connected"]


def test_effects_are_carried_out_in_order(stage: Stage) -> None:
    effects = []
    for i in range(20):
        effects += [Note(f"n{i}"), Save({f"k{i}": b"x"}), Send(f"t{i}", b"")]
    node = on(connected=lambda *_: effects)
    stage.play(node, [], until=0.1)
    done = [(how, what) for how, what in stage.journal if how != "seen" and what != "online"]
    assert done == [x for i in range(20) for x in (("note", f"n{i}"), ("saved", f"k{i}"))]
    assert seen(stage) == [f"t{i}" for i in range(20)]


def test_what_is_saved_is_durable_before_a_later_send_is_seen(stage: Stage) -> None:
    def connected(*_: object) -> list[Effect]:
        return [x for i in range(10) for x in (Save({f"{i}": b"x"}), Send(f"{i}", b""))]

    stage.play(on(connected=connected), [], until=0.1)
    for i in range(10):
        assert stage.journal.index(("saved", f"{i}")) < stage.journal.index(("seen", f"{i}"))


def test_what_cannot_be_saved_ends_the_node_before_it_is_sent(stage: Stage) -> None:
    stage.store.fault = StorageError("full")
    node = on(connected=lambda *_: [Send("before", b""), Save({"k": b"x"}), Send("after", b"")])
    with pytest.raises(StorageError):
        stage.play(node, [], until=0.1)
    assert "after" not in seen(stage)
    assert stage.store.get("k") is None


def test_effects_of_an_event_come_before_the_next_event(stage: Stage) -> None:
    """A message that the first effect brings about does not interrupt the effects after it."""
    order: list[str] = []
    views: list[StoreView] = []

    def started(script: Script, event: Started, now: float) -> list[Effect]:
        views.append(event.store)
        return []

    def received(script: Script, event: Received, now: float) -> list[Effect]:
        order.append(event.topic)
        order.append(f"{len(list(views[0].keys()))} saved")
        return [Send("own/echo", b""), Save({f"{len(order)}": b"x"})] if event.topic == "own/go" else []

    node = on(started=started, connected=lambda *_: [Subscribe(("own/#",))], received=received)
    stage.play(node, [(0.05, lambda: stage.publish("own/go", b""))], until=0.15)
    assert order == ["own/go", "0 saved", "own/echo", "1 saved"]


def flood(stage: Stage, count: int) -> Callable[[], None]:
    """So many messages at once."""

    def publish() -> None:
        for i in range(count):
            stage.publish("in", f"{i}".encode())

    return publish


def test_waiting_messages_are_saved_before_their_answers_leave(stage: Stage) -> None:
    """Of messages that wait together, too: no answer is seen before its entry is durable."""

    def received(script: Script, event: Received, now: float) -> list[Effect]:
        name = event.payload.decode()
        return [Note(f"got {name}"), Save({name: b"x"}), Send(f"out/{name}", b""), Note(f"done {name}")]

    node = on(connected=lambda *_: [Subscribe(("in",))], received=received)
    stage.play(node, [(0.05, flood(stage, 100))], until=0.4)
    journal = [entry for entry in stage.journal if entry[1] not in ("in", "will", "online")]
    for i in range(100):
        steps = [("note", f"got {i}"), ("saved", f"{i}"), ("seen", f"out/{i}")]
        assert journal.index(steps[1]) < journal.index(steps[2])
        assert journal.index(steps[0]) < journal.index(("note", f"done {i}"))
    for kind in ("saved", "seen"):
        told = [what.removeprefix("out/") for how, what in journal if how == kind]
        assert told == [f"{i}" for i in range(100)], f"{kind} out of order"
    notes = [what for how, what in journal if how == "note"]
    assert notes == [f"{word} {i}" for i in range(100) for word in ("got", "done")]


def test_what_waiting_messages_save_is_read_back_at_once(stage: Stage) -> None:
    """Each message finds what the one before saved and deleted, durable or not."""
    views: list[StoreView] = []
    found: list[tuple[bytes | None, list[str]]] = []

    def started(script: Script, event: Started, now: float) -> list[Effect]:
        views.append(event.store)
        return [Save({"p/0": b"0"})]

    def received(script: Script, event: Received, now: float) -> list[Effect]:
        i = int(event.payload)
        found.append((views[0].get(f"p/{i}"), list(views[0].keys("p/"))))
        return [Save({f"p/{i}": None, f"p/{i + 1}": event.payload})]

    node = on(started=started, connected=lambda *_: [Subscribe(("in",))], received=received)
    stage.play(node, [(0.05, flood(stage, 20))], until=0.3)
    assert found == [(b"%d" % max(0, i - 1), [f"p/{i}"]) for i in range(20)]
    assert list(stage.store.keys()) == ["p/20"]


def test_a_computation_finds_what_was_saved_before_it(stage: Stage) -> None:
    """Even one that a message in the middle of others asks for: it may read the disk itself."""

    def received(script: Script, event: Received, now: float) -> list[Effect]:
        saved: list[Effect] = [Save({event.payload.decode(): b"x"})]
        if event.payload == b"30":
            saved.append(Compute("look", lambda: stage.store.get("30")))
        return saved

    node = on(connected=lambda *_: [Subscribe(("in",))], received=received)
    stage.play(node, [(0.05, flood(stage, 60))], until=0.4)
    assert [e.result for e in node.events if isinstance(e, Computed)] == [b"x"]


def test_a_group_that_cannot_be_saved_ends_the_node_before_any_answer(stage: Stage) -> None:
    def received(script: Script, event: Received, now: float) -> list[Effect]:
        name = event.payload.decode()
        return [Save({name: b"x"}), Send(f"out/{name}", b"")]

    def fill() -> None:
        stage.store.fault = StorageError("full")
        flood(stage, 20)()

    node = on(connected=lambda *_: [Subscribe(("in",))], received=received)
    with pytest.raises(StorageError):
        stage.play(node, [(0.05, fill)], until=0.4)
    assert [what for what in seen(stage) if what.startswith("out/")] == []
    assert list(stage.store.keys()) == []


def test_an_overdue_wake_comes_before_the_next_message(stage: Stage) -> None:
    """Two hundred messages wait, each takes a while: no message is handled after a wake is due."""
    broken: list[Event] = []

    def connected(script: Script, event: Event, now: float) -> list[Effect]:
        return [Subscribe(("in",))]

    def received(script: Script, event: Event, now: float) -> list[Effect]:
        if script.wake_at is None:
            script.wake_at = now + 10.0
        elif now >= script.wake_at:
            broken.append(event)
        stage.spend(1.0)
        return []

    def woke(script: Script, event: Event, now: float) -> list[Effect]:
        assert script.wake_at is not None
        assert now >= script.wake_at
        script.wake_at = now + 10.0
        return []

    node = on(connected=connected, received=received, woke=woke)
    stage.play(node, [(0.05, flood(stage, 200))], until=30.0 if isinstance(stage, WorldStage) else 0.4)
    assert kinds(node).count("Received") == 200
    assert kinds(node).count("Woke") >= (19 if isinstance(stage, RealStage) else 2)
    assert broken == []


def test_a_wake_and_a_message_at_one_moment() -> None:
    """Due at the same instant under the virtual clock, the wake is first, whichever was known sooner."""
    stage = WorldStage()
    due = 1.5

    def received(script: Script, event: Received, now: float) -> list[Effect]:
        if event.topic == "set":
            script.wake_at = due
        return []

    def woke(script: Script, event: Event, now: float) -> list[Effect]:
        script.wake_at = None
        return []

    node = on(connected=lambda *_: [Subscribe(("set",))], received=received, woke=woke)

    def message() -> None:
        stage.world._push(due, 1, lambda: stage.world._feed(stage.world._hosts["node"], Received("x", b"")))

    stage.play(node, [(0.3, message), (0.6, lambda: stage.publish("set", b""))], until=2.0)
    assert kinds(node)[-3:] == ["Received", "Woke", "Received"]
    assert node.times[-2:] == [due, due]


def test_a_wake_comes_in_time_and_only_when_wanted(stage: Stage) -> None:
    def connected(script: Script, event: Event, now: float) -> list[Effect]:
        script.wake_at = now + 0.05
        return []

    def woke(script: Script, event: Event, now: float) -> list[Effect]:
        assert script.wake_at is not None
        assert now >= script.wake_at
        script.wake_at = None
        return [Send("woken", b"")]

    node = on(connected=connected, woke=woke)
    stage.play(node, [], until=0.4)
    assert kinds(node) == ["Started", "Connected", "Woke"]
    assert seen(stage) == ["woken"]


def test_a_wake_that_was_moved_does_not_come_at_its_old_time(stage: Stage) -> None:
    def connected(script: Script, event: Event, now: float) -> list[Effect]:
        script.wake_at = now + 0.1
        return [Subscribe(("later",))]

    def received(script: Script, event: Event, now: float) -> list[Effect]:
        script.wake_at = now + 10.0
        return []

    node = on(connected=connected, received=received)
    stage.play(node, [(0.04, lambda: stage.publish("later", b""))], until=0.3)
    assert kinds(node) == ["Started", "Connected", "Received"]


def test_a_node_that_does_not_move_its_wake_is_stopped(stage: Stage) -> None:
    def connected(script: Script, event: Event, now: float) -> list[Effect]:
        script.wake_at = now
        return []

    with pytest.raises(LocalProtocolError):
        stage.play(on(connected=connected), [], until=0.2)


def test_now_never_goes_back_even_if_the_clock_does(stage: Stage) -> None:
    node = on(connected=lambda *_: [Subscribe(("#",))])
    acts = [
        (0.04, lambda: stage.publish("a", b"")),
        (0.06, lambda: stage.set_clock_back(0.05)),
        (0.08, lambda: stage.publish("b", b"")),
        (0.2, lambda: stage.publish("c", b"")),
    ]
    stage.play(node, acts, until=0.3)
    topics = [e.topic for e in node.events if isinstance(e, Received)]
    assert topics == ["a", "from the past", "b", "c"]
    assert node.times == sorted(node.times)
    assert node.times[-1] > node.times[2]


def test_what_is_sent_offline_is_dropped_and_a_new_connection_is_told(stage: Stage) -> None:
    def connected(script: Script, event: Event, now: float) -> list[Effect]:
        script.wake_at = now + 0.08
        return [Subscribe(("to/node",)), Send(f"connected {kinds(script).count('Connected')}", b"")]

    def woke(script: Script, event: Event, now: float) -> list[Effect]:
        script.wake_at = None
        return [Send(f"woke {kinds(script).count('Woke')}", b""), Subscribe(("offline/#",))]

    node = on(connected=connected, woke=woke)
    acts = [
        (0.05, stage.cut),  # back at 0.15; the first wake falls between
        (0.12, lambda: stage.publish("to/node", b"lost")),
        (0.25, lambda: stage.publish("offline/x", b"after the second wake")),
    ]
    stage.play(node, acts, until=0.4)
    everything = [what for how, what in stage.journal if how == "seen"]
    assert everything[:2] == ["connected 1", "will"]
    assert "woke 1" not in everything, "a send while offline is dropped"
    assert seen(stage)[1:] == ["to/node", "connected 2", "woke 2", "offline/x"]
    assert kinds(node) == ["Started", "Connected", "Woke", "Connected", "Woke", "Received"]


def test_subscriptions_end_with_the_connection_and_by_unsubscribe(stage: Stage) -> None:
    def connected(script: Script, event: Event, now: float) -> list[Effect]:
        return [Subscribe(("a", "b", "c"))] if kinds(script).count("Connected") == 1 else [Subscribe(("a",))]

    def received(script: Script, event: Received, now: float) -> list[Effect]:
        return [Unsubscribe(("a", "x"))] if event.payload == b"stop" else []

    node = on(connected=connected, received=received)
    acts = [
        (0.03, lambda: stage.publish("b", b"1")),
        (0.05, lambda: stage.publish("a", b"stop")),
        (0.07, lambda: stage.publish("a", b"2")),
        (0.09, lambda: stage.publish("c", b"3")),
        (0.11, stage.cut),
        (0.25, lambda: stage.publish("b", b"4")),
        (0.27, lambda: stage.publish("a", b"5")),
    ]
    stage.play(node, acts, until=0.35)
    assert [e.payload for e in node.events if isinstance(e, Received)] == [b"1", b"stop", b"3", b"5"]


def test_computed_brings_the_result_or_the_exception(stage: Stage) -> None:
    def fail() -> object:
        raise ValueError("no")

    def give_up() -> object:
        # Of a program's own code: no Exception. Recorded: it brought nothing, and the node waited for ever.
        raise asyncio.CancelledError

    jobs = [Compute("good", lambda: 42), Compute("bad", fail), Compute("cancelled", give_up)]
    node = on(connected=lambda *_: jobs)
    stage.play(node, [], until=0.3)
    results = {e.job: e for e in node.events if isinstance(e, Computed)}
    assert results["good"].result == 42
    assert isinstance(results["bad"].result, ValueError)
    assert isinstance(results["cancelled"].result, RuntimeError)
    assert all(e.seconds >= 0 for e in results.values())
    assert kinds(node).count("Computed") == 3


def test_a_computation_holds_up_neither_messages_nor_wakes(stage: Stage) -> None:
    others_were_handled = threading.Event()

    def connected(script: Script, event: Event, now: float) -> list[Effect]:
        script.wake_at = now + 0.03
        real = isinstance(stage, RealStage)
        return [Subscribe(("x",)), Compute("long", lambda: others_were_handled.wait(5) if real else True)]

    def received(script: Script, event: Event, now: float) -> list[Effect]:
        others_were_handled.set()
        return []

    def woke(script: Script, event: Event, now: float) -> list[Effect]:
        script.wake_at = None
        return []

    node = on(connected=connected, received=received, woke=woke)
    stage.play(node, [(0.05, lambda: stage.publish("x", b""))], until=0.3)
    assert kinds(node) == ["Started", "Connected", "Woke", "Received", "Computed"]
    assert isinstance(node.events[-1], Computed)
    assert node.events[-1].result is True


def test_a_later_life_finds_what_an_earlier_one_saved(stage: Stage) -> None:
    found: list[tuple[bytes | None, list[str]]] = []

    def started(script: Script, event: Started, now: float) -> list[Effect]:
        found.append((event.store.get("a"), list(event.store.keys("p/"))))
        return [Save({"a": b"1", "p/2": b"x", "p/1": b"y", "q": b"z"}), Save({"q": None})]

    stage.play(on(started=started), [], until=0.05)
    stage.play(on(started=started), [], until=0.05)
    assert found == [(None, []), (b"1", ["p/1", "p/2"])]
    assert stage.store.get("q") is None


def test_woke_is_never_the_first_word(stage: Stage) -> None:
    """A wake that is overdue when the process begins comes after `Started`, and once."""

    def started(script: Script, event: Event, now: float) -> list[Effect]:
        script.wake_at = now
        return []

    def woke(script: Script, event: Event, now: float) -> list[Effect]:
        script.wake_at = None
        return []

    node = on(started=started, woke=woke)
    stage.play(node, [], until=0.05)
    assert kinds(node) == ["Started", "Woke", "Connected"]
    assert isinstance(node.events[1], Woke)
    assert isinstance(node.events[2], Connected)
