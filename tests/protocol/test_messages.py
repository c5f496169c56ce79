"""Laws of control messages: round trip, versions N±1, bounds, hostile bytes."""

from __future__ import annotations

import math
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic.errors import LimitExceeded, Malformed, WireError
from laconic.protocol.messages import (
    MESSAGE_LIMIT_BYTES,
    Ack,
    Blob,
    Eligibility,
    Fate,
    Feedback,
    Fin,
    Gate,
    Manifest,
    Message,
    Offer,
    Skip,
    State,
    Telemetry,
    Training,
    amount,
    decode,
    encode,
    real,
    report_weight,
)

HASHES = st.text("0123456789abcdef", min_size=16, max_size=16)
COUNTS = st.integers(0, 2**48)
TEXTS = st.text(max_size=128)
AMOUNTS = st.floats(0.0, 1e15)
SHARES = st.floats(0.0, 1.0)
REALS = st.none() | st.floats(-1e15, 1e15)
SHA256 = st.binary(min_size=32, max_size=32)
CHARGES = st.none() | SHARES
TRAININGS = st.builds(
    Training, st.integers(1, 10_000), st.integers(1, 65_536), st.floats(0.0, 1e3, exclude_min=True)
)
GATES = st.builds(Gate, TEXTS, AMOUNTS, COUNTS, SHARES, AMOUNTS, AMOUNTS)
FEEDBACKS = st.builds(Feedback, AMOUNTS, SHARES, COUNTS)
TERMS = st.builds(Eligibility, SHARES, st.booleans(), st.booleans())
BLOBS = st.builds(Blob, COUNTS, st.integers(1, 65_536), SHA256)

MESSAGES: dict[type[Message], st.SearchStrategy[Any]] = {
    State: st.builds(
        State, st.booleans(), TEXTS, COUNTS, COUNTS, CHARGES, st.booleans(), st.booleans(), TEXTS
    ),
    Offer: st.builds(
        Offer, HASHES, COUNTS, HASHES, COUNTS, HASHES, SHARES, AMOUNTS, TRAININGS, st.binary(max_size=1024),
        GATES, TERMS, st.booleans(), FEEDBACKS,
    ),
    Fin: st.builds(
        Fin, HASHES, HASHES, COUNTS, st.integers(1, 1_000_000), SHA256, st.integers(1, 2**24), AMOUNTS,
        AMOUNTS, REALS, REALS, AMOUNTS, SHARES, SHARES, st.none() | SHARES, st.binary(max_size=64),
    ),
    Skip: st.builds(
        Skip, HASHES, HASHES, TEXTS, st.integers(0, 2**24), AMOUNTS, AMOUNTS, AMOUNTS,
        SHARES, SHARES,
    ),
    Telemetry: st.builds(
        Telemetry, CHARGES, st.booleans(), st.booleans(), COUNTS, COUNTS, AMOUNTS, AMOUNTS, st.booleans()
    ),
    Ack: st.builds(
        Ack, HASHES, st.sampled_from(Fate), st.lists(st.integers(0, 1_000_000), max_size=1024),
        st.text(max_size=512),
    ),
    Manifest: st.builds(
        Manifest, COUNTS, SHA256, HASHES, HASHES | st.just(""), st.none() | BLOBS, st.none() | BLOBS, COUNTS,
        TEXTS, st.binary(max_size=128),
    ),
}  # fmt: skip
KINDS = sorted(MESSAGES, key=lambda kind: kind.__name__)
ANY = st.sampled_from(KINDS).flatmap(lambda kind: MESSAGES[kind])


def required(kind: type[Message]) -> int:
    """How many fields have no default."""
    return sum(f.required for f in msgspec.structs.fields(kind))


def test_every_message_is_tried() -> None:
    from laconic.protocol import messages

    assert set(messages._DECODERS) == set(KINDS)


@given(ANY)
def test_round_trip(message: Message) -> None:
    raw = encode(message)
    assert len(raw) <= MESSAGE_LIMIT_BYTES
    again = decode(type(message), raw)
    assert again == message
    assert type(again) is type(message)


@given(
    ANY, st.lists(st.none() | st.integers(-5, 5) | st.text(max_size=5) | st.lists(st.booleans()), min_size=1)
)
def test_what_a_newer_release_appends_is_ignored(message: Message, more: list[object]) -> None:
    fields = msgspec.msgpack.decode(encode(message))
    assert decode(type(message), msgspec.msgpack.encode(fields + more)) == message


@given(ANY, st.data())
def test_what_an_older_release_leaves_out_takes_its_default(message: Message, data: st.DataObject) -> None:
    kind = type(message)
    fields = msgspec.msgpack.decode(encode(message))
    kept = data.draw(st.integers(required(kind), len(fields)))
    read = decode(kind, msgspec.msgpack.encode(fields[:kept]))
    for i, f in enumerate(msgspec.structs.fields(kind)):
        default = f.default if f.default is not msgspec.NODEFAULT else None
        if i < kept:
            assert getattr(read, f.name) == getattr(message, f.name)
        elif f.default_factory is msgspec.NODEFAULT:
            assert getattr(read, f.name) == default
    if required(kind):
        with pytest.raises(Malformed):
            decode(kind, msgspec.msgpack.encode(fields[: required(kind) - 1]))


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_after_the_first_optional_one_has_a_default(kind: type[Message]) -> None:
    flags = [f.required for f in msgspec.structs.fields(kind)]
    assert flags == sorted(flags, reverse=True), "fields are appended with a default"


@given(st.sampled_from(KINDS), st.binary(max_size=300))
def test_any_bytes_are_a_message_or_a_wire_error(kind: type[Message], raw: bytes) -> None:
    try:
        assert isinstance(decode(kind, raw), kind)
    except WireError as e:
        assert len(str(e)) < 1000  # noqa: PT017


@given(ANY, st.data())
def test_damaged_messages_are_messages_or_wire_errors(message: Message, data: st.DataObject) -> None:
    raw = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(raw)))
    for piece in (bytes(raw), bytes(raw[:cut])):
        try:
            decode(type(message), piece)
        except WireError:
            continue


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_over_the_limit_is_refused_unread(kind: type[Message]) -> None:
    with pytest.raises(LimitExceeded):
        decode(kind, bytes(MESSAGE_LIMIT_BYTES + 1))


@pytest.mark.parametrize(
    "bomb",
    [
        b"\x91" * MESSAGE_LIMIT_BYTES,  # a list in a list in a list
        b"\xdd\xff\xff\xff\xff",  # an array of four thousand million
        b"\xdf\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\x9b\xdb\xff\xff\xff\xff",
        b"\x81" * 5000,
        b"",
        b"\xc1",
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_bombs_end_at_once(kind: type[Message], bomb: bytes) -> None:
    begin = time.perf_counter()
    with pytest.raises(WireError):
        decode(kind, bomb)
    assert time.perf_counter() - begin < 0.5


def bounded_floats() -> list[tuple[type[Message], tuple[int, ...]]]:
    """Where in the messages a float stands, also in nested ones."""
    found: list[tuple[type[Message], tuple[int, ...]]] = []

    def walk(kind: type[Message], node: Any, path: tuple[int, ...]) -> None:
        for i, f in enumerate(msgspec.structs.fields(node)):
            text = str(f.type)
            if "float" in text:
                found.append((kind, (*path, i)))
            elif isinstance(f.type, type) and issubclass(f.type, Message):
                walk(kind, f.type, (*path, i))

    for kind in KINDS:
        walk(kind, kind, ())
    return found


FLOATS = bounded_floats()


@pytest.mark.parametrize("value", [math.nan, -math.nan, math.inf, -math.inf, 1e300, -1e300])
@pytest.mark.parametrize(("kind", "path"), FLOATS, ids=lambda x: getattr(x, "__name__", str(x)))
def test_no_float_may_be_nan_infinite_or_absurd(
    kind: type[Message], path: tuple[int, ...], value: float
) -> None:
    message = EXAMPLES[kind]
    fields = msgspec.msgpack.decode(encode(message))
    place = fields
    for i in path[:-1]:
        place = place[i]
    place[path[-1]] = value
    with pytest.raises(Malformed):
        decode(kind, msgspec.msgpack.encode(fields))


HASH = "0123456789abcdef"
EXAMPLES: dict[type[Message], Message] = {
    State: State(True),
    Offer: Offer(HASH, 1, HASH, 0, HASH),
    Fin: Fin(HASH, HASH, 10, 1, bytes(32), 5, loss_before=1.0, loss_after=0.5),
    Skip: Skip(HASH, HASH, "gate"),
    Telemetry: Telemetry(0.5, False, False, 1, 2, 3.0, 4.0),
    Ack: Ack(HASH, Fate.MISSING, [1, 2]),
    Manifest: Manifest(3, bytes(32), HASH, "", Blob(1, 1, bytes(32)), Blob(1, 1, bytes(32)), 0),
}


def test_the_floats_were_found() -> None:
    assert len(FLOATS) >= 17
    assert (Offer, (7, 2)) in FLOATS, "the learning rate"


@pytest.mark.parametrize(
    ("kind", "index", "value"),
    [
        (Offer, 0, HASH + "\n"),
        (Offer, 0, HASH.upper()),
        (Offer, 0, ""),
        (Offer, 0, 7),
        (Offer, 1, -1),
        (Offer, 1, 2**48 + 1),
        (Offer, 2, HASH[:-1]),
        (Offer, 8, bytes(1025)),
        (Fin, 2, -1),
        (Fin, 3, 0),
        (Fin, 3, 1_000_001),
        (Fin, 4, bytes(31)),
        (Fin, 5, 0),
        (Fin, 5, 2**24 + 1),
        (Fin, 5, 1.5),
        (Fin, 14, "text"),
        (Skip, 2, "x" * 129),
        (Skip, 3, -1),
        (State, 0, 1),
        (State, 1, "x" * 129),
        (State, 4, 1.01),
        (Telemetry, 3, -1),
        (Ack, 1, 3),
        (Ack, 1, None),
        (Ack, 2, list(range(1025))),
        (Ack, 2, [-1]),
        (Ack, 3, "x" * 513),
        (Manifest, 3, HASH + "\n"),
        (Manifest, 3, "\n"),
        (Manifest, 4, [1, 0, bytes(32)]),
        (Manifest, 4, [1, 65_537, bytes(32)]),
        (Manifest, 8, bytes(129)),
    ],
)
def test_a_value_out_of_its_bounds_is_refused(kind: type[Message], index: int, value: object) -> None:
    fields = msgspec.msgpack.decode(encode(EXAMPLES[kind]))
    assert decode(kind, msgspec.msgpack.encode(fields)) == EXAMPLES[kind]
    fields[index] = value
    with pytest.raises(Malformed):
        decode(kind, msgspec.msgpack.encode(fields))


@given(st.floats(), st.none() | st.floats(), st.integers(1, 2**60))
def test_whatever_a_device_measures_can_be_reported(norm: float, loss: float | None, samples: int) -> None:
    fin = msgspec.structs.replace(
        EXAMPLES[Fin], norm=amount(norm), loss_before=real(loss), weight=report_weight(samples)
    )
    again = decode(Fin, encode(fin))
    assert again == fin
    if 0 <= norm <= 1e15:
        assert again.norm == norm
    if loss is not None and abs(loss) <= 1e15:
        assert again.loss_before == loss


@given(st.integers(0, 2**40), st.integers(1, 65_536))
def test_a_blob_has_as_many_chunks_as_split_makes(size: int, chunk_bytes: int) -> None:
    chunks = Blob(size, chunk_bytes, bytes(32)).chunks
    assert chunks >= 1
    assert (chunks - 1) * chunk_bytes <= size <= chunks * chunk_bytes
