"""Laws of the coordinator's books: inbox, ledger, registry, selection."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from laconic.compression import PRESETS, decode
from laconic.coordinator.advance import Version, advance, first, full_frame
from laconic.coordinator.budgets import refusal
from laconic.coordinator.inbox import Inbox
from laconic.coordinator.ledger import DeviceRecord, Ledger, online
from laconic.coordinator.registry import Registry
from laconic.coordinator.selection import chosen
from laconic.edge_sdk.download import Download, download_limit_bytes
from laconic.edge_sdk.records import Held
from laconic.errors import ChecksumMismatch, LimitExceeded, Malformed, StorageError
from laconic.node import Send
from laconic.protocol import topics
from laconic.protocol.identity import draws, selected, weights_hash
from laconic.protocol.messages import Allowance, Eligibility, Fin, Manifest, State, Telemetry
from laconic.protocol.messages import decode as decode_message
from laconic.schema import Schema, TensorSpec, Vector
from laconic.storage import MemoryStore
from laconic.transport.broker import Broker
from often import examples

HASH = "0123456789abcdef"
SCHEMA = Schema((TensorSpec("w", (8, 9)), TensorSpec("b", (8,))))


# --- inbox --------------------------------------------------------------------------------------------------


def fin(data: bytes, chunks: int) -> Fin:
    return Fin(HASH, HASH, len(data), chunks, hashlib.sha256(data).digest(), 1)


ARRIVALS = st.lists(
    st.tuples(
        st.sampled_from([f"d{i}" for i in range(6)]),
        st.sampled_from([HASH, HASH[::-1]]),
        st.integers(0, 50),
        st.integers(0, 900),
    ),
    max_size=150,
)


@given(ARRIVALS)
def test_an_inbox_is_bounded_and_its_sum_is_right(arrivals: list[tuple[str, str, int, int]]) -> None:
    inbox = Inbox(update_limit_bytes=2000, total_limit_bytes=5000)
    for device, update, index, size in arrivals:
        with contextlib.suppress(LimitExceeded):
            inbox.add(device, update, index, bytes(size))
        costs = {name: 512 + held.cost_bytes for name, (_, held) in inbox._arriving.items()}
        assert inbox._total_bytes == sum(costs.values())
        assert inbox._total_bytes <= 5000 or list(costs) == [device]
    for device in list(inbox._arriving):
        inbox.discard(device)
    assert inbox._total_bytes == 0


@pytest.mark.parametrize("piece", [b"", bytes(70_000)], ids=["empty", "refused"])
def test_ever_new_devices_take_no_more_than_the_limit(piece: bytes) -> None:
    inbox = Inbox(update_limit_bytes=10**6, total_limit_bytes=100_000)
    for i in range(2000):
        with contextlib.suppress(LimitExceeded):
            inbox.add(f"d{i}", HASH, 0, piece)
    assert len(inbox._arriving) <= 200


def test_the_oldest_gives_way_and_is_asked_for_again() -> None:
    inbox = Inbox(update_limit_bytes=4000, total_limit_bytes=6000)
    data = bytes(range(200)) * 10
    pieces = [data[:1000], data[1000:]]
    for device in ("a", "b", "c"):
        for i, piece in enumerate(pieces):
            inbox.add(device, HASH, i, piece)
    promise = fin(data, 2)
    assert inbox.missing("a", HASH, promise, limit_bytes=10**6) == [0, 1]
    assert inbox.missing("c", HASH, promise, limit_bytes=10**6) == []
    assert inbox.take("c", promise) == data
    assert inbox.missing("c", HASH, promise, limit_bytes=10**6) == [0, 1], "what was taken is gone"


def test_an_update_within_its_promise_needs_no_chunk_and_takes_the_place_of_those_that_came() -> None:
    inbox = Inbox(update_limit_bytes=4000, total_limit_bytes=6000)
    inbox.add("a", HASH, 0, b"half")
    promise = msgspec.structs.replace(fin(b"whole", 1), frame=b"whole")
    assert inbox.missing("a", HASH, promise, limit_bytes=10**6) == []
    assert inbox.take("a", promise) == b"whole"
    assert inbox.missing("a", HASH, fin(b"half", 1), limit_bytes=10**6) == [0], "nothing is left of it"
    for wrong, error in ((b"whola", ChecksumMismatch), (b"whol", Malformed)):
        with pytest.raises(error):
            inbox.take("a", msgspec.structs.replace(promise, frame=wrong))


def test_a_new_update_of_a_device_replaces_its_older_one() -> None:
    inbox = Inbox(update_limit_bytes=4000, total_limit_bytes=6000)
    inbox.add("a", HASH, 0, b"old")
    inbox.add("a", HASH[::-1], 0, b"new")
    assert inbox.missing("a", HASH, fin(b"old", 1), limit_bytes=10**6) == [0]
    assert inbox.missing("a", HASH[::-1], fin(b"new", 1), limit_bytes=10**6) == []


@pytest.mark.parametrize(("size", "chunks"), [(4001, 1), (2**48, 1), (10, 11), (0, 2)])
def test_a_promise_that_cannot_be_kept_is_refused(size: int, chunks: int) -> None:
    with pytest.raises(LimitExceeded):
        Inbox(update_limit_bytes=4000, total_limit_bytes=6000).missing(
            "a", HASH, Fin(HASH, HASH, size, chunks, bytes(32), 1), limit_bytes=4000
        )


# --- ledger -------------------------------------------------------------------------------------------------


def test_a_ledger_restores_what_it_gave_to_be_saved() -> None:
    store = MemoryStore()
    ledger = Ledger(store, max_devices=10)
    ledger.seen("a", State(True, samples=7, charge=0.5), 3.0)
    ledger.told("b", Telemetry(0.25, True, True, 10, 20, 1.5, 2.5, True), 4.0)
    ledger.timed("a", seconds=10.0, samples=5)
    ledger.put(msgspec.structs.replace(ledger["a"], last_update=HASH, committed=3, last_rejected=HASH[::-1]))
    before = {name: ledger[name] for name in ("a", "b")}
    store.write(ledger.unsaved())
    assert ledger.unsaved() == {}
    again = Ledger(store, max_devices=10)
    assert {r.name: r for r in again} == {
        name: msgspec.structs.replace(r, online=False) for name, r in before.items()
    }
    assert online(again, "default") == []
    assert [r.name for r in online(ledger, "default")] == ["a"]


def test_only_changed_records_are_saved() -> None:
    ledger = Ledger(MemoryStore(), max_devices=10)
    ledger.seen("a", State(True), 1.0)
    ledger.seen("b", State(True), 1.0)
    assert ledger.unsaved().keys() == {"device/a", "device/b"}
    ledger.seen("b", State(False), 2.0)
    assert ledger.unsaved().keys() == {"device/b"}


def test_a_full_ledger_refuses_new_devices_and_serves_the_old() -> None:
    ledger = Ledger(MemoryStore(), max_devices=2)
    for name in ("a", "b"):
        ledger.seen(name, State(True), 1.0)
    with pytest.raises(LimitExceeded):
        ledger.admit("c")
    with pytest.raises(LimitExceeded):
        ledger.seen("c", State(True), 1.0)
    assert len(ledger) == 2
    ledger.admit("a")
    ledger.seen("a", State(False), 2.0)


def test_a_damaged_record_is_a_storage_error() -> None:
    store = MemoryStore()
    store.write({"device/a": b"\xc1"})
    with pytest.raises(StorageError):
        Ledger(store, max_devices=10)


def test_a_last_will_keeps_what_only_a_birth_knows() -> None:
    ledger = Ledger(MemoryStore(), max_devices=10)
    ledger.seen("a", State(True, samples=7, charge=0.5), 1.0)
    gone = ledger.seen("a", State(False), 2.0)
    assert (gone.online, gone.samples, gone.charge) == (False, 7, 0.5)


@given(st.lists(st.tuples(st.floats(0.01, 100.0), st.integers(1, 1000)), min_size=1, max_size=20))
def test_a_learnt_speed_stays_within_what_was_seen(reports: list[tuple[float, int]]) -> None:
    ledger = Ledger(MemoryStore(), max_devices=1)
    for seconds, samples in reports:
        ledger.timed("a", seconds=seconds, samples=samples)
    speeds = [s / n for s, n in reports]
    learnt = ledger["a"].seconds_per_sample
    assert learnt is not None
    assert min(speeds) * 0.999 <= learnt <= max(speeds) * 1.001


# --- selection ----------------------------------------------------------------------------------------------

RECORDS = st.builds(
    DeviceRecord,
    st.just("a"),
    charge=st.none() | st.floats(0, 1),
    charging=st.booleans(),
    metered=st.booleans(),
    bytes_up=st.integers(0, 100),
    bytes_down=st.integers(0, 100),
    joules_compute=st.floats(0, 100),
    joules_radio=st.floats(0, 100),
)
TERMS = st.builds(Eligibility, st.floats(0, 1), st.booleans(), st.booleans())
BUDGETS = st.builds(
    Allowance, max_bytes=st.none() | st.integers(0, 200), max_joules=st.none() | st.floats(0, 200)
)


@given(RECORDS, TERMS, BUDGETS)
def test_a_refusal_has_its_reason_and_no_refusal_has_none(
    record: DeviceRecord, terms: Eligibility, budget: Allowance
) -> None:
    reasons = set()
    if record.charge is not None and record.charge < terms.min_charge and not record.charging:
        reasons.add("battery")
    if terms.only_charging and not record.charging:
        reasons.add("charging")
    if terms.only_unmetered and record.metered:
        reasons.add("metered")
    if budget.max_bytes is not None and record.bytes_up + record.bytes_down >= budget.max_bytes:
        reasons.add("budget")
    if budget.max_joules is not None and record.joules_compute + record.joules_radio >= budget.max_joules:
        reasons.add("budget")
    found = refusal(record, terms, budget)
    assert (found is None) == (not reasons)
    assert found is None or found in reasons


@given(RECORDS, TERMS, BUDGETS, st.integers(0, 100))
def test_who_has_spent_more_is_never_asked_sooner(
    record: DeviceRecord, terms: Eligibility, budget: Allowance, more: int
) -> None:
    poorer = msgspec.structs.replace(
        record, bytes_up=record.bytes_up + more, joules_radio=record.joules_radio + more
    )
    assert refusal(record, terms, budget) is None or refusal(poorer, terms, budget) is not None


@given(st.lists(st.text("abcdef", min_size=1, max_size=6), unique=True, max_size=20), st.floats(0, 1))
def test_the_coordinator_chooses_whom_the_devices_choose(names: list[str], share: float) -> None:
    picked = chosen([DeviceRecord(n) for n in names], draws(names, HASH), share)
    assert picked == [n for n in names if selected(n, HASH, share)]


# --- registry -----------------------------------------------------------------------------------------------


def registry(
    store: MemoryStore, *, keep: int = 3, key: bytes | None = None, schema: Schema = SCHEMA, chunk: int = 64
) -> Registry:
    return Registry(store, schema, bundle=HASH, key=key, chunk_bytes=chunk, keep_versions=keep)


def grow(
    r: Registry, store: MemoryStore, broker: Broker, mean: Vector | None = None, codec: str = "small",
    schema: Schema = SCHEMA,
) -> Version:  # fmt: skip
    """One more version: computed, saved, published."""
    if r.empty:
        version = first(np.zeros(schema.size, np.float32), schema, lambda w: None)
    else:
        seed = r.current.version + 1
        step = np.random.default_rng(seed).normal(size=schema.size).astype(np.float32)
        version = advance(
            r.weights, r.residual, step if mean is None else mean, schema,
            codec=PRESETS[codec], seed=seed, full=r.wants_full(),
            evaluate=lambda w: None,
        )  # fmt: skip
        if version.full is None and r.must_be_whole()(version):
            version = replace(version, full=full_frame(version.weights, schema))
    store.write(r.add(version, 0.0, round_number=1, updates=1, silent=0, samples=1))
    publish(broker, r.publish_newest(version))
    return version


def publish(broker: Broker, effects: object) -> None:
    for e in effects:  # type: ignore[attr-defined]
        assert isinstance(e, Send)
        assert e.retain
        broker.publish(e.topic, e.payload, retain=True)


def rebuilt(broker: Broker, name: str, held: str, weights: Vector) -> Vector:
    """What a device makes of the retained messages, by deltas from `held`."""
    manifest = decode_message(Manifest, broker.retained[topics.manifest(name)])
    if name == held:
        return weights
    before = rebuilt(broker, manifest.parent, held, weights)
    assert manifest.delta is not None
    blob = manifest.delta
    data = b"".join(broker.retained[topics.blob_chunk(blob.address, i)] for i in range(blob.chunks))
    return before + decode(data, SCHEMA, limit_bytes=4 * SCHEMA.size)


@settings(max_examples=examples(20), deadline=None)
@given(st.integers(1, 5), st.integers(1, 12))
def test_a_restored_registry_is_the_one_that_was_saved(keep: int, versions: int) -> None:
    store, broker = MemoryStore(), Broker()
    r = registry(store, keep=keep)
    for _ in range(versions):
        grow(r, store, broker)
    again = registry(store, keep=keep)
    assert again.current == r.current
    assert again.weights.tobytes() == r.weights.tobytes()
    assert again.residual.tobytes() == r.residual.tobytes()
    assert again._records == r._records
    assert len(list(store.keys("weights/"))) == min(keep, versions)
    assert len(list(store.keys("model/"))) == versions, "the records of all versions are kept"
    fresh = Broker()
    publish(fresh, again.publish_all())
    current = topics.manifest(r.current.name)
    for topic, payload in fresh.retained.items():
        # What an older manifest says of the oldest version, it said when it was new.
        if not topic.endswith("/man") or topic == current:
            assert broker.retained[topic] == payload, "a broker that lost everything is given the same again"
    assert current in fresh.retained
    whole = [r._records[v].full for v in range(max(0, versions - keep), versions)]
    assert any(b is not None and topics.blob_chunk(b.address, 0) in fresh.retained for b in whole)


@settings(max_examples=examples(20), deadline=None)
@given(st.integers(1, 5), st.integers(2, 12))
def test_the_broker_holds_what_kept_versions_need_and_no_more(keep: int, versions: int) -> None:
    store, broker = MemoryStore(), Broker()
    r = registry(store, keep=keep)
    made = [grow(r, store, broker) for _ in range(versions)]
    records = [r._records[v] for v in range(versions)]
    kept = records[-keep:]
    allowed = {topics.manifest(k.name) for k in kept}
    for record in kept:
        if record.delta is not None:
            allowed |= {topics.blob_chunk(record.delta.address, i) for i in range(record.delta.chunks)}
        if record.full is not None:
            allowed |= {topics.blob_chunk(record.full.address, i) for i in range(record.full.chunks)}
    assert set(broker.retained) <= allowed
    base = max(0, versions - keep)
    found = rebuilt(broker, records[-1].name, records[base].name, made[base].weights)
    assert found.tobytes() == r.weights.tobytes()
    manifest = decode_message(Manifest, broker.retained[topics.manifest(r.current.name)])
    assert manifest.weights == weights_hash(r.weights, SCHEMA)
    whole = [(v, r._records[v].full) for v in range(base, versions) if r._records[v].full is not None]
    assert whole, "there is always a full model among the versions that are kept"
    for version, blob in whole:
        assert blob is not None
        full = b"".join(broker.retained[topics.blob_chunk(blob.address, i)] for i in range(blob.chunks))
        assert decode(full, SCHEMA, limit_bytes=4 * SCHEMA.size).tobytes() == made[version].weights.tobytes()


@settings(max_examples=examples(15), deadline=None)
@given(st.integers(1, 20), st.integers(1, 12), st.sampled_from(["exact", "dense8", "small"]))
@example(16, 6, "exact")
def test_whoever_is_behind_can_take_what_leads_to_the_newest_version(
    keep: int, versions: int, codec: str
) -> None:
    """Recorded: deltas as long as the model; who was three versions behind could not follow any more."""
    schema = Schema((TensorSpec("w", (50, 60)),))
    store, broker = MemoryStore(), Broker()
    r = registry(store, keep=keep, schema=schema, chunk=1 << 16)
    made = [grow(r, store, broker, codec=codec, schema=schema) for _ in range(versions)]
    for version in range(versions):
        held = Held(version, made[version].digest, made[version].weights)
        download = Download(
            target=r.current.name, held=held.name, held_version=version, bundle=HASH, key=None,
            limit_bytes=download_limit_bytes(schema),
        )  # fmt: skip
        while version < versions - 1:
            (topic, *_) = download.wanted()
            if (fetched := download.take(topic, broker.retained[topic])) is not None:
                assert fetched.apply(held, schema).weights.tobytes() == r.weights.tobytes()
                break


def test_equal_deltas_of_two_versions_share_their_chunks_until_both_are_gone() -> None:
    store, broker = MemoryStore(), Broker()
    r = registry(store, keep=2)
    same = np.ones(SCHEMA.size, np.float32)
    # Nothing is left out of an exact delta, so that the next one has nothing to make up for.
    made = [grow(r, store, broker, mean=same, codec="exact") for _ in range(6)]
    deltas = [r._records[v].delta for v in range(1, 6)]
    assert len({d.address for d in deltas if d is not None}) < 5, "two deltas have the same bytes"
    found = rebuilt(broker, r.current.name, r._records[4].name, made[4].weights)
    assert found.tobytes() == r.weights.tobytes()


@pytest.mark.parametrize("damage", ["weights", "server-residual", "short", "record", "foreign"])
def test_a_damaged_store_is_a_storage_error(damage: str) -> None:
    store = MemoryStore()
    grow(registry(store), store, Broker())
    schema = SCHEMA
    match damage:
        case "weights":
            store.write({"weights/00000000": np.ones(SCHEMA.size, "<f4").tobytes()})
        case "server-residual":
            store.write({"server-residual": None})
        case "short":
            store.write({"weights/00000000": b"1234"})
        case "record":
            store.write({"model/00000000": b"\xc1"})
        case "foreign":
            schema = Schema((TensorSpec("other", (8, 9)), TensorSpec("b", (8,))))
    with pytest.raises(StorageError):
        Registry(store, schema, bundle=HASH, key=None, chunk_bytes=64, keep_versions=3)


@given(st.lists(st.floats(-10, 10, width=32), min_size=4, max_size=4), st.sampled_from(sorted(PRESETS)))
def test_a_step_loses_nothing(values: list[float], preset: str) -> None:
    """New weights + residual = old weights + old residual + step: what the delta left out is carried on."""
    schema = Schema((TensorSpec("w", (4,)),))
    weights, residual = np.full(4, 0.5, np.float32), np.full(4, 0.125, np.float32)
    step = np.array(values, np.float32)
    after = advance(
        weights, residual, step, schema, codec=PRESETS[preset], seed=1, full=True,
        evaluate=lambda w: None,
    )  # fmt: skip
    expected = weights.astype(np.float64) + residual + step
    np.testing.assert_allclose(
        after.weights.astype(np.float64) + after.residual, expected, rtol=1e-5, atol=1e-5
    )
    assert after.delta is not None
    said = decode(after.delta, schema, limit_bytes=16)
    assert (weights + said).tobytes() == after.weights.tobytes()
    assert after.full is not None
    assert decode(after.full, schema, limit_bytes=16).tobytes() == after.weights.tobytes()
