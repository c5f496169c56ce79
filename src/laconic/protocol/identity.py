"""Identities that both ends derive for themselves: weights, tasks, updates, and who is selected."""

from __future__ import annotations

import hashlib
import hmac
import weakref
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec
import numpy as np

from laconic.errors import ChecksumMismatch
from laconic.protocol.messages import Manifest, encode
from laconic.schema import Schema, Vector

SIGNATURE_ALGORITHM = "hmac-sha256"
_DRAWS: Final = 2**48

_hashed: Final[dict[int, tuple[weakref.ref[Vector], Schema, bytes]]] = {}
"""Hashes of arrays that cannot change, by their ids, as long as they live: a thousand virtual devices begin
with one array."""


def weights_hash(weights: Vector, schema: Schema) -> bytes:
    """SHA-256 (32 bytes) of a schema's digest and its weights as little-endian float32.

    Of a read-only array it is computed once: who made it so does not write to it any more.
    """
    found = _hashed.get(id(weights))
    if found is not None and found[0]() is weights and found[1] == schema and not weights.flags.writeable:
        return found[2]
    h = hashlib.sha256(schema.digest)
    h.update(np.ascontiguousarray(weights, "<f4").data)
    digest = h.digest()
    if _is_constant(weights):
        key = id(weights)
        _hashed[key] = weakref.ref(weights, lambda gone: _forget(key, gone)), schema, digest
    return digest


def _is_constant(weights: Vector) -> bool:
    """Whether nobody can write to an array, through another one that shares its memory either."""
    return not weights.flags.writeable and (weights.base is None or isinstance(weights.base, bytes))


def _forget(key: int, gone: weakref.ref[Vector]) -> None:
    found = _hashed.get(key)
    # Another array may have the id by now.
    if found is not None and found[0] is gone:
        del _hashed[key]


def short(sha256: bytes) -> str:
    """The 16 hexadecimal digits by which a hash is named in topics and messages."""
    return sha256[:8].hex()


def task_id(fleet: str, round_number: int, base: str) -> str:
    """Identity of a round's task."""
    return short(_digest(fleet, str(round_number), base))


def update_id(device: str, task: str, base: str, frame_sha256: bytes) -> str:
    """Identity of an update: sent twice it is counted once, and another frame is another update."""
    return short(_digest(device, task, base, frame_sha256.hex()))


def selected(device: str, task: str, share: float) -> bool:
    """Whether `device` is among the `share` of its cohort that `task` asks.

    A hash, so that devices select themselves from one retained message and the coordinator knows who did.
    """
    return draws((device,), task)[device] < share * _DRAWS


def all_selected(devices: Iterable[str], drawn: Mapping[str, int], share: float) -> list[str]:
    """Those of `devices` that are `selected` with the task of their `draws`."""
    bound = share * _DRAWS
    return [name for name in devices if drawn[name] < bound]


def share_for(drawn: Mapping[str, int], count: int) -> float:
    """The share with which the task of these `draws` asks exactly `count` of their devices; 1 if there are no
    more than that."""
    ordered = sorted(drawn.values())
    return (ordered[count - 1] + 1) / _DRAWS if 0 < count < len(ordered) else 1.0


def draws(devices: Iterable[str], task: str) -> dict[str, int]:
    """What each draws of 2^48 numbers, the first 48 bits of a hash with `task`: whose is lowest is selected
    first."""
    digest, number, rest = hashlib.sha256, int.from_bytes, _framed(task)
    # A coordinator draws for its whole fleet in every round.
    return {device: number(digest(_framed(device) + rest).digest()[:6], "big") for device in devices}


def _digest(*parts: str) -> bytes:
    return hashlib.sha256(b"".join(map(_framed, parts))).digest()


def _framed(part: str) -> bytes:
    raw = part.encode()
    return len(raw).to_bytes(4, "little") + raw


def sign(manifest: Manifest, key: bytes | None) -> Manifest:
    """The manifest with its signature under the fleet's key; without a key, as it is."""
    if key is None:
        return manifest
    unsigned = msgspec.structs.replace(manifest, algorithm=SIGNATURE_ALGORITHM, signature=b"")
    return msgspec.structs.replace(unsigned, signature=hmac.digest(key, encode(unsigned), "sha256"))


def verify(manifest: Manifest, key: bytes | None) -> None:
    """Accept a manifest only if the holder of `key` signed it; without a key, accept any.

    Raises `ChecksumMismatch` for a missing, foreign or wrong signature.
    """
    if key is None:
        return
    expected = sign(manifest, key)
    if manifest.algorithm != SIGNATURE_ALGORITHM or not hmac.compare_digest(
        manifest.signature, expected.signature
    ):
        raise ChecksumMismatch(
            f"signature of the manifest of version {manifest.version}",
            value=manifest.algorithm or "none",
            limit=SIGNATURE_ALGORITHM,
            remedy="give coordinator and devices the same fleet_key_file",
        )
