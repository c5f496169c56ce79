"""Laws of identities: weights, tasks, updates, signatures, and who is selected."""

from __future__ import annotations

import hashlib
import hmac
import struct

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic.errors import ChecksumMismatch, WireError
from laconic.protocol.identity import selected, short, sign, task_id, update_id, verify, weights_hash
from laconic.protocol.messages import Blob, Manifest, decode, encode
from laconic.schema import Schema, TensorSpec

SCHEMA = Schema((TensorSpec("w", (2, 3)), TensorSpec("b", ())))
MANIFEST = Manifest(
    version=3,
    weights=hashlib.sha256(b"w").digest(),
    bundle="ab" * 8,
    parent="cd" * 8,
    delta=Blob(10, 5, hashlib.sha256(b"d").digest()),
    full=None,
    oldest=1,
)
KEY = b"a fleet's key"


def joined(*parts: str) -> bytes:
    """SHA-256 over length-prefixed parts, written down anew from the specification."""
    h = hashlib.sha256()
    for part in parts:
        h.update(struct.pack("<I", len(part.encode())) + part.encode())
    return h.digest()


def test_identities_are_those_of_the_specification() -> None:
    weights = np.arange(7, dtype=np.float32)
    by_hand = hashlib.sha256(SCHEMA.digest + struct.pack("<7f", *range(7)))
    assert weights_hash(weights, SCHEMA) == by_hand.digest()
    assert short(by_hand.digest()) == by_hand.hexdigest()[:16]
    assert task_id("fleet", 7, "00" * 8) == joined("fleet", "7", "00" * 8).hex()[:16]
    frame = hashlib.sha256(b"frame").digest()
    assert (
        update_id("d", "ab" * 8, "cd" * 8, frame) == joined("d", "ab" * 8, "cd" * 8, frame.hex()).hex()[:16]
    )
    chance = int.from_bytes(joined("d", "ab" * 8)[:6], "big") / 2**48
    assert selected("d", "ab" * 8, chance + 1e-12)
    assert not selected("d", "ab" * 8, chance - 1e-12)


@given(
    st.lists(st.text(max_size=5), min_size=4, max_size=4),
    st.lists(st.text(max_size=5), min_size=4, max_size=4),
)
def test_identities_differ_where_any_part_does(a: list[str], b: list[str]) -> None:
    frames = [hashlib.sha256(x[3].encode()).digest() for x in (a, b)]
    assert (update_id(a[0], a[1], a[2], frames[0]) == update_id(b[0], b[1], b[2], frames[1])) == (a == b)


def test_a_boundary_cannot_be_moved() -> None:
    assert task_id("ab", 1, "c") != task_id("a", 1, "bc")
    assert update_id("ab", "c", "d", bytes(32)) != update_id("a", "bc", "d", bytes(32))


@given(st.text(max_size=20), st.text(max_size=20), st.floats(0, 1), st.floats(0, 1))
def test_selection_is_monotone_in_the_share(device: str, task: str, a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert selected(device, task, high) or not selected(device, task, low)
    assert selected(device, task, 1.0)
    assert not selected(device, task, 0.0)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
def test_a_share_is_that_share_of_the_devices_and_of_the_tasks(share: float) -> None:
    n = 10_000
    sigma = (share * (1 - share) / n) ** 0.5
    by_device = sum(selected(f"d{i}", "t", share) for i in range(n)) / n
    by_task = sum(selected("d", f"t{i}", share) for i in range(n)) / n
    assert abs(by_device - share) < 4 * sigma
    assert abs(by_task - share) < 4 * sigma


def test_selection_in_one_round_says_nothing_of_the_next() -> None:
    n = 10_000
    both = sum(selected(f"d{i}", "t1", 0.5) and selected(f"d{i}", "t2", 0.5) for i in range(n)) / n
    assert abs(both - 0.25) < 0.02


def test_a_signature_is_over_everything_but_itself() -> None:
    signed = sign(MANIFEST, KEY)
    verify(signed, KEY)
    unsigned = msgspec.structs.replace(signed, signature=b"")
    assert signed.signature == hmac.digest(KEY, encode(unsigned), "sha256")
    assert sign(MANIFEST, None) == MANIFEST
    verify(MANIFEST, None)
    verify(signed, None)
    assert sign(signed, KEY) == signed


@pytest.mark.parametrize(
    "change",
    [
        {"version": 4},
        {"weights": bytes(32)},
        {"bundle": "00" * 8},
        {"parent": ""},
        {"delta": None},
        {"full": Blob(1, 1, bytes(32))},
        {"oldest": 2},
        {"algorithm": ""},
        {"algorithm": "none"},
        {"signature": b""},
        {"signature": bytes(32)},
    ],
)
def test_a_signed_manifest_that_was_changed_is_refused(change: dict[str, object]) -> None:
    changed = msgspec.structs.replace(sign(MANIFEST, KEY), **change)
    with pytest.raises(ChecksumMismatch):
        verify(changed, KEY)


def test_a_foreign_key_and_a_missing_signature_are_refused() -> None:
    with pytest.raises(ChecksumMismatch):
        verify(sign(MANIFEST, b"another key"), KEY)
    with pytest.raises(ChecksumMismatch):
        verify(MANIFEST, KEY)


@given(st.data())
def test_no_flipped_bit_of_a_signed_manifest_is_accepted(data: st.DataObject) -> None:
    raw = bytearray(encode(sign(MANIFEST, KEY)))
    at = data.draw(st.integers(0, 8 * len(raw) - 1))
    raw[at // 8] ^= 1 << at % 8
    try:
        manifest = decode(Manifest, bytes(raw))
    except WireError:
        return
    with pytest.raises(ChecksumMismatch):
        verify(manifest, KEY)


def test_only_arrays_that_nobody_can_write_to_are_hashed_once() -> None:
    memory = np.zeros(SCHEMA.size, np.float32)
    view = memory[:]
    view.flags.writeable = False
    before = weights_hash(view, SCHEMA)
    memory[0] = 1
    assert weights_hash(view, SCHEMA) != before
    fixed = memory.copy()
    assert weights_hash(fixed, SCHEMA) == weights_hash(view, SCHEMA)
    fixed[0] = 0
    fixed.flags.writeable = False
    assert weights_hash(fixed, SCHEMA) == weights_hash(fixed, SCHEMA) == before
    other = Schema((TensorSpec("v", (SCHEMA.size,)),))
    assert weights_hash(fixed, other) == hashlib.sha256(other.digest + fixed.tobytes()).digest()
    fixed.flags.writeable = True
    fixed[0] = 1
    assert weights_hash(fixed, SCHEMA) == weights_hash(view, SCHEMA)
