"""One life of a device, from opening its store to closing it, and what all its lives have in common."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from laconic import __version__
from laconic.budget.calendar import check_zone
from laconic.config import read_file, within
from laconic.edge_sdk.data import Examples, source_of
from laconic.edge_sdk.engine import DeviceEngine, DeviceSettings, Phase
from laconic.edge_sdk.guard import Guard
from laconic.edge_sdk.learner import OnnxLearner
from laconic.edge_sdk.policy import Limits, checked
from laconic.edge_sdk.salvage import open_store
from laconic.edge_sdk.sensors import Sensors
from laconic.edge_sdk.worker import Worker
from laconic.errors import ConfigError
from laconic.node import Note
from laconic.protocol import topics
from laconic.protocol.chunks import MAX_CHUNK_BYTES, MIN_CHUNK_BYTES
from laconic.protocol.topics import TOPIC_LIMIT_BYTES
from laconic.runtime import Bundle, Trainer
from laconic.runtime.bundle import MAGIC
from laconic.storage import SqliteStore
from laconic.transport.driver import Driver
from laconic.transport.link import PING_SHARE, WireBytes
from laconic.transport.mqtt import Address, MqttLink

MakeSensors = Callable[[Callable[[], WireBytes]], Sensors]

_PING_BYTES: Final = 2 + 2
"""PINGREQ and PINGRESP (MQTT 3.1.1, sections 3.12 and 3.13)."""
_TLS_RECORD_BYTES: Final = 22
"""What TLS 1.3 adds to each of them (RFC 8446, section 5.2)."""
_NO_STORES: Final = {MAGIC: "a training bundle", b"PK\x03\x04": "an .npz file"}
"""First bytes of what must not be taken for a damaged store, and set aside."""
_FAREWELL_S: Final = 2.0
"""How long a life that ends waits for its training to be written down."""


class Person:
    """Who the device is, over all its lives. Raises as `Device` does."""

    def __init__(
        self,
        name: str,
        *,
        broker: str | Address,
        bundle: str | Path | Bundle | Trainer,
        data: Examples,
        store: Path,
        cohort: str,
        limits: Limits,
        busy: Callable[[], bool],
        time_zone: str,
        sensors: MakeSensors,
        fleet_key: bytes | None,
        chunk_bytes: int,
        retry_s: float,
        checkpoint_s: float,
        observe: Callable[[Note, float], None],
    ) -> None:
        topics.check_name(name, "device")
        topics.check_name(cohort, "cohort")
        self.name, self.store, self.busy, self.observe = name, store, busy, observe
        self.make_sensors, self.checkpoint_s = sensors, checkpoint_s
        _check_store(store)
        if isinstance(bundle, Trainer):
            self.trainer = bundle
        else:
            read = bundle if isinstance(bundle, Bundle) else Bundle.read(read_file(Path(bundle), "bundle"))
            self.trainer = Trainer(read)
        self.address = Address.parse(broker) if isinstance(broker, str) else broker
        most = min(MAX_CHUNK_BYTES, self.address.max_packet_bytes - TOPIC_LIMIT_BYTES)
        if not MIN_CHUNK_BYTES <= chunk_bytes <= most:
            raise ConfigError(
                "chunk_bytes",
                value=chunk_bytes,
                limit=f"{MIN_CHUNK_BYTES} to {most}",
                remedy="a chunk and its topic must fit into broker.max_packet_bytes",
            )
        within("retry_s", retry_s, 0.1, 3600)
        within("checkpoint_s", checkpoint_s, 1, 86_400)
        self.source = source_of(data, self.trainer.bundle.manifest)
        self.settings = DeviceSettings(
            name,
            cohort=cohort,
            limits=checked(limits),
            zone=check_zone(time_zone, "time_zone"),
            standing_bytes_per_s=standing_bytes(self.address) / (self.address.keep_alive_s * PING_SHARE),
            key=fleet_key,
            chunk_bytes=chunk_bytes,
            retry_s=retry_s,
            software=__version__,
        )


class Life:
    """A link, sensors, an engine and a driver of their own: what an earlier life had in memory may be ahead
    of what is on the disk."""

    def __init__(self, person: Person) -> None:
        self._person = person
        self.begun = False
        self._link = MqttLink(person.address, person.name)
        self._sensors = person.make_sensors(self._link.wire_bytes)
        self.guard = Guard(
            self._sensors,
            person.settings.limits,
            person.settings.zone,
            busy=person.busy,
            slice_s=person.checkpoint_s,
        )
        self.learner = OnnxLearner(person.trainer, person.source, self.guard)
        self.engine = DeviceEngine(person.settings, self.learner, self.guard)
        self._work: Worker | None = None

    def works_here(self) -> bool:
        """Whether the calling thread is the one that work is done on."""
        return self._work is not None and self._work.is_here()

    async def live(self, opened: Callable[[], None]) -> None:
        """Take part until cancelled; `opened` is called once the engine has restored itself.

        Raises `StorageError`, and what else ends a life.
        """
        self.begun = True
        person = self._person
        store, note = open_store(person.store)
        self._work = work = Worker(self.learner.rest)
        try:
            driver = Driver(self.engine, self._link, store, observe=person.observe, executor=work)
            if note is not None:
                person.observe(note, time.time())
            await self._drive(driver, opened)
        finally:
            self.guard.stop()
            await _aside(lambda: self._end(work, store))

    def _end(self, work: ThreadPoolExecutor, store: SqliteStore) -> None:
        """Let go of everything, in a thread that may wait for it."""
        # Training looks up within a tenth of a second, or a step.
        work.shutdown(wait=True, cancel_futures=True)
        store.close()
        if callable(close := getattr(self._sensors, "close", None)):
            close()

    async def _drive(self, driver: Driver, opened: Callable[[], None]) -> None:
        driving = asyncio.ensure_future(driver.run())
        starting = asyncio.ensure_future(driver.started.wait())
        try:
            await asyncio.wait((driving, starting), return_when=asyncio.FIRST_COMPLETED)
            if driver.started.is_set():
                opened()
            # Not `await driving`: being cancelled would cancel it, and it still has something to write down.
            await asyncio.wait((driving,))
            driving.result()
        finally:
            starting.cancel()
            self.guard.stop()
            await self._wind_down(driving)
            driving.cancel()
            await asyncio.gather(driving, return_exceptions=True)

    async def _wind_down(self, driving: asyncio.Future[None]) -> None:
        """Let training that was cut short be written down: `driving` goes on for as long."""
        until = asyncio.get_running_loop().time() + _FAREWELL_S
        while self.engine.phase is Phase.TRAINING and not driving.done():
            if asyncio.get_running_loop().time() > until:
                break
            await asyncio.sleep(0.01)


def _check_store(path: Path) -> None:
    """Raises `ConfigError` for a file that is something else, mistaken for the store."""
    begin = b""
    # What cannot be read is for whoever opens the store to complain of.
    with contextlib.suppress(OSError), path.open("rb") as file:
        begin = file.read(8)
    for magic, kind in _NO_STORES.items():
        if begin.startswith(magic):
            raise ConfigError(f"store {path}", value=kind, limit="a file of the device's own")


async def _aside(end: Callable[[], None]) -> None:
    """Call `end` in a thread, while the loop turns, and come back when it is over, even if cancelled."""
    failed: list[Exception] = []

    def call() -> None:
        try:
            end()
        except Exception as e:
            failed.append(e)

    # Not `asyncio.to_thread`: its thread would outlive us on the program's own loop.
    thread = threading.Thread(target=call, name="laconic-end")
    thread.start()
    try:
        while thread.is_alive():
            await asyncio.sleep(0.005)
    finally:
        thread.join()
    if failed:
        raise failed[0]


def standing_bytes(address: Address) -> int:
    """What a ping and its answer cost at the socket."""
    return _PING_BYTES + (2 * _TLS_RECORD_BYTES if address.tls else 0)
