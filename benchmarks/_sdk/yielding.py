"""How soon training stops once it may not go on, and that it then comes to the same result, bit for bit."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from _result import Bar, at_least, at_most
from msgspec.structs import replace

from _sdk.latency import model
from _sdk.site import examples
from laconic.edge_sdk.guard import Guard
from laconic.edge_sdk.learner import Interrupted, OnnxLearner, Trained
from laconic.edge_sdk.policy import Limits
from laconic.edge_sdk.sensors import Readings
from laconic.protocol.messages import Training
from laconic.runtime import Bundle, Trainer
from laconic.runtime.priority import lower_priority
from laconic.training import prepare

MOMENTS: Final = 20
LIMIT_S: Final = 0.5
CAUSES: Final = ("busy", "limits", "stop")
"""The program wants the machine; the battery is below what the owner allows; the device is told to end."""

# Batches that take about so long on a machine like ours.
_STEPS_MS: Final = {"5 ms": ("lenet", 5), "150 ms": ("fedavg_cnn", 150)}
_APART_S: Final = (0.05, 0.8)
_LIMITS: Final = Limits(min_charge=0.5)
_ANY: Final = Readings(charge=0.9, charging=False)


def measure(moments: int = MOMENTS, seed: int = 0) -> dict[str, Any]:
    """For a model with short steps and one with long: seconds from each change of mind to the end of work."""
    return {name: _measured(net, step_ms / 1000, moments, seed) for name, (net, step_ms) in _STEPS_MS.items()}


def bars(found: Mapping[str, Any]) -> list[Bar]:
    """Of the longest wait, however busy the machine was; and of the bits."""
    return [
        bar
        for name, it in found.items()
        for bar in (
            at_most(f"yield: longest wait, steps of {name}, s", it["longest_s"], LIMIT_S),
            at_least(f"yield: same result, steps of {name}", float(it["same"]), 1.0),
        )
    ]


@dataclass
class _Owner:
    """Sensors and wishes that change when they are told to."""

    readings: Readings = _ANY
    wants: bool = False

    def read(self, now: float) -> Readings:
        return self.readings

    def worked(self, seconds: float) -> None:
        """Nothing is counted."""


def _measured(net: str, step_s: float, moments: int, seed: int) -> dict[str, Any]:
    trainer, chance = Trainer(Bundle.read(prepare(model(net)))), np.random.default_rng(seed)
    x, y = examples()
    bundle = trainer.bundle
    batch = _batch(trainer, x, y, step_s)
    per_epoch = -(-len(x) // batch)
    steps = round(1.5 * moments * float(np.mean(_APART_S)) / step_s)
    training = Training(
        epochs=max(2, -(-steps // per_epoch)), batch_size=batch, learning_rate=1e-3, keep_optimizer=False
    )
    owner, checkpoint, worked = _Owner(), b"", 0.0
    taken: list[float] = []
    causes: list[str] = []

    def work(guard: Guard, begun: bytes) -> tuple[Trained | Interrupted, float, float]:
        learner = OnnxLearner(trainer, (x, y), guard)
        before = time.thread_time()
        result = learner.train(bundle.initial, training, 7, b"", begun)
        return result, time.perf_counter(), time.thread_time() - before

    def guarded() -> Guard:
        return Guard(owner, _LIMITS, "UTC", busy=lambda: owner.wants, slice_s=1e9)

    with ThreadPoolExecutor(1, initializer=lower_priority) as pool:
        result: Trained | Interrupted = Interrupted(b"")
        while isinstance(result, Interrupted):
            guard = guarded()
            owner.readings, owner.wants = _ANY, False
            job = pool.submit(work, guard, checkpoint)
            asked = None
            if len(taken) < moments:
                time.sleep(chance.uniform(*_APART_S))
                cause = CAUSES[len(taken) % len(CAUSES)]
                asked = time.perf_counter()
                _forbid(cause, owner, guard)
            result, ended, seconds = job.result()
            worked += seconds
            if isinstance(result, Interrupted):
                checkpoint = result.checkpoint
                assert asked is not None
                taken.append(ended - asked)
                causes.append(cause)
        owner.readings, owner.wants = _ANY, False
        whole, _, seconds = pool.submit(work, guarded(), b"").result()
    assert isinstance(whole, Trained)
    found = {c: [t for t, by in zip(taken, causes, strict=True) if by == c] for c in CAUSES}
    return {
        "batch": batch,
        "step_ms": round(1000 * seconds / (per_epoch * training.epochs), 1),
        "moments": len(taken),
        "median_s": round(float(np.median(taken)), 3),
        "longest_s": round(max(taken), 3),
        **{f"longest_{cause}_s": round(max(times), 3) for cause, times in found.items()},
        "checkpoint_kb": round(len(checkpoint) / 1000),
        "work_over_uninterrupted": round(worked / seconds, 3),
        "same": _digest(result) == _digest(whole),
    }


def _forbid(cause: str, owner: _Owner, guard: Guard) -> None:
    match cause:
        case "busy":
            owner.wants = True
        case "limits":
            owner.readings = replace(_ANY, charge=0.4)
        case _:
            guard.stop()


def _batch(trainer: Trainer, x: Any, y: Any, step_s: float) -> int:
    """About as many samples as a step of `step_s` processor seconds takes."""
    best, error = 1, float("inf")
    for batch in (1, 2, 4, 8, 16, 32, 64, 128):
        settings: dict[str, Any] = {"batch_size": batch, "learning_rate": 1e-3, "seed": 0}
        rows = slice(0, 4 * batch) if 4 * batch <= len(x) else slice(None)
        epochs = max(1, -(-4 * batch // len(x)))
        trainer.train(trainer.bundle.initial, x[rows], y[rows], epochs=epochs, **settings)
        before = time.process_time()
        run = trainer.train(trainer.bundle.initial, x[rows], y[rows], epochs=epochs, **settings)
        found = abs(np.log((time.process_time() - before) / run.steps / step_s))
        if found < error:
            best, error = batch, found
    return best


def _digest(result: Trained) -> str:
    numbers = repr((result.samples, result.loss_before, result.loss_after)).encode()
    return hashlib.sha256(result.weights.tobytes() + result.private + numbers).hexdigest()


if __name__ == "__main__":
    print(json.dumps(measure(), indent=2))
