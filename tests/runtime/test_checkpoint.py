"""A run that is stopped and goes on from its checkpoint is the run that was not; a bad one is told."""

from __future__ import annotations

import functools
import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unlike import X, Y, unlike

from laconic.errors import (
    CheckpointMismatch,
    ConfigError,
    LimitExceeded,
    LocalProtocolError,
    Malformed,
    NonFinite,
    UnsupportedVersion,
    WireError,
)
from laconic.runtime import Bundle, Checkpoint, OptimizerState, Trainer, Training, TrainResult, pack
from laconic.runtime.buffers import Form
from laconic.runtime.checkpoint import state_schema
from laconic.training.optimizers import OPTIMIZERS
from often import examples

KINDS: dict[str, dict[str, Any]] = {
    **{name: {"optimizer": name} for name in OPTIMIZERS},
    "local": {"optimizer": "momentum", "local": True},
    "proximal": {"proximal": True},
    "scaffold": {"scaffold": True, "local": True},
}
FORMS: tuple[Form, ...] = ("epoch", "step")
FIELDS = ("weights", "local", "losses", "control")


@functools.cache
def bundle_of(kind: str) -> Bundle:
    return unlike(**KINDS[kind])


@functools.cache
def trainer_of(kind: str, form: Form, chunk_bytes: int, stretch_s: float) -> Trainer:
    return Trainer(bundle_of(kind), form=form, chunk_bytes=chunk_bytes, stretch_s=stretch_s)


def arguments(kind: str, seed: int) -> dict[str, Any]:
    """What a run starts with that is not its first: nothing in it is zero or the bundle's own."""
    bundle, rng = bundle_of(kind), np.random.default_rng(seed)

    def near(size: int) -> Any:
        return (rng.random(size) + 0.5).astype(np.float32)

    slots = {slot: near(bundle.weight_schema.size) for slot in bundle.manifest.optimizer.slots}
    return {
        "weights": near(bundle.schema.size),
        "local": near(bundle.local_schema.size),
        "control": near(bundle.control_schema.size) if bundle.control_schema.size else None,
        "optimizer": OptimizerState(slots, 5 if bundle.manifest.optimizer.counts else 0),
        "proximal_mu": 0.25 if kind == "proximal" else 0.0,
        "seed": seed,
        "x": X,
        "y": Y,
        "epochs": 3,
        "batch_size": 8,
        "learning_rate": 0.01,
        "data_tag": b"these",
    }


def assert_same(found: TrainResult, due: TrainResult) -> None:
    for field in FIELDS:
        assert getattr(found, field).tobytes() == getattr(due, field).tobytes(), field
    assert found.optimizer.slots.keys() == due.optimizer.slots.keys()
    for slot, vector in due.optimizer.slots.items():
        assert found.optimizer.slots[slot].tobytes() == vector.tobytes(), slot
    assert (found.steps, found.samples, found.optimizer.step) == (due.steps, due.samples, due.optimizer.step)


def finished(run: Training) -> TrainResult:
    for _ in run:
        pass
    return run.result()


@settings(max_examples=examples(120), deadline=None)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    form=st.sampled_from(FORMS),
    turns=st.lists(st.integers(0, 7), max_size=6),
    chunk_bytes=st.sampled_from([1, 5000, 2**18]),
    stretch_s=st.sampled_from([0.0, 1e9]),
    batch_size=st.sampled_from([1, 4, 7, 8, 30, 99]),
    epochs=st.integers(1, 3),
    seed=st.integers(0, 2**70),
)
def test_a_run_that_was_stopped_is_the_run_that_was_not(
    kind: str,
    form: Form,
    turns: list[int],
    chunk_bytes: int,
    stretch_s: float,
    batch_size: int,
    epochs: int,
    seed: int,
) -> None:
    given: dict[str, Any] = arguments(kind, seed) | {"batch_size": batch_size, "epochs": epochs}
    whole = trainer_of(kind, form, 2**18, 1e9)
    due = finished(whole.start(**given))
    trainer: Any = trainer_of(kind, form, chunk_bytes, stretch_s)
    kept: Checkpoint | None = None
    for turn in turns:
        run = trainer.start(**given, resume=kept)
        for _ in zip(range(turn), run, strict=False):
            pass
        kept = Checkpoint.decode(run.checkpoint().encode())
        assert kept.steps == run.result().steps
    assert_same(finished(trainer.start(**given, resume=kept)), due)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_of_run_goes_on_in_the_middle_of_its_second_epoch(kind: str, form: Form) -> None:
    given = arguments(kind, 3)
    trainer: Any = trainer_of(kind, form, 2**18, 0.0)
    run = trainer.start(**given)
    for progress in run:
        if progress.steps == 6:
            break
    kept = run.checkpoint()
    due = finished(run)
    assert_same(finished(trainer.start(**given, resume=kept)), due)
    assert not np.array_equal(kept.state, trainer.start(**given).checkpoint().state)


def test_a_checkpoint_changes_nothing_and_is_not_changed() -> None:
    trainer: Any = trainer_of("adam", "epoch", 2**18, 0.0)
    given = arguments("adam", 1)
    run = trainer.start(**given)
    next(iter(run))
    kept = run.checkpoint()
    before = kept.encode()
    assert_same(finished(run), finished(trainer.start(**given)))
    assert kept.encode() == before
    resumed = trainer.start(**given, resume=kept)
    finished(resumed)
    assert kept.encode() == before
    # That of a finished run has nothing left to do.
    assert_same(finished(trainer.start(**given, resume=resumed.checkpoint())), resumed.result())


def test_another_process_goes_on(tmp_path: Path) -> None:
    script = """
import sys
import numpy as np
from pathlib import Path
from laconic.runtime import Bundle, Checkpoint, Trainer
folder = Path(sys.argv[1])
data = np.load(folder / "data.npz")
bundle = Bundle.read((folder / "b").read_bytes())
kept = Checkpoint.decode((folder / "checkpoint").read_bytes())
run = Trainer(bundle).start(
    bundle.initial, data["x"], data["y"], epochs=3, batch_size=8, learning_rate=0.01, seed=7, resume=kept
)
for _ in run:
    pass
sys.stdout.write(run.checkpoint().encode().hex())
"""
    bundle = bundle_of("adam")
    (tmp_path / "b").write_bytes(pack(bundle.manifest, bundle.parts))
    bundle = Bundle.read((tmp_path / "b").read_bytes())
    np.savez(tmp_path / "data.npz", x=X, y=Y)
    run = Trainer(bundle, stretch_s=0).start(
        bundle.initial, X, Y, epochs=3, batch_size=8, learning_rate=0.01, seed=7
    )
    for progress in run:
        if progress.steps == 5:
            (tmp_path / "checkpoint").write_bytes(run.checkpoint().encode())
    found = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert bytes.fromhex(found.stdout) == run.checkpoint().encode()


def test_its_size_is_that_of_weights_and_slots() -> None:
    for kind in KINDS:
        bundle = bundle_of(kind)
        trained = bundle.schema.size - bundle.control_schema.size + bundle.local_schema.size
        due = trained + len(bundle.manifest.optimizer.slots) * bundle.weight_schema.size
        run: Any = trainer_of(kind, "step", 2**18, 0.0).start(**arguments(kind, 0))
        next(iter(run))
        assert state_schema(bundle).size == due
        assert 0 <= len(run.checkpoint().encode()) - 4 * (due + 1) < 1024


@functools.cache
def made() -> tuple[Trainer, dict[str, Any], bytes]:
    trainer, given = trainer_of("momentum", "epoch", 2**18, 0.0), arguments("momentum", 0)
    run = trainer.start(**given)
    next(iter(run))
    return trainer, given, run.checkpoint().encode()


OTHER: dict[str, Any] = {
    "x": X[:-1],
    "data_tag": b"those",
    "weights": np.ones_like,
    "local": np.ones(15, np.float32),
    "optimizer": None,
    "epochs": 4,
    "batch_size": 7,
    "learning_rate": 0.02,
    "seed": 1,
}
NAMED = {"x": "data samples", "weights": "start", "local": "start", "optimizer": "start"}


@pytest.mark.parametrize("changed", [n for n in OTHER if n != "local"])
def test_a_checkpoint_of_other_arguments_is_refused(changed: str) -> None:
    trainer, given, encoded = made()
    other = OTHER[changed]
    value = other(given[changed]) if callable(other) else other
    given = given | {changed: value} | ({"y": Y[:-1]} if changed == "x" else {})
    with pytest.raises(CheckpointMismatch, match=NAMED.get(changed, changed.replace("_", " "))):
        trainer.start(**given, resume=Checkpoint.decode(encoded))


@pytest.mark.parametrize(
    ("kind", "changed"), [("local", {"local": OTHER["local"]}), ("proximal", {"proximal_mu": 0.5})]
)
def test_a_checkpoint_of_another_kind_of_start_is_refused(kind: str, changed: dict[str, Any]) -> None:
    trainer: Any = trainer_of(kind, "epoch", 2**18, 0.0)
    given = arguments(kind, 0)
    kept = trainer.start(**given).checkpoint()
    with pytest.raises(CheckpointMismatch):
        trainer.start(**(given | changed), resume=kept)


def test_a_checkpoint_of_another_control_variate_bundle_form_or_thread_count_is_refused() -> None:
    trainer: Any = trainer_of("scaffold", "epoch", 2**18, 0.0)
    given = arguments("scaffold", 0)
    kept = trainer.start(**given).checkpoint()
    with pytest.raises(CheckpointMismatch, match="start"):
        trainer.start(**(given | {"control": None}), resume=kept)
    _, given, encoded = made()
    kept = Checkpoint.decode(encoded)
    bundle = bundle_of("momentum")
    others: dict[str, Any] = {
        "bundle": Trainer(Bundle(bundle.manifest, bundle.parts, "0" * 64), form="epoch"),
        "form": Trainer(bundle, form="step"),
        "threads": Trainer(bundle, form="epoch", threads=2),
    }
    for named, other in others.items():
        with pytest.raises(CheckpointMismatch, match=named):
            other.start(**given, resume=kept)


@settings(max_examples=examples(100), deadline=None)
@given(data=st.data())
def test_bytes_that_were_damaged_are_told(data: st.DataObject) -> None:
    _, _, encoded = made()
    damaged = bytearray(encoded)
    if data.draw(st.booleans()):
        place = data.draw(st.integers(0, len(damaged) - 1))
        damaged[place] ^= data.draw(st.integers(1, 255))
    else:
        cut = data.draw(st.integers(0, len(damaged) - 1))
        damaged = damaged[:cut] + data.draw(st.sampled_from([b"", bytes(len(damaged) - cut + 4)]))
    if bytes(damaged) != encoded:
        with pytest.raises(WireError):
            Checkpoint.decode(bytes(damaged))


@settings(max_examples=examples(60), deadline=None)
@given(head=st.binary(max_size=80), body=st.binary(max_size=40))
def test_rubbish_under_a_right_checksum_is_told(head: bytes, body: bytes) -> None:
    with pytest.raises(WireError):
        Checkpoint.decode(sealed(head, body))


def sealed(
    head: bytes, body: bytes, *, magic: bytes = b"LACONICK", version: int = 1, flags: int = 0
) -> bytes:
    """A file as the format has it, made by hand."""
    digest = hashlib.blake2b(head + body, digest_size=16).digest()
    numbers = version.to_bytes(2, "little") + flags.to_bytes(2, "little") + len(head).to_bytes(4, "little")
    return magic + numbers + digest + head + body


def test_the_format_is_what_it_is() -> None:
    _, _, encoded = made()
    length = int.from_bytes(encoded[12:16], "little")
    head, body = encoded[32 : 32 + length], encoded[32 + length :]
    assert sealed(head, body) == encoded
    with pytest.raises(Malformed, match="first bytes"):
        Checkpoint.decode(sealed(head, body, magic=b"LACONICB"))
    with pytest.raises(UnsupportedVersion):
        Checkpoint.decode(sealed(head, body, version=2))
    with pytest.raises(UnsupportedVersion):
        Checkpoint.decode(sealed(head, body, flags=1))
    with pytest.raises(LimitExceeded):
        Checkpoint.decode(sealed(bytes(2**16 + 1), b""))
    # A length that would take a terabyte is no more than a number that does not fit.
    run, steps, _ = msgspec.msgpack.decode(head)
    with pytest.raises(Malformed, match="length of the checkpoint"):
        Checkpoint.decode(sealed(msgspec.msgpack.encode([run, steps, 2**40]), body))


def test_a_state_that_cannot_be_is_told() -> None:
    trainer, given, encoded = made()
    kept = Checkpoint.decode(encoded)
    bad = kept.state.copy()
    bad[3] = np.nan
    with pytest.raises(NonFinite, match="state in the checkpoint"):
        trainer.start(**given, resume=replace(kept, state=bad))
    with pytest.raises(Malformed, match="values in the checkpoint"):
        trainer.start(**given, resume=replace(kept, state=bad[:-1]))
    with pytest.raises(Malformed, match="steps in the checkpoint"):
        trainer.start(**given, resume=replace(kept, losses=np.zeros(13, np.float32)))


def test_what_has_no_checkpoint_says_so() -> None:
    trainer, given, _ = made()
    with pytest.raises(LocalProtocolError, match="stream"):
        trainer.start_stream(given["weights"], [(X, Y)], batch_size=8, learning_rate=0.1, seed=0).checkpoint()
    x = X.copy()
    x[:] = np.inf
    run = trainer.start(**(given | {"x": x}))
    next(iter(run))
    with pytest.raises(NonFinite, match="weights after training"):
        run.checkpoint()
    for tag in (b"x" * 65, "text"):
        with pytest.raises(ConfigError, match="data tag"):
            trainer.start(**(given | {"data_tag": tag}))
