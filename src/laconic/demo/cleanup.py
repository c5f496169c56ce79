"""Leaves somebody else's broker as it was found: clears what the demonstration's fleets retained there."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from laconic.coordinator.compartment import compartment_of
from laconic.coordinator.records import ModelRecord
from laconic.protocol import topics
from laconic.storage import SqliteStore
from laconic.transport.mqtt import Address

_PATIENCE_S = 10.0


@dataclass(frozen=True)
class Traces:
    """Where to look for what a fleet has retained."""

    store: Path
    """The coordinator's store."""
    cohort: str
    devices: list[str]

    def topics(self) -> Iterator[str]:
        """Every topic under which the fleet may have left a retained message."""
        yield topics.cohort_task(self.cohort)
        yield topics.cohort_model(self.cohort)
        yield from map(topics.state, self.devices)
        if not self.store.exists():
            return
        saved = SqliteStore(self.store)
        own = compartment_of(saved, self.cohort)
        for key in own.keys("model/"):
            record = msgspec.msgpack.decode(own.get(key) or b"", type=ModelRecord)
            yield topics.manifest(record.name)
            for blob in (record.full, record.delta):
                if blob is not None:
                    yield from (topics.blob_chunk(blob.address, i) for i in range(blob.chunks))
        saved.close()


@dataclass
class Guest:
    """A visit to a broker."""

    url: str | None = None
    traces: list[Traces] = field(default_factory=list)

    def leave(self) -> None:
        """Publish an empty retained message under each topic, which makes a broker forget what lies there."""
        if self.url is None or not self.traces:
            return
        address = Address.parse(self.url)
        client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv311)
        if address.username is not None:
            client.username_pw_set(address.username, address.password)
        names = [topic for traces in self.traces for topic in traces.topics()]
        deadline = time.monotonic() + _PATIENCE_S
        try:
            client.connect(address.host, address.port)
            client.loop_start()
            for sent in [client.publish(name, b"", qos=1, retain=True) for name in names]:
                sent.wait_for_publish(max(0.0, deadline - time.monotonic()))
            done = time.monotonic() < deadline
        except (OSError, RuntimeError):
            done = False
        finally:
            client.disconnect()
            client.loop_stop()
        if not done:
            print(f"laconic: {self.url} has not been cleared of retained messages", file=sys.stderr)


@contextmanager
def guest() -> Iterator[Guest]:
    """A block at whose end, however it ends, a broker that is not ours is cleared."""
    visit = Guest()
    try:
        yield visit
    finally:
        visit.leave()
