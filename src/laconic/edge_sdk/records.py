"""What a device keeps over a restart, and how it is written down."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec
import numpy as np

from laconic.budget.costs import Learnt
from laconic.budget.spending import Spent
from laconic.compression import decode, no_residual
from laconic.compression.echo import NO_ECHO, Echo, EchoSettings
from laconic.compression.feedback import Residual
from laconic.compression.gate import GateState
from laconic.errors import ConfigError, WireError
from laconic.node import StoreView
from laconic.protocol.identity import short, weights_hash
from laconic.schema import Schema, Vector

T = TypeVar("T", bound=msgspec.Struct)

UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are not what was written."""
ENTRIES: Final = frozenset(("diary", "model", "residual", "echo", "private", "outbox", "checkpoint"))
"""The keys of a device's store, but for the pieces of a download."""


class EchoNote(msgspec.Struct, frozen=True):
    """Of which echo of the coordinator's the saved vector is a part, and where it stands."""

    source: str
    tick: int
    gain: float
    memory: float


class Diary(msgspec.Struct, frozen=True):
    """The small things: what was answered last, the gate's memory, totals of bytes and joules."""

    bundle: str = ""
    answered: str = ""
    """The task that was answered last."""
    skip: bytes = b""
    """The skip that answered it, to be said again if asked again; empty when the answer was an update."""
    gate: GateState = GateState()
    bytes_up: int = 0
    bytes_down: int = 0
    joules_compute: float = 0.0
    joules_radio: float = 0.0
    last_sent_bytes: int = 0
    """Size of the last update: what the next one will cost, as far as one can tell."""
    residual_version: int | None = None
    """Model version of the last change in the residual: how old it is."""
    metered_up: int = 0
    """Of `bytes_up`, what went over a metered network."""
    metered_down: int = 0
    since: float = 0.0
    """When the totals began, seconds since 1970."""
    spent: Spent = Spent()
    """In the present day and month of the device's time zone."""
    learnt: Learnt = Learnt()
    """What tasks have cost."""
    booked_bytes: int = 0
    """What was about to be spent when this was written: it counts as spent if the process ends before."""
    booked_joules: float = 0.0
    booked_metered: bool = False
    rest_until: float = 0.0
    """Until when no offer is listened to, seconds since 1970; 0 while the device listens."""
    echo: EchoNote | None = None
    """None without an echo."""
    written_at: float = 0.0
    """Seconds since 1970, by the clock of then."""
    lost_bytes: int = 0
    """What was booked in lives that were cut short: it counts as spent, and is in no total."""
    begun: str = ""
    """The task whose work was begun last, and has not ended."""
    begun_times: int = 0
    """In how many lives it was."""


class Booked(msgspec.Struct, frozen=True):
    """Bytes that count as spent if the process ends before it writes again."""

    up_to: int
    """Of the device's total of bytes, up plus down."""


class Outbox(msgspec.Struct, frozen=True):
    """The update that has left, or is about to: kept until the coordinator says what became of it."""

    update: str
    task: str
    fin: bytes
    frame: bytes
    round: int = 0
    """0: a release that did not write it down."""


@dataclass(frozen=True, slots=True)
class Held:
    """The model version on this device."""

    version: int
    digest: bytes
    """SHA-256 of the weights: `laconic.protocol.identity.weights_hash`."""
    weights: Vector

    @property
    def name(self) -> str:
        """By which messages name it."""
        return short(self.digest)


class _HeldHeader(msgspec.Struct, frozen=True):
    version: int
    weights: bytes


@dataclass(frozen=True, slots=True)
class Restored:
    """All of it, and what could not be used."""

    diary: Diary
    held: Held
    residual: Residual
    echo: Echo
    private: bytes
    outbox: Outbox | None
    booked: Booked
    damaged: tuple[str, ...]
    """Keys of what was left aside: what is under them is of no use."""
    foreign: bool
    """What the store holds is of another bundle, or of none that is known: clear it with `forget`."""


def save_held(held: Held) -> bytes:
    """A held model as bytes, with its own hash."""
    header = msgspec.msgpack.encode(_HeldHeader(held.version, held.digest))
    weights = np.ascontiguousarray(held.weights, "<f4")
    return b"".join((len(header).to_bytes(2, "little"), header, weights.data))


def save_vector(vector: Vector) -> bytes:
    """A vector as bytes."""
    return vector.astype("<f4", copy=False).tobytes()


def note_of(echo: Echo) -> EchoNote | None:
    """What of an echo goes into the diary."""
    if not echo.source:
        return None
    return EchoNote(echo.source, echo.tick, echo.settings.gain, echo.settings.memory)


def save_private(private: bytes) -> bytes:
    """What a learner keeps, with its hash: a learner cannot tell damage from something else's bytes."""
    return hashlib.sha256(private).digest() + private


def restore(store: StoreView, schema: Schema, *, bundle: str, initial: Vector) -> Restored:
    """What earlier lives saved. What is damaged, or of another bundle, is left aside and named.

    Nothing of this is worth stopping for: a model is fetched again, a lost residual is a lost residual. Where
    the update that has left is still there, the residual begins with it, since it is taken off when it is
    committed. Where it is lost, so is the residual: the coordinator may have what it holds by now.
    """
    damaged: list[str] = []

    diary = _struct(store.get("diary"), Diary, damaged, "diary") or Diary()
    booked = _struct(store.get("booked"), Booked, damaged, "booked") or Booked(0)
    fresh = Held(0, weights_hash(initial, schema), initial)
    empty = Residual(no_residual(schema.size))
    if diary.bundle != bundle:
        if diary.bundle:
            damaged.append("model, residual and outbox of another bundle")
        kept = msgspec.structs.replace(
            diary, bundle=bundle, answered="", skip=b"", gate=GateState(), residual_version=None, echo=None
        )
        return Restored(kept, fresh, empty, NO_ECHO, b"", None, booked, tuple(damaged), True)
    held = _held(store.get("model"), schema, damaged) or fresh
    private = _private(store.get("private"), damaged)
    outbox = _outbox(store.get("outbox"), schema, damaged)
    if "outbox" in damaged:
        damaged += [key for key in ("residual", "echo") if store.get(key) is not None]
        return Restored(diary, held, empty, NO_ECHO, private, None, booked, tuple(damaged), False)
    values = _vector(store.get("residual"), schema, damaged, "residual")
    if values is None and outbox is not None:
        values = decode(outbox.frame, schema, limit_bytes=4 * schema.size)
    residual = empty if values is None else Residual(values, diary.residual_version)
    echo = _echo(store.get("echo"), diary.echo, schema, damaged)
    return Restored(diary, held, residual, echo, private, outbox, booked, tuple(damaged), False)


def _struct(raw: bytes | None, kind: type[T], damaged: list[str], what: str) -> T | None:
    if raw is None:
        return None
    try:
        return msgspec.msgpack.decode(raw, type=kind)
    except UNREADABLE:
        damaged.append(what)
        return None


def _outbox(raw: bytes | None, schema: Schema, damaged: list[str]) -> Outbox | None:
    outbox = _struct(raw, Outbox, damaged, "outbox")
    if outbox is None:
        return None
    try:
        # It is decoded again when it is committed, and must not fail then.
        decode(outbox.frame, schema, limit_bytes=4 * schema.size)
    except WireError:
        damaged.append("outbox")
        return None
    return outbox


def _held(raw: bytes | None, schema: Schema, damaged: list[str]) -> Held | None:
    if raw is None:
        return None
    end = 2 + int.from_bytes(raw[:2], "little")
    header = _struct(raw[2:end], _HeldHeader, damaged, "model")
    if header is None:
        return None
    if len(raw) - end == 4 * schema.size:
        weights = np.frombuffer(raw, "<f4", offset=end).astype(np.float32)
        if weights_hash(weights, schema) == header.weights:
            return Held(header.version, header.weights, weights)
    damaged.append("model")
    return None


def _private(raw: bytes | None, damaged: list[str]) -> bytes:
    if raw is None:
        return b""
    if hashlib.sha256(raw[32:]).digest() == raw[:32]:
        return raw[32:]
    damaged.append("private")
    return b""


def _echo(raw: bytes | None, note: EchoNote | None, schema: Schema, damaged: list[str]) -> Echo:
    """A lost echo is unknown, not silent: it counts on none, and begins anew where the next offer stands."""
    values = _vector(raw, schema, damaged, "echo")
    if note is None or (raw is not None and values is None):
        return NO_ECHO
    try:
        return Echo(values, note.tick, note.source, EchoSettings(note.gain, note.memory))
    except ConfigError:
        damaged.append("echo")
        return NO_ECHO


def _vector(raw: bytes | None, schema: Schema, damaged: list[str], what: str) -> Vector | None:
    if raw is None:
        return None
    if len(raw) == 4 * schema.size:
        vector = np.frombuffer(raw, "<f4").astype(np.float32)
        if np.isfinite(vector).all():
            return vector
    damaged.append(what)
    return None
