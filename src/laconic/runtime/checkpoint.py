"""A training run that can go on later, in another process too: what it holds, and its form on disk."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from laconic.errors import CheckpointMismatch, ChecksumMismatch, LimitExceeded, Malformed, UnsupportedVersion
from laconic.runtime.buffers import Form
from laconic.runtime.bundle import Bundle
from laconic.runtime.finite import check_finite
from laconic.schema import Schema, TensorSpec, Vector

MAGIC = b"LACONICK"
FORMAT = 1
HEAD_LIMIT_BYTES = 2**16
_HEADER = struct.Struct("<8sHHI16s")
"""Magic, format, flags, length of the head, BLAKE2b-128 of all that follows: the head (MessagePack), the
losses and the state (float32, little endian)."""

Digest = Annotated[bytes, Meta(min_length=16, max_length=16)]


class Run(Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """All that a run's result depends on, apart from how far it is: two runs that agree in it are one.

    `start` is a digest of the vectors that it begins with, `runtime` names the onnxruntime that computes,
    `seed` is hexadecimal. `data_tag` is the caller's word for the content of the data.
    """

    bundle: Annotated[str, Meta(max_length=64)]
    data_tag: Annotated[bytes, Meta(max_length=64)]
    data_samples: Annotated[int, Meta(ge=1)]
    start: Digest
    epochs: Annotated[int, Meta(ge=1)]
    batch_size: Annotated[int, Meta(ge=1)]
    learning_rate: float
    proximal_mu: float
    seed: str
    form: Form
    threads: Annotated[int, Meta(ge=1)]
    runtime: Annotated[str, Meta(max_length=64)]

    @property
    def epoch_steps(self) -> int:
        """Steps of one epoch."""
        return -(-self.data_samples // self.batch_size)

    def samples_after(self, steps: int) -> int:
        """How many samples the first `steps` steps see, with repeats."""
        epochs, rest = divmod(steps, self.epoch_steps)
        return epochs * self.data_samples + rest * self.batch_size


class _Head(Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    run: Run
    steps: Annotated[int, Meta(ge=0, le=2**40)]
    values: Annotated[int, Meta(ge=0, le=2**40)]


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """The state of a run after a number of steps; the data are not in it.

    `state` is a float32 vector in `state_schema(bundle)`: the weights, local ones too, and the optimizer's
    slots. `losses` holds each step's mean loss so far (float32). As bytes it is as long as both, and less
    than a kilobyte more.
    """

    run: Run
    state: Vector
    losses: NDArray[np.float32]

    @property
    def steps(self) -> int:
        """How many steps have been taken."""
        return len(self.losses)

    def encode(self) -> bytes:
        """The checkpoint as bytes."""
        head = msgspec.msgpack.encode(_Head(self.run, self.steps, len(self.state)))
        arrays = [np.ascontiguousarray(a, "<f4").data.cast("B") for a in (self.losses, self.state) if len(a)]
        header = _HEADER.pack(MAGIC, FORMAT, 0, len(head), _digest(head, *arrays))
        return b"".join([header, head, *arrays])

    @classmethod
    def decode(cls, data: bytes) -> Checkpoint:
        """Read what `encode` wrote. The arrays are views of `data`; nothing of its size is allocated.

        Whether it fits a run is seen when that goes on (`Trainer.start`). Raises `Malformed`,
        `LimitExceeded`, `ChecksumMismatch` or `UnsupportedVersion` for other bytes.
        """
        head, start = _read_head(data)
        middle = start + 4 * head.steps
        losses = np.frombuffer(data, "<f4", head.steps, start)
        state = np.frombuffer(data, "<f4", head.values, middle)
        return cls(head.run, state.astype(np.float32, copy=False), losses.astype(np.float32, copy=False))

    def check(self, run: Run, bundle: Bundle) -> None:
        """Raise `CheckpointMismatch` unless this is a checkpoint of `run`, `Malformed` or `NonFinite` unless
        it can be one."""
        for field in msgspec.structs.fields(Run):
            found, due = getattr(self.run, field.name), getattr(run, field.name)
            if found != due:
                thing = f"{field.name.replace('_', ' ')} of the checkpoint's run"
                raise CheckpointMismatch(thing, value=found, limit=due, remedy="begin the run anew")
        size, steps = state_schema(bundle).size, run.epochs * run.epoch_steps
        if self.state.shape != (size,):
            raise Malformed("values in the checkpoint", value=self.state.shape, limit=(size,))
        if self.steps > steps:
            raise Malformed("steps in the checkpoint", value=self.steps, limit=steps)
        check_finite("state in the checkpoint", self.state, "begin the run anew")


def state_schema(bundle: Bundle) -> Schema:
    """What changes from step to step, in the order in which a checkpoint has it, by the graphs' names: the
    weights, local ones too, then each slot of the optimizer. Control variates do not change in a run."""
    moving = [t for t in (*bundle.schema.tensors, *bundle.local_schema.tensors) if not t.control]
    slots = [
        TensorSpec(f"opt/{slot}/{t.name}", t.shape)
        for slot in bundle.manifest.optimizer.slots
        for t in bundle.weight_schema.tensors
    ]
    return Schema((*moving, *slots))


def digest_of(vectors: Iterable[Vector], step: int) -> bytes:
    """16 bytes that stand for the vectors that a run begins with, and the optimizer's step."""
    parts: list[bytes | memoryview] = [step.to_bytes(8, "little")]
    for vector in vectors:
        parts.append(len(vector).to_bytes(8, "little"))
        if len(vector):
            parts.append(np.ascontiguousarray(vector, "<f4").data.cast("B"))
    return _digest(*parts)


def _digest(*parts: bytes | memoryview) -> bytes:
    # Without instructions for SHA-256, as on most small boards, BLAKE2b takes half the time.
    hashed = hashlib.blake2b(digest_size=16)
    for part in parts:
        hashed.update(part)
    return hashed.digest()


def _read_head(data: bytes) -> tuple[_Head, int]:
    """The head, and where the losses begin, once length and checksum are right."""
    if len(data) < _HEADER.size:
        raise Malformed(
            "length of the checkpoint in bytes", value=len(data), limit=f"at least {_HEADER.size}"
        )
    magic, version, flags, length, digest = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise Malformed("first bytes of the checkpoint", value=magic, limit=MAGIC)
    if (version, flags) != (FORMAT, 0):
        raise UnsupportedVersion(
            "format and flags of the checkpoint",
            value=(version, flags),
            limit=(FORMAT, 0),
            remedy="begin the run anew",
        )
    if length > HEAD_LIMIT_BYTES:
        raise LimitExceeded("length of the checkpoint's head in bytes", value=length, limit=HEAD_LIMIT_BYTES)
    if _digest(memoryview(data)[_HEADER.size :]) != digest:
        raise ChecksumMismatch("the checkpoint", remedy="begin the run anew")
    start = _HEADER.size + length
    try:
        head = msgspec.msgpack.decode(memoryview(data)[_HEADER.size : start], type=_Head)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise Malformed("head of the checkpoint", value=str(e)) from e
    due = start + 4 * (head.steps + head.values)
    if len(data) != due:
        raise Malformed("length of the checkpoint in bytes", value=len(data), limit=due)
    return head, start
