"""What a task will cost a device: bytes each way and joules, from what is known of its earlier tasks.

Predictions are for keeping limits, so they are made to be too high rather than too low: estimates follow the
largest values seen and fall slowly, and a device of which nothing is known gets a prior that is dear.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from laconic.budget.spending import Totals

PACKET_BYTES: Final = 64
"""Of a message besides topic and payload, both ways. MQTT 3.1.1: fixed header 2 to 5, length of the topic 2,
packet identifier 2 (sections 2.2, 2.3.1, 3.3), PUBACK 4 (3.4); under TLS 1.3 a record adds 22 to each of the
two packets (RFC 8446, section 5.2: header 5, content type 1, tag 16)."""
TOPIC_BYTES: Final = 128
"""No topic is longer (`laconic.protocol.topics.TOPIC_LIMIT_BYTES`)."""
FIN_BYTES: Final = 256
"""A `Fin`: 14 fields, of which five of 18 to 34 bytes and nine of at most 9 (docs/spec/protocol.md), and the
head of the frame, if that is in it."""
ACK_BYTES: Final = 64
SKIP_BYTES: Final = 192
TELEMETRY_BYTES: Final = 128
MANIFEST_BYTES: Final = 640
"""A `Manifest` with two blobs and a signature: about 260 bytes, its subscription and its cancellation."""
SMALLEST_FRAME_BYTES: Final = 256
"""What must be left for an update for a task to be worth beginning."""
CONNECT_BYTES: Final = 1_600
"""Connecting, saying who one is, subscribing: without TLS below 500. A round besides model and update takes
1.6 kB in all over MQTT 3.1.1, as measured with paho-mqtt and mosquitto."""

JOULES_PER_SAMPLE: Final = 0.05
"""Prior: 54 ms a sample on one core of a Raspberry Pi 4B, which takes 0.925 W above idle (6.4 W at full load,
2.7 W idle, four cores: `rpi_4b` of `laconic.profiles`), more than a small convolutional net needs."""
BURSTS: Final = 3
"""Times that the radio wakes for a task: for the model, for the update, for the answer."""
_FALL: Final = 0.1
"""How far an estimate falls towards a smaller value."""

# LTE, Huang et al., "A Close Examination of Performance and Power Characteristics of 4G LTE Networks"
# (MobiSys 2012), tables 3 and 4: promotion 0.2601 s at 1210.7 mW, tail 11.576 s at 1060.0 mW,
# alpha_up 438.39 mW per Mbit/s, alpha_down 51.97, beta 1288.04 mW. At 5 Mbit/s up and 10 down.
_LTE_BURST_J: Final = 0.2601 * 1.2107 + 11.576 * 1.0600
_LTE_UP_J_PER_BYTE: Final = 8e-6 * (0.43839 + 1.28804 / 5)
_LTE_DOWN_J_PER_BYTE: Final = 8e-6 * (0.05197 + 1.28804 / 10)


class Learnt(msgspec.Struct, frozen=True, array_like=True):
    """What a device's tasks have been seen to cost; None where it has not been seen yet."""

    joules_per_sample: float | None = None
    """Computing, for one sample in one epoch."""
    radio_factor: float | None = None
    """Joules of the radio over those of an LTE radio for the same bytes."""
    frame_bytes: float | None = None
    """An update's frame."""
    task_bytes: float | None = None
    """Both ways, all of a task."""
    task_joules: float | None = None
    """All of a task."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What is expected to be spent."""

    up: int = 0
    down: int = 0
    joules: float = 0.0

    @property
    def bytes(self) -> int:
        return self.up + self.down


def lte_joules(up: int, down: int, bursts: int) -> float:
    """Joules of an LTE radio for so many bytes in so many bursts, each with its promotion and tail."""
    return bursts * _LTE_BURST_J + up * _LTE_UP_J_PER_BYTE + down * _LTE_DOWN_J_PER_BYTE


def radio_joules(learnt: Learnt, up: int, down: int, bursts: int) -> float:
    """Joules of a device's radio; until something is known of it, an LTE radio's."""
    return lte_joules(up, down, bursts) * (1.0 if learnt.radio_factor is None else learnt.radio_factor)


def training_joules(learnt: Learnt, samples: int) -> float:
    """Joules for so many samples, epochs counted."""
    each = JOULES_PER_SAMPLE if learnt.joules_per_sample is None else learnt.joules_per_sample
    return samples * each


def message_bytes(payload: int) -> int:
    """A message with the longest topic there is, both ways."""
    return payload + TOPIC_BYTES + PACKET_BYTES


def upload_bytes(frame: int, chunk_bytes: int) -> int:
    """An update's chunks, its promise and the answer to it; both ways.

    One message more than where the promise has the frame in it: an older coordinator asks for the chunk.
    """
    chunks = max(1, -(-frame // chunk_bytes))
    return frame + chunks * message_bytes(0) + message_bytes(FIN_BYTES) + message_bytes(ACK_BYTES)


def frame_room(room: float, chunk_bytes: int) -> int:
    """The longest frame whose upload takes at most `room` bytes; below 0 if not even an empty one does."""
    free = room - message_bytes(FIN_BYTES) - message_bytes(ACK_BYTES)
    chunks = max(1, -(-int(free) // (chunk_bytes + message_bytes(0)))) if free > 0 else 1
    return int(free) - chunks * message_bytes(0)


def download_bytes(sizes: Sequence[int], chunk_bytes: int, manifests: int) -> int:
    """Blobs of these sizes, each chunk with its subscription and its cancellation, and so many manifests."""
    chunks = sum(max(1, -(-size // chunk_bytes)) for size in sizes)
    return sum(sizes) + chunks * 3 * message_bytes(0) + manifests * message_bytes(MANIFEST_BYTES)


def task_cost(learnt: Learnt, *, samples: int, frame: int, chunk_bytes: int, down: int) -> Cost:
    """A task: a download of `down` bytes, `samples` (epochs counted) to train on, a frame to send."""
    up = upload_bytes(frame, chunk_bytes) + message_bytes(TELEMETRY_BYTES)
    return Cost(up, down, training_joules(learnt, samples) + radio_joules(learnt, up, down, BURSTS))


def learn(learnt: Learnt, spent: Totals, *, samples: int, frame: int | None) -> Learnt:
    """What a task tells that took `spent`: `samples` (epochs counted) trained on, a frame sent or None.

    A task without training or bytes tells nothing of their price.
    """
    seen = lte_joules(spent.up, spent.down, BURSTS)
    return Learnt(
        _higher(learnt.joules_per_sample, spent.compute / samples) if samples else learnt.joules_per_sample,
        _higher(learnt.radio_factor, spent.radio / seen) if spent.bytes else learnt.radio_factor,
        _higher(learnt.frame_bytes, frame) if frame is not None else learnt.frame_bytes,
        _higher(learnt.task_bytes, spent.bytes) if frame is not None else learnt.task_bytes,
        _higher(learnt.task_joules, spent.joules) if samples else learnt.task_joules,
    )


def _higher(known: float | None, seen: float) -> float:
    """The estimate after one more value: up at once, down slowly."""
    return seen if known is None or seen >= known else known + _FALL * (seen - known)
