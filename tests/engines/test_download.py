"""Fetching a model: the shorter way, only what is missing, nothing that is not signed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pytest
from chronicle import logged, settle, verify
from fleet import BUNDLE, Fleet
from hypothesis import given
from hypothesis import strategies as st

from laconic.compression import PRESETS
from laconic.edge_sdk.download import Download, Fetched
from laconic.errors import ChecksumMismatch, LimitExceeded, RemoteProtocolError
from laconic.protocol import messages as m
from laconic.protocol import topics
from laconic.protocol.chunks import split
from laconic.protocol.identity import sign
from laconic.protocol.messages import Blob, Manifest

KEY = b"the fleet's key"


@dataclass
class Shelf:
    """Versions as they lie at a broker."""

    versions: int
    full_of: Callable[[int], bool] = lambda v: True
    delta_bytes: int = 40
    full_bytes: int = 400
    chunk_bytes: int = 32
    key: bytes | None = KEY

    def __post_init__(self) -> None:
        self.messages: dict[str, bytes] = {}
        self.names: list[str] = []
        self.frames: dict[str, bytes] = {}
        for v in range(self.versions):
            weights = hashlib.sha256(f"weights {v}".encode()).digest()
            delta = self.blob(f"delta {v}", self.delta_bytes) if v else None
            full = self.blob(f"full {v}", self.full_bytes)
            manifest = Manifest(
                v, weights, BUNDLE, self.names[-1] if v else "", delta, full if self.full_of(v) else None, 0
            )
            self.names.append(weights[:8].hex())
            self.messages[topics.manifest(self.names[-1])] = m.encode(sign(manifest, self.key))

    def blob(self, what: str, size: int) -> Blob:
        data = hashlib.shake_256(what.encode()).digest(size)
        blob = Blob(size, self.chunk_bytes, hashlib.sha256(data).digest())
        self.frames[what] = data
        for i, piece in enumerate(split(data, self.chunk_bytes)):
            self.messages[topics.blob_chunk(blob.address, i)] = piece
        return blob

    def download(self, held: int, **changes: Any) -> Download:
        options: dict[str, Any] = {"key": self.key, "limit_bytes": 10_000, **changes}
        return Download(
            target=self.names[-1], held=self.names[held], held_version=held, bundle=BUNDLE, **options
        )

    def fetch(self, download: Download) -> tuple[Fetched, list[str]]:
        """Give it what it wants until it is done; what it asked for, in order."""
        asked: list[str] = []
        for _ in range(1000):
            wanted = download.wanted()
            assert 1 <= len(wanted) <= 4
            asked += [t for t in wanted if t not in asked]
            if (done := download.take(wanted[0], self.messages[wanted[0]])) is not None:
                return done, asked
        raise AssertionError("no end")


@pytest.mark.parametrize("behind", [1, 2, 5, 9])
def test_a_device_fetches_the_deltas_it_lacks_in_order(behind: int) -> None:
    shelf = Shelf(12)
    done, asked = shelf.fetch(shelf.download(11 - behind))
    assert not done.from_zero
    assert done.frames == tuple(shelf.frames[f"delta {v}"] for v in range(12 - behind, 12))
    assert done.manifest.version == 11
    assert len(asked) == behind * (1 + 2), "a manifest and two chunks each, nothing else"


def test_the_full_model_is_fetched_where_it_is_shorter() -> None:
    shelf = Shelf(12)
    assert not shelf.fetch(shelf.download(1))[0].from_zero, "ten deltas of 40 bytes are 400"
    done, asked = shelf.fetch(shelf.download(0))
    assert done.from_zero
    assert done.frames == (shelf.frames["full 11"],)
    manifests = [t for t in asked if t.endswith("/man")]
    assert len(manifests) == 11, "no more manifests than it takes to know"


def test_a_device_of_another_lineage_fetches_the_full_model() -> None:
    shelf = Shelf(4)
    download = shelf.download(1)
    download.held = "0" * 16
    done, _ = shelf.fetch(download)
    assert done.from_zero


def test_without_a_full_model_deltas_are_the_way_however_long() -> None:
    shelf = Shelf(12, full_of=lambda v: False)
    done, _ = shelf.fetch(shelf.download(0))
    assert len(done.frames) == 11


def test_no_way_at_all_is_said_and_leaves_the_download_as_it_was() -> None:
    shelf = Shelf(4, full_of=lambda v: False)
    download = shelf.download(1)
    download.held = "0" * 16
    for _ in range(2):
        for topic in map(topics.manifest, reversed(shelf.names)):
            try:
                download.take(topic, shelf.messages[topic])
            except RemoteProtocolError as e:
                error = e
        assert "no way" in str(error)
        assert len(download.wanted()) == 1
        assert download.wanted()[0] in shelf.messages


def test_a_full_model_of_an_older_version_is_fetched_with_the_deltas_since() -> None:
    shelf = Shelf(12, full_of=lambda v: v in (0, 4, 8), full_bytes=200)
    done, asked = shelf.fetch(shelf.download(0))
    assert done.from_zero
    assert done.frames == tuple(shelf.frames[f] for f in ("full 8", "delta 9", "delta 10", "delta 11"))
    assert len([t for t in asked if t.endswith("/man")]) == 9, (
        "no more than it takes to know that deltas cost more"
    )
    done, _ = shelf.fetch(shelf.download(6))
    assert done.frames == tuple(shelf.frames[f"delta {v}"] for v in range(7, 12)), "200 is not more than 320"


def test_a_blob_that_is_wrong_twice_gives_way_to_a_full_model() -> None:
    """Recorded: a delta that had been damaged at its source was asked for again for ever."""
    shelf = Shelf(6, full_of=lambda v: v == 3)
    delta = shelf.download(4)
    delta.take(delta.wanted()[0], shelf.messages[delta.wanted()[0]])
    for topic in delta.wanted():
        shelf.messages[topic] = bytes(len(shelf.messages[topic]))
    wrong = 0
    for _ in range(100):
        topic = delta.wanted()[0]
        try:
            done = delta.take(topic, shelf.messages[topic])
        except ChecksumMismatch:
            wrong += 1
            # The way from the full model leads over another delta; the damage was in one blob of this one.
            if wrong == 2:
                shelf.messages |= Shelf(6, full_of=lambda v: v == 3).messages
            continue
        if done is not None:
            break
    assert wrong == 2
    assert done is not None
    assert done.from_zero
    assert done.frames == tuple(shelf.frames[f] for f in ("full 3", "delta 4", "delta 5"))


def test_only_full_skips_the_deltas() -> None:
    done, _ = Shelf(4).fetch(Shelf(4).download(2, only_full=True))
    assert done.from_zero


@pytest.mark.parametrize("shuffle", range(5))
def test_pieces_come_in_any_order_and_twice(shuffle: int) -> None:
    shelf = Shelf(3, delta_bytes=500, full_bytes=5000)
    download = shelf.download(1)
    rng = np.random.default_rng(shuffle)
    done = None
    while done is None:
        wanted = download.wanted()
        for i in rng.integers(0, len(wanted), 3):
            done = done or download.take(wanted[i], shelf.messages[wanted[i]])
            if done or download.wanted() != wanted:
                break
    assert done.frames == (shelf.frames["delta 2"],)


def test_a_wrong_signature_or_bundle_is_refused_and_the_true_manifest_taken_after_it() -> None:
    shelf = Shelf(3)
    download = shelf.download(1)
    topic = topics.manifest(shelf.names[-1])
    true = m.decode(Manifest, shelf.messages[topic])
    for lie, error in (
        (sign(true, b"another"), ChecksumMismatch),
        (msgspec.structs.replace(true, oldest=2), ChecksumMismatch),
        (msgspec.structs.replace(true, signature=b"", algorithm=""), ChecksumMismatch),
        (sign(msgspec.structs.replace(true, bundle="0" * 16), KEY), RemoteProtocolError),
        (sign(msgspec.structs.replace(true, weights=bytes(32)), KEY), RemoteProtocolError),
    ):
        with pytest.raises(error):
            download.take(topic, m.encode(lie))
        assert download.wanted() == (topic,)
    done, _ = shelf.fetch(download)
    assert done.frames == (shelf.frames["delta 2"],)


@pytest.mark.parametrize(
    "lie",
    [
        {"full": Blob(10_001, 64, bytes(32)), "delta": None},
        {"full": Blob(2**48, 1, bytes(32)), "delta": None},
    ],
)
def test_a_model_too_large_is_refused_and_the_true_manifest_taken_after_it(lie: dict[str, Any]) -> None:
    shelf = Shelf(3, key=None)
    download = shelf.download(1)
    topic = topics.manifest(shelf.names[-1])
    true = m.decode(Manifest, shelf.messages[topic])
    with pytest.raises(LimitExceeded):
        download.take(topic, m.encode(msgspec.structs.replace(true, **lie)))
    done, _ = shelf.fetch(download)
    assert done.frames == (shelf.frames["delta 2"],)


def test_a_chain_of_parents_must_fall_by_one_version_at_each_step() -> None:
    shelf = Shelf(6, key=None, full_of=lambda v: False)
    download = shelf.download(0)
    topic = topics.manifest(shelf.names[-1])
    download.take(topic, shelf.messages[topic])
    parent = topics.manifest(shelf.names[-2])
    true = m.decode(Manifest, shelf.messages[parent])
    for version in (5, 6, 3, 2**40):
        with pytest.raises(RemoteProtocolError):
            download.take(parent, m.encode(msgspec.structs.replace(true, version=version)))
    assert len(shelf.fetch(download)[0].frames) == 5


def test_a_corrupt_piece_costs_its_blob_and_no_more() -> None:
    shelf = Shelf(3, delta_bytes=100)
    download = shelf.download(1)
    topic = download.wanted()[0]
    download.take(topic, shelf.messages[topic])
    wanted = download.wanted()
    for t in wanted[:-1]:
        download.take(t, shelf.messages[t])
    with pytest.raises(ChecksumMismatch):
        download.take(wanted[-1], bytes(len(shelf.messages[wanted[-1]])))
    assert download.wanted() == wanted
    assert shelf.fetch(download)[0].frames == (shelf.frames["delta 2"],)


@given(st.sets(st.integers(0, 15)))
def test_after_a_restart_only_missing_pieces_are_asked_for(kept: set[int]) -> None:
    shelf = Shelf(3, delta_bytes=500, full_bytes=5000)
    download = shelf.download(1)
    topic = topics.manifest(shelf.names[-1])
    delta = m.decode(Manifest, shelf.messages[topic]).delta
    assert delta is not None
    assert delta.chunks == 16
    pieces = {i: shelf.messages[topics.blob_chunk(delta.address, i)] for i in kept}
    download.saved = lambda address: list(pieces.items()) if address == delta.address else []
    done, asked = shelf.fetch(download)
    chunks = {int(t.rsplit("/", 1)[1]) for t in asked if not t.endswith("/man")}
    # The first is always asked for anew: its arrival completes the blob.
    assert chunks == set(range(16)) - (kept - {0})
    assert done.frames == (shelf.frames["delta 2"],)


def test_a_device_that_restarts_in_mid_download_asks_for_the_rest_only() -> None:
    fleet = Fleet(devices=2, rounds=2, min_devices=1, min_reports=1, deadline_s=5.0, chunk_bytes=16,
                  delta_codec=PRESETS["exact"])  # fmt: skip
    world = logged(fleet)
    crashed: list[float] = []

    def stop(d: Any) -> bool:
        """Kill d1 when the twelfth chunk of its first model is on its way."""
        if d.client == "d1" and "/m/" in d.topic and d.topic.endswith("/12") and not crashed:
            crashed.append(world.now)
            world.crash("d1")
            return True
        return False

    world.lose = stop
    settle(fleet, world)
    assert crashed
    before = [f for t, h, f in world.asked if h == "d1" and "/m/" in f and t <= crashed[0]]
    after = [f for t, h, f in world.asked if h == "d1" and "/m/" in f and t > crashed[0]]
    had = {f for f in before if f.rsplit("/", 1)[1].isdigit() and 0 < int(f.rsplit("/", 1)[1]) < 9}
    assert len(had) == 8
    assert any(f.endswith("/13") for f in after), "it went on with the same blob"
    assert not had & set(after), "what was on the disk is not asked for again"
    assert verify(fleet, world) >= 2
