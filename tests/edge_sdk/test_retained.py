"""What a device keeps of an update once it has been committed."""

from __future__ import annotations

import numpy as np
import pytest

from laconic.compression import PRESETS, encode, no_residual
from laconic.compression.echo import NO_ECHO
from laconic.compression.feedback import Residual
from laconic.compression.gate import GateState
from laconic.edge_sdk.records import restore, save_vector
from laconic.edge_sdk.retained import Retained
from laconic.edge_sdk.work import Outcome
from laconic.schema import Schema, TensorSpec
from laconic.storage import MemoryStore

SCHEMA = Schema((TensorSpec("w", (20, 30)), TensorSpec("b", (30,))))
CHANGE = np.random.default_rng(0).normal(size=SCHEMA.size).astype(np.float32)


def trained(preset: str) -> tuple[Retained, bytes]:
    """A device that has learnt `CHANGE`, and the frame that says so."""
    encoded = encode(CHANGE, SCHEMA, PRESETS[preset], np.random.default_rng(0))
    retained = Retained(SCHEMA)
    retained.learn(
        Outcome(
            residual=Residual(CHANGE, 0), echo=NO_ECHO, frame=encoded.frame, gate_state=GateState(),
            samples=1, norm=1.0, threshold=0.0, loss_before=None, loss_after=None, rate=1.0, target=0.0,
            exact=encoded.exact,
        )
    )  # fmt: skip
    return retained, encoded.frame


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("preset", ["exact", "lossless"])
def test_nothing_is_written_of_a_residual_that_has_been_said_in_full(preset: str, same: bool) -> None:
    retained, frame = trained(preset)
    assert retained.owed()["residual"] == save_vector(CHANGE)
    retained.settle(frame if same else bytes(bytearray(frame)), None)
    assert retained.residual.values is no_residual(SCHEMA.size)
    assert retained.owed()["residual"] is None
    found = restore(MemoryStore(), SCHEMA, bundle="b" * 16, initial=CHANGE)
    assert found.residual.values.tobytes() == retained.residual.values.tobytes()


def test_what_a_frame_leaves_out_stays_and_only_its_own_values_are_taken_for_it() -> None:
    retained, frame = trained("small")
    retained.settle(frame, None)
    left = retained.residual.values
    assert left.any()
    assert retained.owed()["residual"] == save_vector(left)
    retained, _ = trained("exact")
    _, other = trained("dense8")
    retained.settle(other, None)
    assert retained.residual.values.any()
