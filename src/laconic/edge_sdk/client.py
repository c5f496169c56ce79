"""The device in a program of one's own: connect, take part, predict."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from laconic import __version__
from laconic.budget.calendar import check_zone
from laconic.config import read_file
from laconic.edge_sdk.engine import DeviceEngine, DeviceSettings
from laconic.edge_sdk.learner import Arrays, OnnxLearner
from laconic.edge_sdk.policy import Limits
from laconic.edge_sdk.power import WireOnly
from laconic.edge_sdk.sensors import Readings, Sensors
from laconic.errors import ConfigError, LocalProtocolError
from laconic.node import Note
from laconic.protocol.chunks import DEFAULT_CHUNK_BYTES, MAX_CHUNK_BYTES, MIN_CHUNK_BYTES
from laconic.protocol.topics import TOPIC_LIMIT_BYTES
from laconic.runtime import Bundle, Trainer
from laconic.runtime.batches import Inputs
from laconic.runtime.inference import Outputs
from laconic.storage import SqliteStore
from laconic.transport.driver import Driver
from laconic.transport.link import WireBytes
from laconic.transport.mqtt import Address, MqttLink

_PING_BYTES = 2 + 2
"""PINGREQ and PINGRESP (MQTT 3.1.1, sections 3.12 and 3.13)."""
_TLS_RECORD_BYTES = 22
"""What TLS 1.3 adds to each of them (RFC 8446, section 5.2)."""

MakeSensors = Callable[[Callable[[], WireBytes]], Sensors]


class Device:
    """One device of a fleet.

    `with Device(...) as device:` takes part in a thread of its own, so that the program's work goes on;
    `device.run()` takes part in this thread until `stop()`; `await device.run_async()` on this event loop.
    """

    def __init__(
        self,
        name: str,
        *,
        broker: str | Address,
        bundle: str | Path | Bundle | Trainer,
        data: Arrays,
        store: str | Path,
        cohort: str = "default",
        limits: Limits | None = None,
        time_zone: str = "UTC",
        sensors: MakeSensors = WireOnly,
        fleet_key: bytes | None = None,
        chunk_bytes: int = DEFAULT_CHUNK_BYTES,
        retry_s: float = 10.0,
        on_note: Callable[[Note, float], None] = lambda note, now: None,
    ) -> None:
        """`bundle`: a file, or one already read; devices in one process can share a `Trainer`.

        `data`: inputs and targets, samples on axis 0. `store`: the file that keeps model, residual and
        outbox. `retry_s`: the first wait for an answer before asking again; it doubles up to five minutes.
        `time_zone`: where the device's days and months begin, for its limits.
        `sensors` is given a function that tells the bytes on the wire. `on_note` hears what happens.

        Raises `ConfigError` for a name, address or file that cannot be used, `WireError` or `ModelError` for
        a bundle that cannot, `StorageError` for a store that cannot.
        """
        if isinstance(bundle, Trainer):
            trainer = bundle
        else:
            read = bundle if isinstance(bundle, Bundle) else Bundle.read(read_file(Path(bundle), "bundle"))
            trainer = Trainer(read)
        address = Address.parse(broker) if isinstance(broker, str) else broker
        most = min(MAX_CHUNK_BYTES, address.max_packet_bytes - TOPIC_LIMIT_BYTES)
        if not MIN_CHUNK_BYTES <= chunk_bytes <= most:
            raise ConfigError(
                "chunk_bytes",
                value=chunk_bytes,
                limit=f"{MIN_CHUNK_BYTES} to {most}",
                remedy="a chunk and its topic must fit into broker.max_packet_bytes",
            )
        if not 0.1 <= retry_s <= 3600:
            raise ConfigError("retry_s", value=retry_s, limit="0.1 to 3600")
        self._trainer = trainer
        self._link = MqttLink(address, name)
        settings = DeviceSettings(
            name,
            cohort=cohort,
            limits=limits or Limits(),
            zone=check_zone(time_zone, "time_zone"),
            standing_bytes_per_s=_standing_bytes(address) / address.keep_alive_s,
            key=fleet_key,
            chunk_bytes=chunk_bytes,
            retry_s=retry_s,
            software=__version__,
        )
        self._name = name
        self._sensors = sensors(self._link.wire_bytes)
        self._learner = OnnxLearner(trainer, data)
        self._engine = DeviceEngine(settings, self._learner, self._sensors)
        self._store = SqliteStore(Path(store))
        self._driver = Driver(self._engine, self._link, self._store, observe=on_note)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running: asyncio.Task[None] | None = None
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()
        self._failure: BaseException | None = None

    @property
    def name(self) -> str:
        """The device's name."""
        return self._name

    def totals(self) -> dict[str, object]:
        """Bytes and joules since the process began, and the state of charge, as the sensors have them."""
        readings = self._sensors.read(time.time())
        return {f: getattr(readings, f) for f in Readings.__dataclass_fields__}

    def close(self) -> None:
        """Let training end and close the store; `run`, `run_async` and `stop` do it themselves."""
        self._learner.stop()
        self._store.close()

    @property
    def driver(self) -> Driver:
        """For running several devices on one event loop: see `laconic.transport.process.drive`."""
        return self._driver

    @property
    def version(self) -> int:
        """The version of the model that `predict` uses."""
        return self._engine.model.version

    def predict(self, x: Inputs) -> Outputs:
        """The model's output for inputs `x`, samples on axis 0, by the newest whole model; from any thread.

        A model with several inputs or outputs takes or gives a mapping by their names.

        Raises `ConfigError` for inputs of another shape or dtype.
        """
        local = self._learner.local(self._engine.private)
        return self._trainer.predict(self._engine.model.weights, x, local=local)

    async def run_async(self) -> None:
        """Take part until cancelled."""
        try:
            await self._driver.run()
        finally:
            self.close()

    def run(self) -> None:
        """Take part in this thread until `stop()` is called from another, or Ctrl-C.

        Raises what ends the device: `StorageError` when its store can no longer be written.
        """
        asyncio.run(self._until_stopped())

    def start(self) -> None:
        """Take part in a thread of its own."""
        if self._thread is not None:
            raise LocalProtocolError("the device has been started before", remedy="make a new Device")
        self._thread = threading.Thread(target=self._in_thread, name="laconic", daemon=True)
        self._thread.start()
        self._ready.wait()

    def stop(self) -> None:
        """End, saying goodbye to the broker, and wait for it. Raises what has ended the device early."""
        loop, running = self._loop, self._running
        if loop is not None and running is not None and not loop.is_closed():
            loop.call_soon_threadsafe(running.cancel)
        if self._thread is not None:
            self._thread.join()
        if self._failure is not None:
            raise self._failure

    def __enter__(self) -> Device:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _in_thread(self) -> None:
        try:
            self.run()
        except BaseException as e:
            self._failure = e
        finally:
            self._ready.set()

    async def _until_stopped(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._running = asyncio.ensure_future(self.run_async())
        # After the first step of the task, in which the node restores what its store holds.
        self._loop.call_soon(self._ready.set)
        try:
            await self._running
        except asyncio.CancelledError:
            if not self._running.cancelled():
                raise


def _standing_bytes(address: Address) -> int:
    """What an idle connection costs in each of its keep-alive periods."""
    return _PING_BYTES + (2 * _TLS_RECORD_BYTES if address.tls else 0)
