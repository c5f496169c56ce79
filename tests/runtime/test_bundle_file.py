"""Laws of the bundle file: what is written is read, the same bytes each time; nothing else is believed."""

from __future__ import annotations

import hashlib
import re
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.errors import (
    ChecksumMismatch,
    LimitExceeded,
    Malformed,
    NonFinite,
    UnsupportedVersion,
    WireError,
)
from laconic.runtime import Bundle, pack
from laconic.runtime.bundle import FORMAT, MAGIC, MANIFEST_LIMIT_BYTES
from often import examples

HEADER = struct.Struct("<8sHHI32s")


def forged(file: bytes, change: Callable[[dict[str, Any]], object], weights: bytes | None = None) -> bytes:
    """The file with another manifest, and all hashes made right again."""
    length = HEADER.unpack_from(file)[3]
    manifest = msgspec.msgpack.decode(file[HEADER.size : HEADER.size + length])
    body = file[HEADER.size + length :]
    if weights is not None:
        body = weights + body[manifest["parts"][0]["length"] :]
        manifest["parts"][0] |= {"length": len(weights), "sha256": hashlib.sha256(weights).digest()}
    change(manifest)
    encoded = msgspec.msgpack.encode(manifest)
    return HEADER.pack(MAGIC, FORMAT, 0, len(encoded), hashlib.sha256(encoded).digest()) + encoded + body


def test_what_is_written_is_read(bundle_file: bytes, bundle: Bundle) -> None:
    assert pack(bundle.manifest, bundle.parts) == bundle_file
    assert bundle.hash == hashlib.sha256(bundle_file).hexdigest()
    assert [(t.name, t.shape) for t in bundle.schema.tensors] == [
        ("w1", (4, 8)),
        ("b1", (8,)),
        ("w2", (8, 3)),
        ("b2", (3,)),
    ]
    assert bundle.initial.shape == (67,)
    assert bundle.initial.dtype == np.float32
    assert (bundle.local_schema.size, dict(bundle.frozen)) == (0, {})


def test_initial_weights_cannot_be_written_to(bundle: Bundle) -> None:
    with pytest.raises(ValueError, match="read-only"):
        bundle.initial[0] = 1


def test_the_first_bytes_are_as_specified(bundle_file: bytes, bundle: Bundle) -> None:
    magic, version, flags, length, digest = HEADER.unpack_from(bundle_file)
    assert (magic, version, flags) == (b"LACONICB", 2, 0)
    encoded = bundle_file[48 : 48 + length]
    assert hashlib.sha256(encoded).digest() == digest
    manifest = msgspec.msgpack.decode(encoded)
    assert [p["name"] for p in manifest["parts"]] == ["weights", "step", "epoch", "evaluation", "inference"]
    assert manifest["inputs"] == [{"name": "x", "dtype": "float32", "shape": [4]}]
    assert manifest["outputs"] == [{"name": "y", "dtype": "float32", "shape": [3]}]
    target = {"name": "target", "dtype": "int64", "shape": [], "classes": 3}
    assert manifest["objectives"] == [
        {
            "loss": "cross_entropy",
            "output": "y",
            "weight": 1.0,
            "settings": {},
            "target": target,
            "metrics": ["loss", "accuracy"],
        }
    ]
    assert manifest["optimizer"] == {
        "name": "sgd",
        "layout": 1,
        "settings": {"weight_decay": 0.0},
        "slots": [],
        "counts": False,
        "seeded": False,
    }
    weights = bundle_file[48 + length : 48 + length + 4 * 67]
    assert np.array_equal(np.frombuffer(weights, "<f4"), bundle.initial)


def test_the_reader_of_the_specification_reads(bundle_file: bytes, bundle: Bundle) -> None:
    page = (Path(__file__).parents[2] / "docs" / "spec" / "bundle.md").read_text()
    code = re.search(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert code
    scope: dict[str, Any] = {}
    exec(code[1], scope)
    manifest, parts, weights = scope["read_bundle"](bundle_file)
    assert manifest["source_sha256"] == bundle.manifest.source_sha256
    assert parts == bundle.parts
    assert np.array_equal(bundle.schema.flatten(weights), bundle.initial)


def test_unknown_fields_are_ignored(bundle_file: bytes, bundle: Bundle) -> None:
    newer = forged(bundle_file, lambda m: m.update(colour="blue"))
    assert Bundle.read(newer).manifest == bundle.manifest


@settings(max_examples=examples(150), deadline=None)
@given(data=st.data())
def test_a_changed_byte_is_noticed(bundle_file: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(bundle_file) - 1) | st.integers(0, 600))
    mask = data.draw(st.integers(1, 255))
    changed = bytearray(bundle_file)
    changed[at] ^= mask
    with pytest.raises(WireError):
        Bundle.read(bytes(changed))


@settings(max_examples=examples(100), deadline=None)
@given(data=st.data())
def test_a_cut_or_lengthened_file_is_noticed(bundle_file: bytes, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(bundle_file) - 1) | st.integers(0, 100))
    with pytest.raises(Malformed):
        Bundle.read(bundle_file[:cut])
    with pytest.raises(Malformed):
        Bundle.read(bundle_file + data.draw(st.binary(min_size=1, max_size=64)))


@settings(max_examples=examples(150), deadline=None)
@given(st.binary(max_size=400))
def test_noise_is_refused(noise: bytes) -> None:
    for file in (noise, MAGIC + noise, HEADER.pack(MAGIC, FORMAT, 0, len(noise), _sha(noise)) + noise):
        with pytest.raises(WireError):
            Bundle.read(file)


def _sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


@settings(max_examples=examples(200), deadline=None)
@given(data=st.data())
def test_a_forged_manifest_is_refused_or_harmless(bundle_file: bytes, data: st.DataObject) -> None:
    values: st.SearchStrategy[Any] = st.sampled_from(
        [None, -1, 0, 2**31, 2**63, 1.5, "", "x", b"", [], {}, [[]], True, "target", "w1:new"]
    )

    def change(manifest: dict[str, Any]) -> None:
        place: Any = manifest
        while isinstance(place, dict | list) and place:
            key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
            if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
                place[key] = data.draw(values)
                return
            place = place[key]

    try:
        bundle = Bundle.read(forged(bundle_file, change))
    except WireError:
        return
    assert bundle.initial.size == bundle.schema.size


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda m: m["parameters"][0].update(shape=[4, 9]), Malformed),
        (lambda m: m["parameters"][0].update(shape=[2**31 - 1] * 16), Malformed),
        (lambda m: m["parameters"][0].update(name="b1"), Malformed),
        (lambda m: m["parameters"][0].update(name="lr"), Malformed),
        (lambda m: m["parameters"][0].update(role="owner"), Malformed),
        (lambda m: [p.update(role="frozen") for p in m["parameters"]], Malformed),
        (lambda m: m["parameters"].clear(), Malformed),
        (lambda m: m["parts"].pop(), Malformed),
        (lambda m: m["parts"].reverse(), Malformed),
        (lambda m: m["parts"][1].update(sha256=bytes(32)), ChecksumMismatch),
        (lambda m: m["parts"][1].update(length=2**40), Malformed),
        (lambda m: m["optimizer"].update(slots=["m", "m"]), Malformed),
        (lambda m: m["optimizer"].update(layout=0), Malformed),
        (lambda m: m["inputs"].clear(), Malformed),
        (lambda m: m["inputs"][0].update(name="seed"), Malformed),
        (lambda m: m["outputs"].clear(), Malformed),
        (lambda m: m["outputs"].append(m["outputs"][0]), Malformed),
        (lambda m: m["outputs"][0].update(name="sum/loss"), Malformed),
        (lambda m: m["objectives"].clear(), Malformed),
        (lambda m: m["objectives"].append(m["objectives"][0]), Malformed),
        (lambda m: m["objectives"][0].update(metrics=["loss", "loss"]), Malformed),
        (lambda m: m["objectives"][0]["target"].update(name="labels"), Malformed),
        (lambda m: m["objectives"][0]["target"].update(dtype="float32"), Malformed),
        (lambda m: [p.update(kind="statistic") for p in m["parameters"]], Malformed),
        (lambda m: m["parameters"][0].update(kind="mean"), Malformed),
    ],
)
def test_each_rule_of_the_manifest_is_kept(
    bundle_file: bytes, change: Callable[[dict[str, Any]], object], expected: type[WireError]
) -> None:
    with pytest.raises(expected):
        Bundle.read(forged(bundle_file, change))


def test_weights_that_are_not_finite_are_refused(bundle_file: bytes) -> None:
    weights = np.zeros(67, "<f4")
    weights[5] = np.nan
    with pytest.raises(NonFinite):
        Bundle.read(forged(bundle_file, lambda m: None, weights.tobytes()))


def test_limits_and_versions_are_kept(bundle_file: bytes) -> None:
    assert Bundle.read(bundle_file, limit_bytes=len(bundle_file))
    with pytest.raises(LimitExceeded):
        Bundle.read(bundle_file, limit_bytes=len(bundle_file) - 1)
    for version in (0, 1, 3):
        with pytest.raises(UnsupportedVersion):
            Bundle.read(bundle_file[:8] + version.to_bytes(2, "little") + bundle_file[10:])
    with pytest.raises(UnsupportedVersion):
        Bundle.read(bundle_file[:10] + b"\x01\x00" + bundle_file[12:])
    with pytest.raises(LimitExceeded):
        Bundle.read(HEADER.pack(MAGIC, FORMAT, 0, MANIFEST_LIMIT_BYTES + 1, bytes(32)) + bytes(100))


def test_a_writer_makes_nothing_that_a_reader_refuses(bundle: Bundle) -> None:
    with pytest.raises(Malformed):
        pack(bundle.manifest, {**bundle.parts, "weights": b"1234"})
    with pytest.raises(Malformed):
        pack(bundle.manifest, {"weights": bundle.parts["weights"]})


def test_reading_takes_memory_in_proportion_to_the_file(bundle_file: bytes) -> None:
    def inflate(manifest: dict[str, Any]) -> None:
        manifest["parameters"] += [
            {"name": f"p{i}", "shape": [1], "role": "frozen", "kind": "weight"} for i in range(60_000)
        ]

    many = forged(bundle_file, inflate)
    tracemalloc.start()
    try:
        with pytest.raises(WireError):
            Bundle.read(many)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 * len(many)
