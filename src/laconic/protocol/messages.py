"""Control messages: msgspec structs as MessagePack arrays.

Fields are only ever appended, each with a default, so that a reader skips what a newer writer added and
fills in what an older one left out. Every text and list is bounded when it is decoded.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Final, TypeAlias, TypeVar

import msgspec
from msgspec import Meta

from laconic.errors import LimitExceeded, Malformed

PROTOCOL: Final = 1
MESSAGE_LIMIT_BYTES: Final = 16 * 1024

Text: TypeAlias = Annotated[str, Meta(max_length=128)]
ShortText: TypeAlias = Annotated[str, Meta(max_length=64)]
# \Z, not $: a hash goes into topics, and $ would let a newline after it pass.
Hash: TypeAlias = Annotated[str, Meta(pattern=r"^[0-9a-f]{16}\Z")]
OptionalHash: TypeAlias = Annotated[str, Meta(pattern=r"^([0-9a-f]{16})?\Z")]
Sha256: TypeAlias = Annotated[bytes, Meta(min_length=32, max_length=32)]
Count: TypeAlias = Annotated[int, Meta(ge=0, le=2**48)]
Minute: TypeAlias = Annotated[int, Meta(ge=0, le=1439)]
Fraction: TypeAlias = Annotated[float, Meta(ge=0.0, le=1.0)]
# A signalling value such as NaN or 1e300 in a report must not reach a sum: the bounds refuse both.
Amount: TypeAlias = Annotated[float, Meta(ge=0.0, le=1e15)]
Real: TypeAlias = Annotated[float, Meta(ge=-1e15, le=1e15)]


class Message(msgspec.Struct, frozen=True, array_like=True):
    """Base of all control messages."""


class State(Message, frozen=True):
    """A device is here (retained), or has gone (its last will)."""

    online: bool
    cohort: Text = "default"
    protocol: Count = PROTOCOL
    samples: Count = 0
    charge: Annotated[float, Meta(ge=0.0, le=1.0)] | None = None
    """State of charge; None where there is no battery."""
    charging: bool = False
    metered: bool = False
    software: Text = ""
    zone: ShortText = ""
    """The device's time zone: a name of the tz database or an offset such as +05:30; UTC if it is neither."""


class Training(Message, frozen=True):
    """How a device trains."""

    epochs: Annotated[int, Meta(ge=1, le=10_000)] = 1
    batch_size: Annotated[int, Meta(ge=1, le=65_536)] = 16
    learning_rate: Annotated[float, Meta(gt=0.0, le=1e3)] = 0.1
    proximal_mu: Annotated[float, Meta(ge=0.0, le=1e6)] = 0.0
    """Pull towards the model that was sent (FedProx); the bundle must have the term."""
    keep_optimizer: bool = False
    """Whether the optimizer goes on with the state of the round before, or begins at zero."""


class Gate(Message, frozen=True):
    """When a device speaks: see `laconic.compression.gate`."""

    mode: Text = "running"
    threshold: Amount = 0.0
    """0 leaves the gate open."""
    force_after: Count = 4
    """Silent rounds after which the device sends whatever it has; 0 for always."""
    target_rate: Fraction = 0.0
    """Share of rounds to speak in, for mode "steered"; 0 for no target."""
    bytes_per_day: Amount = 0.0
    """Bytes of updates a day, for mode "steered"; 0 for no target."""
    loss_factor: Amount = 0.0
    """How far the loss may be from its level before the device speaks at once; 0 for no limit."""


class Feedback(Message, frozen=True):
    """What a device keeps of an old residual: see `laconic.compression.feedback`."""

    cap: Amount = 30.0
    """Longest residual, in lengths of a usual change."""
    decay: Fraction = 0.97
    """Factor on the residual for each model version that the device missed."""
    stale_after: Count = 50
    """Missed versions after which the residual is dropped."""


class Echo(Message, frozen=True):
    """What the coordinator adds on devices' behalf: see `laconic.compression.echo`."""

    gain: Fraction
    """Share of a frame that is repeated in the step after it."""
    memory: Annotated[float, Meta(ge=0.0, le=0.9999)]
    """What is left of an echo from one step to the next."""
    source: Hash
    """Which echo: another one has begun anew."""
    tick: Count
    """How many steps it has made before that of this round."""


class Eligibility(Message, frozen=True):
    """What a device must have to work on a task; it checks this itself before it spends anything."""

    min_charge: Fraction = 0.0
    only_charging: bool = False
    only_unmetered: bool = False


class Allowance(Message, frozen=True):
    """What a device may spend, in the days and months of its own time zone; None for no limit."""

    devices: Text = "*"
    """Pattern of the names of those it is for: `*`, `?` and `[...]` as in shells."""
    bytes_per_day: Count | None = None
    """Bytes up plus down, here and below."""
    bytes_per_month: Count | None = None
    metered_bytes_per_day: Count | None = None
    metered_bytes_per_month: Count | None = None
    unmetered_bytes_per_day: Count | None = None
    unmetered_bytes_per_month: Count | None = None
    joules_per_day: Amount | None = None
    max_bytes: Count | None = None
    """Over the device's life."""
    max_joules: Amount | None = None
    """Over the device's life."""
    min_charge: Fraction = 0.0
    only_charging: bool = False
    only_unmetered: bool = False
    quiet_from: Minute = 0
    """Minute of the day from which the device is not to work."""
    quiet_until: Minute = 0
    """Minute of the day from which it may again; none is quiet where both are the same."""


class Offer(Message, frozen=True):
    """Work on offer: train this model, answer with an update or a skip."""

    task: Hash
    round: Count
    model: Hash
    version: Count
    bundle: Hash
    share: Fraction = 1.0
    """The part of the cohort that is asked; each device decides by `laconic.protocol.identity.selected`."""
    deadline_s: Amount = 0.0
    training: Training = Training()
    codec: Annotated[bytes, Meta(max_length=1024)] = b""
    """The encoder's settings, as MessagePack."""
    gate: Gate = Gate()
    eligibility: Eligibility = Eligibility()
    work: bool = True
    """False: there is nothing to do but to fetch the model, which is the last for now."""
    feedback: Feedback = Feedback()
    max_staleness: Count = 0
    """An update of a task that is over is taken if its base is at most so many versions behind; 0: never."""
    allowances: Annotated[list[Allowance], Meta(max_length=64)] = []
    """What devices may spend: for each the first that is for it; no limit for one that none is for."""
    echo: Echo | None = None
    """What is added on devices' behalf in this round and after it; None: nothing."""
    evaluate: bool = False
    """Measure the model on the device's data before training, and say what came of it."""
    train: bool = True
    """False: answer with a skip once the model is measured."""


class Fin(Message, frozen=True):
    """The promise of an update: all of it, if that fits a message, or the word that its chunks are sent."""

    task: Hash
    base: Hash
    size: Count
    chunks: Annotated[int, Meta(ge=1, le=1_000_000)]
    sha256: Sha256
    weight: Annotated[int, Meta(ge=1, le=2**24)]
    """Training samples behind the update: its weight in the average."""
    norm: Amount = 0.0
    threshold: Amount = 0.0
    loss_before: Real | None = None
    loss_after: Real | None = None
    seconds: Amount = 0.0
    rate: Fraction = 0.0
    """Share of the last rounds, this one included, in which the gate was open."""
    target: Fraction = 0.0
    """What a steered gate aims at; 0 for every other."""
    accuracy_before: Fraction | None = None
    """Of the base on the device's data, where the offer asks for it and the bundle has it."""
    frame: Annotated[bytes, Meta(max_length=MESSAGE_LIMIT_BYTES)] = b""
    """The update itself; empty where it comes in chunks, or has been sent before."""


class Skip(Message, frozen=True):
    """Nothing worth sending: `why` is gate, battery, charging, metered, quiet, busy, hot, throttled, budget,
    data, model, failed, memory or measured."""

    task: Hash
    base: Hash
    why: Text
    weight: Annotated[int, Meta(ge=0, le=2**24)] = 0
    """Training samples behind the silence; 0 from a device that has not trained."""
    norm: Amount = 0.0
    threshold: Amount = 0.0
    seconds: Amount = 0.0
    rate: Fraction = 0.0
    target: Fraction = 0.0
    rest_s: Amount = 0.0
    """Seconds for which the device will hear no offer: its allowance is spent, or its hours are quiet."""
    loss_before: Real | None = None
    """As in `Fin`; None from a device that has neither trained nor measured."""
    accuracy_before: Fraction | None = None


class Telemetry(Message, frozen=True):
    """Totals over the device's life: idempotent, so that losing one loses nothing."""

    charge: Annotated[float, Meta(ge=0.0, le=1.0)] | None
    charging: bool
    metered: bool
    bytes_up: Count
    bytes_down: Count
    joules_compute: Amount
    joules_radio: Amount
    measured: bool = False
    """False where the joules are modelled from the device's profile."""
    metered_up: Count = 0
    """Of `bytes_up`, what went over a metered network."""
    metered_down: Count = 0
    since: Amount = 0.0
    """When the totals began, seconds since 1970: another moment says that the device has lost its disk."""


class Fate(IntEnum):
    """What became of an update."""

    COMMITTED = 0
    MISSING = 1
    REJECTED = 2


class Folded(Message, frozen=True):
    """Where and how a committed update is folded, for the device's account of its echo."""

    source: Hash
    """Which echo repeats it."""
    tick: Count
    """Of the step that it is folded into: it sounds from the next one on."""
    discount: Fraction = 1.0
    """Factor on its values, for its staleness."""


class Ack(Message, frozen=True):
    """The coordinator's answer to a `Fin`."""

    update: Hash
    fate: Fate
    missing: Annotated[list[Annotated[int, Meta(ge=0, le=1_000_000)]], Meta(max_length=1024)] = []
    why: Annotated[str, Meta(max_length=512)] = ""
    folded: Folded | None = None
    """Of a committed update, where there is an echo."""


class Blob(Message, frozen=True):
    """Bytes that lie in chunks at `m/{address}/{i}`."""

    size: Count
    chunk_bytes: Annotated[int, Meta(ge=1, le=65_536)]
    sha256: Sha256

    @property
    def address(self) -> str:
        """The first 8 bytes of the hash in hexadecimal: where the chunks lie."""
        return self.sha256[:8].hex()

    @property
    def chunks(self) -> int:
        """How many chunks there are (an empty blob has one empty chunk)."""
        return max(1, -(-self.size // self.chunk_bytes))


class Manifest(Message, frozen=True):
    """A model version: where it comes from and where its bytes lie."""

    version: Count
    weights: Sha256
    """Identity of the weights: see `laconic.protocol.identity.weights_hash`."""
    bundle: Hash
    parent: OptionalHash
    delta: Blob | None
    """An update frame that turns the parent into this version."""
    full: Blob | None
    """The whole model as an update frame on zeros, for one version in every few."""
    oldest: Count
    """The oldest version whose manifest is still there: no use to look for deltas before it."""
    algorithm: Text = ""
    signature: Annotated[bytes, Meta(max_length=128)] = b""


_MOST: Final = 1e15
_MOST_WEIGHT: Final = 2**24


def amount(value: float) -> float:
    """`value` as an `Amount`: what lies beyond the bounds, or is no number, becomes the nearest bound."""
    return min(max(value, 0.0), _MOST) if value == value else _MOST


def real(value: float | None) -> float | None:
    """`value` as a `Real`; None for what a report cannot carry."""
    return value if value is not None and abs(value) <= _MOST else None


def measured(loss: float) -> float:
    """A loss as a `Real`: what lies beyond the bounds, or is no number, becomes the worst there is."""
    return loss if abs(loss) <= _MOST else -_MOST if loss < 0 else _MOST


def report_weight(samples: int) -> int:
    """`samples` as the weight of a report."""
    return min(samples, _MOST_WEIGHT)


M = TypeVar("M", bound=Message)
_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODERS: Final[dict[type[Message], msgspec.msgpack.Decoder[Message]]] = {
    kind: msgspec.msgpack.Decoder(kind) for kind in (State, Offer, Fin, Skip, Telemetry, Ack, Manifest)
}


def encode(message: Message) -> bytes:
    """A message as bytes."""
    return _ENCODER.encode(message)


def decode(kind: type[M], payload: bytes) -> M:
    """Bytes from outside as a message of the kind that its topic promises.

    Raises `LimitExceeded` above `MESSAGE_LIMIT_BYTES`, `Malformed` for anything that is not such a message.
    """
    if len(payload) > MESSAGE_LIMIT_BYTES:
        raise LimitExceeded(
            f"size of a {kind.__name__} message in bytes", value=len(payload), limit=MESSAGE_LIMIT_BYTES
        )
    try:
        message = _DECODERS[kind].decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise Malformed(f"{kind.__name__} message ({e})", value=payload[:32]) from e
    assert isinstance(message, kind)
    return message
