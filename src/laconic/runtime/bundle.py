"""The training bundle as a file: how it is written, and read without trust (docs/spec/bundle.md).

Parts are stored, not compressed: the same model gives the same bytes whatever compression library is
installed, and no input can grow while it is read.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import msgspec
import numpy as np

from laconic.errors import ChecksumMismatch, LimitExceeded, Malformed, NonFinite, UnsupportedVersion
from laconic.runtime.manifest import PARTS, Manifest, Part, check
from laconic.schema import Schema, Vector

MAGIC = b"LACONICB"
FORMAT = 2
DEFAULT_LIMIT_BYTES = 256 * 2**20
MANIFEST_LIMIT_BYTES = 4 * 2**20
_HEADER = struct.Struct("<8sHHI32s")


@dataclass(frozen=True)
class Bundle:
    """A training bundle in memory: everything a device needs to train, evaluate and predict.

    `hash` is the SHA-256 of the whole file, in hexadecimal: the bundle's identity.
    """

    manifest: Manifest
    parts: Mapping[str, bytes]
    hash: str

    @classmethod
    def read(cls, data: bytes, *, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> Bundle:
        """Decode a bundle; memory stays below twice the input plus the manifest's structs.

        Raises `LimitExceeded` (file or manifest too long), `Malformed`, `ChecksumMismatch`,
        `UnsupportedVersion`, `NonFinite` (a weight that is not a number).
        """
        if len(data) > limit_bytes:
            raise LimitExceeded("length of the bundle in bytes", value=len(data), limit=limit_bytes)
        manifest, start = _read_manifest(data)
        due = start + sum(p.length for p in manifest.parts)
        if len(data) != due:
            raise Malformed(
                "length of the bundle in bytes", value=len(data), limit=due, remedy="fetch the file again"
            )
        parts: dict[str, bytes] = {}
        for part in manifest.parts:
            body = bytes(data[start : start + part.length])
            if hashlib.sha256(body).digest() != part.sha256:
                raise ChecksumMismatch(f"part {part.name!r} of the bundle", remedy="fetch the file again")
            parts[part.name] = body
            start += part.length
        bundle = cls(manifest, parts, hashlib.sha256(data).hexdigest())
        if not np.isfinite(bundle.weights).all():
            raise NonFinite("initial weights of the bundle", remedy="prepare the bundle from a sound model")
        return bundle

    @cached_property
    def weights(self) -> Vector:
        """Initial values of every parameter, whatever its role, in canonical order; read-only."""
        return np.frombuffer(self.parts["weights"], "<f4").astype(np.float32, copy=False)

    @cached_property
    def schema(self) -> Schema:
        """The parameters that travel (role trainable), in canonical order."""
        return self.manifest.schema("trainable")

    @cached_property
    def local_schema(self) -> Schema:
        """The parameters that are trained but stay on the device (role local), in canonical order."""
        return self.manifest.schema("local")

    @cached_property
    def weight_schema(self) -> Schema:
        """The weights that gradients move, whether they travel or not: the layout of an optimizer's slots."""
        return Schema(tuple(p.spec for p in self.manifest.weights))

    @cached_property
    def control_schema(self) -> Schema:
        """The control variates, in canonical order: the end of `schema`; empty without SCAFFOLD."""
        return Schema(tuple(t for t in self.schema.tensors if t.control))

    @cached_property
    def initial(self) -> Vector:
        """Initial values of the travelling parameters, shape `(schema.size,)`; read-only."""
        return self._initial(self.schema)

    @cached_property
    def initial_local(self) -> Vector:
        """Initial values of the local parameters, shape `(local_schema.size,)`; read-only."""
        return self._initial(self.local_schema)

    @cached_property
    def frozen(self) -> Mapping[str, Vector]:
        """The parameters that never change, by name, in their shapes; read-only."""
        schema = self.manifest.schema("frozen")
        return schema.unflatten(self._initial(schema))

    def _initial(self, wanted: Schema) -> Vector:
        if wanted.size == self.weights.size:
            return self.weights
        everything = self.manifest.schema("trainable", "local", "frozen").unflatten(self.weights)
        vector = wanted.flatten(everything)
        vector.flags.writeable = False
        return vector


def pack(manifest: Manifest, parts: Mapping[str, bytes]) -> bytes:
    """Write a bundle; `manifest.parts` is filled in from `parts`, which must hold exactly `PARTS`.

    The same arguments always give the same bytes. Raises `Malformed` for a manifest that no reader accepts.
    """
    if set(parts) != set(PARTS):
        raise Malformed("parts of the bundle", value=sorted(parts), limit=sorted(PARTS))
    described = tuple(Part(n, len(parts[n]), hashlib.sha256(parts[n]).digest()) for n in PARTS)
    manifest = msgspec.structs.replace(manifest, parts=described)
    check(manifest)
    encoded = msgspec.msgpack.encode(manifest)
    if len(encoded) > MANIFEST_LIMIT_BYTES:
        raise LimitExceeded("length of the manifest in bytes", value=len(encoded), limit=MANIFEST_LIMIT_BYTES)
    header = _HEADER.pack(MAGIC, FORMAT, 0, len(encoded), hashlib.sha256(encoded).digest())
    return b"".join([header, encoded, *(parts[n] for n in PARTS)])


def _read_manifest(data: bytes) -> tuple[Manifest, int]:
    """The manifest, and where the parts begin."""
    if len(data) < _HEADER.size:
        raise Malformed("length of the bundle in bytes", value=len(data), limit=f"at least {_HEADER.size}")
    magic, version, flags, length, digest = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise Malformed("first bytes of the bundle", value=magic, limit=MAGIC, remedy="is this a bundle?")
    if version != FORMAT:
        raise UnsupportedVersion(
            "format of the bundle",
            value=version,
            limit=FORMAT,
            remedy="prepare the model again, or update laconic",
        )
    if flags:
        raise UnsupportedVersion("flags of the bundle", value=flags, limit=0, remedy="update laconic")
    if length > MANIFEST_LIMIT_BYTES:
        raise LimitExceeded("length of the manifest in bytes", value=length, limit=MANIFEST_LIMIT_BYTES)
    end = _HEADER.size + length
    if end > len(data):
        raise Malformed("length of the manifest in bytes", value=length, limit=len(data) - _HEADER.size)
    encoded = data[_HEADER.size : end]
    if hashlib.sha256(encoded).digest() != digest:
        raise ChecksumMismatch("manifest of the bundle", remedy="fetch the file again")
    try:
        manifest = msgspec.msgpack.decode(encoded, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise Malformed("manifest of the bundle", value=str(e)) from e
    check(manifest)
    return manifest, end
