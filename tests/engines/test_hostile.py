"""Hostile messages on every topic: a typed error with its sender, and the run ends with the right model."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from chronicle import LoggedWorld, logged, settle, verify
from fleet import BUNDLE, SCHEMA, SIZE, Fleet
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from laconic import errors
from laconic.compression import PRESETS, encode
from laconic.coordinator.engine import CoordinatorEngine
from laconic.edge_sdk.engine import DeviceEngine
from laconic.node import Connected, Note, Received, Started
from laconic.protocol import messages as m
from laconic.protocol import topics
from laconic.protocol.identity import sign, task_id, update_id, weights_hash
from laconic.schema import Schema, TensorSpec
from laconic.storage import MemoryStore
from laconic.transport.broker import Delivery
from often import examples

HASH = "0123456789abcdef"
TYPED = {name for name in vars(errors) if isinstance(vars(errors)[name], type)}


def fleet() -> Fleet:
    return Fleet(
        rounds=4, codec=PRESETS["dense8"], delta_codec=PRESETS["dense8"], chunk_bytes=48, deadline_s=20.0,
        min_reports=3,
    )  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed() -> bytes:
    """The final weights of a run that nobody disturbs."""
    f = fleet()
    world = logged(f)
    settle(f, world)
    assert verify(f, world) == 12
    return final(world)


def final(world: LoggedWorld) -> bytes:
    store = world.stores["coordinator"]
    return store.get(sorted(store.keys("c/default/weights/"))[-1]) or b""


def complaints(world: LoggedWorld) -> list[tuple[str, dict[str, Any]]]:
    """(who complains, about what) for every message that was refused."""
    return [(host, dict(n.fields)) for _, host, n in world.notes if n.kind in ("dropped", "rejected")]


# --- what an attacker may say as the device "evil" ---------------------------------------------------------


def current(world: LoggedWorld) -> tuple[str, str]:
    """The task on offer and its base, as anyone can read them at the broker."""
    offer = m.decode(m.Offer, world.broker.retained[topics.cohort_task("default")])
    return offer.task, offer.model


def frame(values: Any = None, schema: Schema = SCHEMA, preset: str = "exact") -> bytes:
    vector = np.full(schema.size, 0.1, np.float32) if values is None else values
    return encode(vector, schema, PRESETS[preset], np.random.default_rng(0)).frame


def promise(world: LoggedWorld, data: bytes, **changes: Any) -> tuple[str, m.Fin]:
    task, base = current(world)
    fin = m.Fin(task, base, len(data), 1, hashlib.sha256(data).digest(), 10)
    fin = msgspec.structs.replace(fin, **changes)
    return update_id("evil", fin.task, fin.base, fin.sha256), fin


def say(world: LoggedWorld, topic: str, payload: bytes) -> None:
    world._deliver(world.broker.publish(topic, payload, retain=False))


def upload(
    world: LoggedWorld, data: bytes, *, piece: bytes | None = None, update: str = "", **changes: Any
) -> None:
    named, fin = promise(world, data, **changes)
    update = update or named
    say(world, topics.update_chunk("evil", update, 0), data if piece is None else piece)
    say(world, topics.update_fin("evil", update), m.encode(fin))


def whole(world: LoggedWorld, data: bytes, *, within: bytes | None = None) -> None:
    """An update in one message."""
    update, fin = promise(world, data, frame=data if within is None else within)
    say(world, topics.update_fin("evil", update), m.encode(fin))


def with_crc(data: bytes) -> bytes:
    return data[:-4] + zlib.crc32(data[:-4]).to_bytes(4, "little")


def nan_frame() -> bytes:
    """A well-formed frame whose float32 values are NaN."""
    good = bytearray(frame())
    at = bytes(good).find(np.float32(0.1).tobytes())
    good[at : at + 4] = np.float32(np.nan).tobytes()
    return with_crc(bytes(good))


OTHER = Schema((TensorSpec("w", (8, 9)), TensorSpec("c", (8,))))
ATTACKS: dict[str, tuple[Callable[[LoggedWorld], None], str]] = {
    "garbage for a birth": (lambda w: say(w, topics.state("evil"), b"\xff\xfe"), "Malformed"),
    "a birth too large": (lambda w: say(w, topics.state("evil"), bytes(20_000)), "LimitExceeded"),
    "a cohort that is no name": (
        lambda w: say(w, topics.state("evil"), m.encode(m.State(True, cohort="a/b"))), "ConfigError",
    ),
    "garbage for a skip": (lambda w: say(w, topics.skip("evil"), b""), "Malformed"),
    "garbage for telemetry": (lambda w: say(w, topics.telemetry("evil"), b"\xc1"), "Malformed"),
    "NaN in telemetry": (
        lambda w: say(
            w, topics.telemetry("evil"), m.encode(m.Telemetry(None, False, False, 0, 0, float("nan"), 0.0))
        ), "Malformed",
    ),
    "garbage for a promise": (lambda w: say(w, topics.update_fin("evil", HASH), b"garbage"), "Malformed"),
    "a topic of nobody": (lambda w: say(w, "laconic/v1/d/evil/up/nonsense", b"x"), "Malformed"),
    "a topic with a bad index": (lambda w: say(w, f"laconic/v1/d/evil/up/u/{HASH}/01", b"x"), "Malformed"),
    "a chunk too large": (
        lambda w: say(w, topics.update_chunk("evil", HASH, 0), bytes(70_000)), "LimitExceeded",
    ),
    "an index too large": (
        lambda w: say(w, topics.update_chunk("evil", HASH, 999_999), b""), "LimitExceeded",
    ),
    "a huge promise": (lambda w: upload(w, frame(), size=2**48), "LimitExceeded"),
    "a promise of a million chunks": (lambda w: upload(w, frame(), chunks=1_000_000), "LimitExceeded"),
    "a wrong hash": (lambda w: upload(w, frame(), piece=frame()[:-1] + b"x"), "ChecksumMismatch"),
    "a piece too short": (lambda w: upload(w, frame(), piece=frame()[:-1]), "Malformed"),
    "an empty frame": (lambda w: upload(w, b""), "Malformed"),
    "a frame that is garbage": (lambda w: upload(w, bytes(200)), "Malformed"),
    "a frame cut short": (lambda w: upload(w, frame()[:60]), "ChecksumMismatch"),
    "a frame of another model": (lambda w: upload(w, frame(schema=OTHER)), "Malformed"),
    "a frame from the future": (
        lambda w: upload(w, with_crc(b"LUF\x63" + frame()[4:])), "UnsupportedVersion",
    ),
    "a frame with NaN": (lambda w: upload(w, nan_frame()), "NonFinite"),
    "a frame with absurd values": (
        lambda w: upload(w, frame(np.full(SIZE, 3e38, np.float32))), "LimitExceeded",
    ),
    "a value times weight that is absurd": (
        lambda w: upload(w, frame(np.full(SIZE, 1.0, np.float32)), weight=2**24), "LimitExceeded",
    ),
    "a wrong frame within the promise": (
        lambda w: whole(w, frame(), within=frame()[:-1] + b"x"), "ChecksumMismatch",
    ),
    "a frame too short within the promise": (
        lambda w: whole(w, frame(), within=frame()[:-1]), "Malformed",
    ),
    "garbage within the promise": (lambda w: whole(w, bytes(200)), "Malformed"),
    "another base": (lambda w: upload(w, frame(), base=HASH), "RemoteProtocolError"),
    "another task": (lambda w: upload(w, frame(), task=HASH), "RemoteProtocolError"),
    "another id": (lambda w: upload(w, frame(), update=HASH), "Malformed"),
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_named_with_its_sender_and_changes_nothing(attack: str, undisturbed: bytes) -> None:
    act, expected = ATTACKS[attack]
    f = fleet()
    world = logged(f)
    # In mid-round: the task is on offer, no device has reported yet.
    world.at(0.6, lambda: act(world))
    settle(f, world)
    named = complaints(world)
    assert [(host, c["device"], c["error"]) for host, c in named] == [("coordinator", "evil", expected)]
    assert expected in TYPED
    assert len(str(named[0][1]["why"])) < 600
    assert final(world) == undisturbed
    assert verify(f, world) == 12


def test_an_update_replayed_as_another_device_is_refused(undisturbed: bytes) -> None:
    f = fleet()
    world = logged(f)
    heard: list[str] = []

    def replay(d: Any) -> bool:
        if d.client == "coordinator" and d.topic.startswith("laconic/v1/d/d0/up/u/"):
            topic = d.topic.replace("/d0/", "/evil/")
            heard.append(topic)
            world.at(world.now, lambda: say(world, topic, d.payload))
        return False

    world.lose = replay
    settle(f, world)
    assert len(heard) >= 8
    assert {(c["device"], c["error"]) for _, c in complaints(world)} == {("evil", "Malformed")}
    assert final(world) == undisturbed
    assert verify(f, world) == 12


# --- what an attacker may say to a device ------------------------------------------------------------------

TASK = task_id("evil", 1, HASH)
TO_DEVICES: dict[str, tuple[str, bytes, str]] = {
    "garbage for a cohort's offer": (topics.cohort_task("default"), b"\xff", "Malformed"),
    "garbage for an offer": (topics.device_task("d0"), b"\xff", "Malformed"),
    "an offer too large": (topics.device_task("d0"), bytes(17_000), "LimitExceeded"),
    "an offer with an unknown codec": (
        topics.device_task("d0"),
        m.encode(m.Offer(TASK, 1, HASH, 9, BUNDLE, codec=msgspec.msgpack.encode({"kind": "magic"}))),
        "Malformed",
    ),
    "an offer with a codec that is garbage": (
        topics.device_task("d0"), m.encode(m.Offer(TASK, 1, HASH, 9, BUNDLE, codec=b"\xc1")), "Malformed",
    ),
    "an offer with an unknown gate": (
        topics.device_task("d0"), m.encode(m.Offer(TASK, 1, HASH, 9, BUNDLE, gate=m.Gate("magic"))),
        "Malformed",
    ),
    "an offer with a NaN rate": (
        topics.device_task("d0"),
        m.encode(m.Offer(TASK, 1, HASH, 9, BUNDLE, training=m.Training(learning_rate=float("nan")))),
        "Malformed",
    ),
    "garbage for an answer": (topics.ack("d0"), b"\x92", "Malformed"),
}  # fmt: skip


@pytest.mark.parametrize("when", [0.61, 1.0], ids=["while training", "while uploading"])
@pytest.mark.parametrize("attack", TO_DEVICES)
def test_an_attack_on_a_device_is_named_and_changes_nothing(
    attack: str, when: float, undisturbed: bytes
) -> None:
    topic, payload, expected = TO_DEVICES[attack]
    f = fleet()
    world = logged(f)
    world.at(when, lambda: say(world, topic, payload))
    settle(f, world)
    named = complaints(world)
    assert named
    assert {(c["topic"], c["error"]) for _, c in named} == {(topic, expected)}
    assert "d0" in {host for host, _ in named}
    assert final(world) == undisturbed
    assert verify(f, world) == 12


def test_answers_to_other_updates_are_not_taken(undisturbed: bytes) -> None:
    f = fleet()
    world = logged(f)
    for i in range(40):
        for fate in m.Fate:
            answer = m.encode(m.Ack(HASH, fate, [0, 1, 999_999], "you wish"))
            world.at(0.6 + i / 20, lambda answer=answer: say(world, topics.ack("d0"), answer))
    settle(f, world)
    assert final(world) == undisturbed
    assert verify(f, world) == 12


# --- fuzz --------------------------------------------------------------------------------------------------

NAMES = st.sampled_from(["d0", "d1", "evil", "coordinator"])
HASHES = st.sampled_from([HASH, "00" * 8, BUNDLE])
TOPICS = st.one_of(
    st.builds(topics.state, NAMES),
    st.builds(topics.skip, NAMES),
    st.builds(topics.telemetry, NAMES),
    st.builds(topics.update_fin, NAMES, HASHES),
    st.builds(topics.update_chunk, NAMES, HASHES, st.integers(0, 5)),
    st.builds(topics.device_task, NAMES),
    st.builds(topics.ack, NAMES),
    st.just(topics.cohort_task("default")),
    st.builds(topics.manifest, HASHES),
    st.builds(topics.blob_chunk, HASHES, st.integers(0, 5)),
    st.text(max_size=40),
)
NUMBERS = st.integers(-2, 2**49) | st.floats()
FIELDS = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=20) | st.binary(max_size=40) | HASHES,
    lambda inner: st.lists(inner, max_size=12),
    max_leaves=25,
)
WELL_FORMED = st.one_of(
    st.builds(m.State, st.booleans(), st.sampled_from(["default", "other", ""])),
    st.builds(m.Offer, HASHES, st.integers(0, 9), HASHES, st.integers(0, 9), HASHES, st.floats(0, 1)),
    st.builds(
        m.Fin, HASHES, HASHES, st.integers(0, 10**6), st.integers(1, 100), st.just(bytes(32)), st.just(1)
    ),
    st.builds(m.Skip, HASHES, HASHES, st.sampled_from(["gate", "battery", "x"]), st.integers(0, 2**24)),
    st.builds(m.Ack, HASHES, st.sampled_from(m.Fate), st.lists(st.integers(0, 9), max_size=3)),
    st.builds(m.Telemetry, st.none(), st.booleans(), st.booleans(), st.integers(0, 9), st.integers(0, 9),
              st.floats(0, 9), st.floats(0, 9)),
).map(m.encode)  # fmt: skip
PAYLOADS = st.one_of(
    st.binary(max_size=200),
    st.builds(bytes, st.integers(0, 70_000)),
    st.lists(FIELDS, max_size=13).map(msgspec.msgpack.encode),
    WELL_FORMED,
)
FUZZ = settings(
    max_examples=examples(100), deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip


def guarded(topic: str, payload: bytes) -> bool:
    """Whether only the access list stands between this message and harm."""
    if topic in (topics.state("d0"), topics.state("d1")):
        return True
    if not topic.endswith("/task"):
        return False
    try:
        return not payload or m.decode(m.Offer, payload) is not None
    except errors.WireError:
        return False


@FUZZ
@given(st.lists(st.tuples(st.floats(0.5, 3.0), TOPICS, PAYLOADS), min_size=5, max_size=30))
def test_nothing_that_is_published_stops_a_run(attacks: list[tuple[float, str, bytes]]) -> None:
    """Anyone may publish anything; `handle` never raises and the campaign comes to its end.

    Two things are not forged here, since only the broker's access list can keep strangers from them: the
    presence of the fleet's own devices, which a campaign that waits for them believes, and offers that a
    device can read, which displace the true one.
    """
    f = Fleet(rounds=2, chunk_bytes=48, deadline_s=5.0)
    world = logged(f)
    for when, topic, payload in attacks:
        topic = topics.state("evil") if guarded(topic, payload) else topic
        world.at(when, lambda topic=topic, payload=payload: say(world, topic, payload))
    f.run(world, 3600.0)
    coordinator = world.node("coordinator")
    assert isinstance(coordinator, CoordinatorEngine)
    assert coordinator.finished
    for _, fields in complaints(world):
        assert fields.get("error", "") in TYPED | {""}


MOMENTS = (0.4, 0.565, 0.75, 0.98, 1.3, 1.6, 2.0)


def device_at(moment: float) -> DeviceEngine:
    """A device in the midst of its work."""
    f = Fleet(chunk_bytes=16, codec=PRESETS["dense8"], delta_codec=PRESETS["dense8"])
    world = logged(f)
    world.run(moment)
    node = world.node("d0")
    assert isinstance(node, DeviceEngine)
    return node


def test_the_fuzzed_devices_are_in_different_states() -> None:
    assert len({device_at(moment).phase for moment in MOMENTS}) >= 4


@FUZZ
@given(st.data())
def test_a_device_raises_for_nothing(data: st.DataObject) -> None:
    device = device_at(data.draw(st.sampled_from(MOMENTS)))
    now = 10.0
    for topic, payload in data.draw(st.lists(st.tuples(TOPICS, PAYLOADS), max_size=20)):
        subscribed = data.draw(st.sampled_from([topic, *device._fetching.subscribed]))
        now += 0.1
        for effect in device.handle(Received(subscribed, payload), now):
            if isinstance(effect, Note) and effect.kind == "dropped":
                assert effect.fields["error"] in TYPED
                assert len(str(effect.fields["why"])) < 600


@FUZZ
@given(st.lists(st.tuples(TOPICS, PAYLOADS), max_size=30), st.integers(1, 3))
def test_a_coordinator_raises_for_nothing(attacks: list[tuple[str, bytes]], max_devices: int) -> None:
    """Its ledger is soon full, which is the harder case; the books stay right."""
    coordinator = Fleet(devices=1, max_devices=max_devices).coordinator()
    coordinator.handle(Started(MemoryStore()), 0.0)
    coordinator.handle(Connected(), 0.1)
    coordinator.handle(Received(topics.state("d0"), m.encode(m.State(True, samples=1))), 0.2)
    now = 1.0
    for topic, payload in attacks:
        now += 0.1
        coordinator.handle(Received(topic, payload), now)
        course = coordinator.courses["default"]
        state = course.round
        assert 0 <= state.reported <= state.expected
        assert len(course.ledger) <= max_devices
        assert course.book.fold.updates == len(course.book.committed)


# --- a model that is not what it should be -----------------------------------------------------------------


def test_a_manifest_under_another_key_is_refused_and_the_true_one_taken(undisturbed: bytes) -> None:
    f = fleet()
    f.key = b"the fleet's key"
    world = logged(f)
    version = weights_hash(np.ones(SIZE, np.float32), SCHEMA)
    forged: list[str] = []

    def forge(d: Any) -> bool:
        """Whoever asks for a manifest is first given one that somebody else has signed."""
        if d.client.startswith("d") and d.topic.endswith("/man"):
            true = m.decode(m.Manifest, d.payload)
            for lie in (
                sign(msgspec.structs.replace(true, version=true.version + 1), b"another key"),
                msgspec.structs.replace(true, oldest=0, full=None),
                msgspec.structs.replace(true, algorithm="", signature=b""),
                sign(msgspec.structs.replace(true, weights=version), b"the fleet's key"),
            ):
                if d.payload != m.encode(lie):
                    forged.append(d.topic)
                    super(LoggedWorld, world)._receive(world._hosts[d.client], altered(d, m.encode(lie)))
        return False

    world.lose = forge
    settle(f, world)
    assert len(forged) > 12
    errors_named = {c["error"] for host, c in complaints(world) if host.startswith("d")}
    assert errors_named == {"ChecksumMismatch", "RemoteProtocolError"}
    assert final(world) == undisturbed
    assert verify(f, world) == 12


def altered(d: Delivery, payload: bytes) -> Delivery:
    """The same delivery with another payload."""
    return Delivery(d.client, d.topic, payload)


@pytest.mark.parametrize(
    "damage", [lambda p: p[:-1] + bytes([p[-1] ^ 1]), lambda p: p + b"x", lambda p: p[:-2]]
)
def test_a_corrupt_chunk_of_a_model_is_fetched_again(
    damage: Callable[[bytes], bytes], undisturbed: bytes
) -> None:
    f = fleet()
    world = logged(f)
    spoilt: list[str] = []

    def spoil(d: Any) -> bool:
        if d.client == "d1" and "/m/" in d.topic and not d.topic.endswith("/man") and d.topic not in spoilt:
            spoilt.append(d.topic)
            super(LoggedWorld, world)._receive(world._hosts["d1"], altered(d, damage(d.payload)))
            return True
        return False

    world.lose = spoil
    settle(f, world)
    assert len(spoilt) >= 4
    assert [c for host, c in complaints(world) if host == "d1"]
    assert final(world) == undisturbed
    assert verify(f, world) == 12
