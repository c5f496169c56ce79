"""kill -9 of coordinator, devices and broker in mid-round: every committed update is in the model once."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from processes import Ear, Process, free_port, laconic, mosquitto, until, wait_for_port

from laconic.compression import PRESETS, decode, whole
from laconic.coordinator.advance import advance
from laconic.coordinator.compartment import compartment_of
from laconic.coordinator.fold import Fold
from laconic.coordinator.registry import ModelRecord
from laconic.demo.data import Split, split_digits
from laconic.protocol import topics
from laconic.protocol.messages import Fin
from laconic.protocol.messages import decode as decode_message
from laconic.runtime import Bundle
from laconic.storage import SqliteStore
from laconic.training import prepare
from laconic.training.models import digits_cnn

DEVICES = 4
ROUNDS = 5


def write_fleet(folder: Path, split: Split, port: int) -> None:
    (folder / "model.bundle").write_bytes(prepare(digits_cnn(0)))
    broker = f'[broker]\nurl = "mqtt://127.0.0.1:{port}"\n'
    split.held_out.save(folder / "held-out.npz")
    (folder / "coordinator.toml").write_text(
        f'bundle = "model.bundle"\nheld_out = "held-out.npz"\n{broker}'
        f"[rounds]\nrounds = {ROUNDS}\nmin_devices = {DEVICES}\nmin_reports = {DEVICES}\ndeadline_s = 60\n"
        "exit_when_finished = true\n[training]\nepochs = 2\n"
        # Small chunks, so that a kill finds updates half sent.
        "[compression]\nchunk_bytes = 2048\n"
    )
    for i, part in enumerate(split.devices):
        part.save(folder / f"d{i}.npz")
        (folder / f"d{i}.toml").write_text(
            f'name = "d{i}"\nbundle = "model.bundle"\ndata = "d{i}.npz"\n'
            f"chunk_bytes = 2048\nretry_s = 1\n{broker}"
        )


@pytest.mark.broker
def test_every_committed_update_is_in_the_model_once(tmp_path: Path, mosquitto_path: str) -> None:
    port = free_port()
    split = split_digits(DEVICES, skew=0.5, seed=0)
    write_fleet(tmp_path, split, port)
    broker = mosquitto(mosquitto_path, tmp_path, port)
    coordinator = Process(
        laconic("coordinator", "--json", "--config", str(tmp_path / "coordinator.toml")), tmp_path / "c.log"
    )
    devices = [
        Process(laconic("device", "--json", "--config", str(tmp_path / f"d{i}.toml")), tmp_path / f"d{i}.log")
        for i in range(DEVICES)
    ]
    broker.start()
    wait_for_port(port)
    ear = Ear(port)
    try:
        for process in (coordinator, *devices):
            process.start()
        until(lambda: len(coordinator.notes("committed")) >= 2, 60, "the first commits")
        coordinator.kill()
        coordinator.start()
        _in_round(coordinator, 2)
        seen = len(devices[1].notes("training"))
        until(lambda: len(devices[1].notes("training")) > seen, 60, "device 1 training")
        devices[1].kill()
        devices[1].start()
        _in_round(coordinator, 3)
        seen = len(devices[2].notes("sending"))
        until(lambda: len(devices[2].notes("sending")) > seen, 60, "device 2 sending")
        devices[2].kill()
        coordinator.kill()
        devices[2].start()
        coordinator.start()
        _in_round(coordinator, 4)
        # The others stand still until the ear hears again: it must miss nothing.
        heard = ear.subscriptions
        for process in (coordinator, *devices):
            process.pause()
        broker.kill()
        broker.start()
        until(lambda: ear.subscriptions > heard, 30, "the ear")
        for process in (coordinator, *devices):
            process.go_on()
        assert coordinator.wait(120) == 0
    finally:
        for process in (coordinator, *devices, broker):
            process.end()
        ear.close()
    _check(tmp_path, coordinator, ear)


def _in_round(coordinator: Process, number: int) -> None:
    until(lambda: any(n["round"] == number for n in coordinator.notes("opened")), 60, f"round {number}")


def _check(folder: Path, coordinator: Process, ear: Ear) -> None:
    """Fold what devices were heard to send, as far as it was committed, in another order: the same bits."""
    bundle = Bundle.read((folder / "model.bundle").read_bytes())
    store = SqliteStore(folder / "coordinator.db")
    own = compartment_of(store, "default")
    records = [msgspec.msgpack.decode(own.get(k) or b"", type=ModelRecord) for k in own.keys("model/")]
    assert [r.round for r in records] == list(range(ROUNDS + 1))
    committed = _committed(coordinator)
    sent = _sent(ear)
    weights, residual = bundle.initial, np.zeros(bundle.schema.size, np.float32)
    for record in records[1:]:
        updates = committed[record.round]
        assert len(updates) == record.updates == DEVICES
        fold = Fold(bundle.schema.size)
        for update in sorted(updates.values(), reverse=True):
            frame, weight = sent[update]
            fold.add(whole(decode(frame, bundle.schema, limit_bytes=4 * bundle.schema.size)), weight)
        version = advance(
            weights,
            residual,
            fold.mean(),
            bundle.schema,
            codec=PRESETS["small"],
            seed=record.version,
            full=False,
            evaluate=lambda w: None,
        )
        assert version.digest == record.weights
        weights, residual = version.weights, version.residual
    accuracy = records[-1].accuracy
    assert accuracy is not None
    assert accuracy > 0.8


def _committed(coordinator: Process) -> dict[int, dict[str, str]]:
    """Update by device by round, as the coordinator said it over its lives."""
    found: dict[int, dict[str, str]] = {}
    for note in coordinator.notes("committed"):
        before = found.setdefault(note["round"], {}).setdefault(note["device"], note["update"])
        assert before == note["update"]
    for note in coordinator.notes("resumed"):
        for device, update in note["committed"].items():
            assert found.setdefault(note["round"], {}).setdefault(device, update) == update
    return found


def _sent(ear: Ear) -> dict[str, tuple[bytes, int]]:
    """Frame and weight of every update that was heard whole."""
    pieces: dict[str, dict[int, bytes]] = {}
    fins: dict[str, Fin] = {}
    for topic, payload in ear.messages:
        match topics.parse(topic):
            case topics.UpdateChunk(_, update, index):
                pieces.setdefault(update, {})[index] = payload
            case topics.UpdateFin(_, update):
                fins[update] = decode_message(Fin, payload)
    return {
        update: (b"".join(pieces[update][i] for i in range(fin.chunks)), fin.weight)
        for update, fin in fins.items()
        if len(pieces.get(update, {})) == fin.chunks
    }
