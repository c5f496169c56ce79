"""Trains stacks of virtual devices: many of them in each call to onnxruntime, step by step together.

Devices need not have equally many samples. Those with most whole batches stand first in a stack, so that who
still has some is always its beginning; what is left at the end of an epoch is trained on by those together
that have equally much left. Nothing is padded or masked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from laconic.device_sim.learning.job import Job, Outcome, Ready
from laconic.errors import LaconicError, ModelError
from laconic.runtime import Bundle, OptimizerState, TrainResult
from laconic.runtime.batches import Array
from laconic.runtime.finite import check_finite
from laconic.runtime.memory import Room, aligned
from laconic.runtime.session import open_session
from laconic.schema import Schema, Vector

STATE_BYTES = 2**19
"""Of the devices' states in a stack, about: what stays in a core's cache."""

DATA_BYTES = 2**23
"""Of the data for one call, about."""

DEVICES = 64
"""Devices in a stack at most: from there on a call costs each of them nothing to speak of."""


class Stacks:
    """Sessions that train stacks, for any number of threads: one for all batches but those of one sample."""

    def __init__(self, bundle: Bundle) -> None:
        """Raises `ModelError` for a bundle whose training cannot be stacked, `ModuleNotFoundError` without
        onnx."""
        # Who trains in threads can do without onnx.
        from laconic.device_sim.learning.stacking import stacked

        self._bundle = bundle
        self._form = stacked(bundle)
        self._session = open_session(self._form.graph, name="stacked", threads=1)
        self._single: Any = None
        self._opening = Lock()
        slots = len(bundle.manifest.optimizer.slots)
        trained = bundle.schema.size + bundle.local_schema.size + slots * bundle.weight_schema.size
        self._devices = max(1, min(DEVICES, STATE_BYTES // (4 * trained)))
        self._results = [*(f"{n}:new" for n in self._form.state), "loss"]

    def _session_for(self, batch: int) -> Any:
        if batch > 1:
            return self._session
        with self._opening:
            if self._single is None:
                from laconic.device_sim.learning.stacking import stacked

                form = stacked(self._bundle, single=True)
                self._single = open_session(form.graph, name="stacked", threads=1)
        return self._single

    def ready(self, job: Job) -> Ready:
        """A job that can go into a stack. Raises as `Trainer.start` does."""
        return Ready(self._bundle, job)

    def divided(self, jobs: Sequence[Ready]) -> list[list[int]]:
        """The places of the jobs, a list for each stack: by nothing but the jobs and their order."""

        def kind(i: int) -> tuple[object, ...]:
            return jobs[i].kind

        def most_first(i: int) -> tuple[object, ...]:
            return -jobs[i].whole, jobs[i].rest

        groups: dict[tuple[object, ...], list[int]] = {}
        for i in range(len(jobs)):
            groups.setdefault(kind(i), []).append(i)
        return [
            group[start : start + self._devices]
            for group in (sorted(g, key=most_first) for g in groups.values())
            for start in range(0, len(group), self._devices)
        ]

    def train(self, jobs: Sequence[Ready]) -> list[Outcome]:
        """The jobs of one stack, which are done once only.

        Raises `ModelError` when onnxruntime cannot run them.
        """
        run = _Run(self._bundle, jobs)
        for _ in range(jobs[0].epochs):
            for job in jobs:
                job.shuffle()
            self._whole_batches(run)
            self._rests(run)
        return run.outcomes()

    def _whole_batches(self, run: _Run) -> None:
        jobs, step = run.jobs, 0
        while active := sum(job.whole > step for job in jobs):
            batch = jobs[0].batch
            sample_bytes = self._form.carried_bytes + sum(a[:1].nbytes for a in jobs[0].data.values())
            step_bytes = active * sample_bytes * batch
            stop = min(jobs[active - 1].whole, step + max(1, DATA_BYTES // max(1, step_bytes)))
            self._advance(run, list(range(active)), step * batch, stop - step, batch)
            step = stop

    def _rests(self, run: _Run) -> None:
        def rest(i: int) -> int:
            return run.jobs[i].rest

        for size, places in groupby(sorted(range(len(run.jobs)), key=rest), rest):
            if size:
                self._advance(run, list(places), None, 1, size)

    def _advance(self, run: _Run, places: list[int], start: int | None, steps: int, batch: int) -> None:
        """Some of a stack's devices go `steps` further, from the sample at `start` of the epoch's order on;
        None: from the end of their whole batches."""
        rows: slice | list[int] = places
        if places == list(range(len(places))):
            rows = slice(0, len(places))
        feeds = {n: aligned(a[rows]) for n, a in (*run.state.items(), *run.settings.items())}
        feeds |= {n: run.shown(n, places, start, steps, batch) for n in self._form.data}
        try:
            *state, losses = self._session_for(batch).run(self._results, feeds)
        except Exception as e:  # onnxruntime's exceptions share no base below Exception
            raise ModelError("onnxruntime could not run a stack", value=str(e)) from e
        for name, new in zip(self._form.state, state, strict=True):
            run.state[name][rows] = new
        for column, place in enumerate(places):
            run.told(place, losses[:, column])


class _Run:
    """A stack in progress: the devices' states and settings by the graph's names, with devices on axis 0."""

    def __init__(self, bundle: Bundle, jobs: Sequence[Ready]) -> None:
        self.jobs, self._bundle = jobs, bundle
        self._data = {n: [np.ascontiguousarray(job.data[n]) for job in jobs] for n in jobs[0].data}
        manifest = bundle.manifest
        begins = [job.begin for job in jobs]
        self.state = _spread(np.stack([b.weights for b in begins]), bundle.schema)
        if bundle.local_schema.size:
            self.state |= _spread(np.stack([b.local for b in begins]), bundle.local_schema)
        self.settings: dict[str, Array] = {"lr": np.stack([b.learning_rate for b in begins])}
        if manifest.proximal:
            self.settings["prox_mu"] = np.stack([b.proximal_mu for b in begins])
            pulled = [p.name for p in manifest.weights if p.role == "trainable"]
            self.settings |= {f"ref/{n}": self.state[n].copy() for n in pulled}
        for slot in manifest.optimizer.slots:
            vectors = np.stack([b.optimizer.slots[slot] for b in begins])
            named = _spread(vectors, bundle.weight_schema)
            self.state |= {f"opt/{slot}/{n}": a for n, a in named.items()}
        if manifest.optimizer.counts:
            self.state["step"] = np.array([b.optimizer.step for b in begins], np.int64)
        self._rooms: dict[str, tuple[int, Room]] = {}
        self._losses = [np.empty(job.steps, np.float32) for job in jobs]
        self._told = [0] * len(jobs)

    def shown(self, name: str, places: Sequence[int], start: int | None, steps: int, batch: int) -> Array:
        """What some devices see of a data input in their next steps, shape `(steps, devices, batch, ...)`."""
        first, each = self._data[name][0], steps * batch
        rest, dtype = first.shape[1:], first.dtype
        out = self._room(name, (steps, len(places), batch, *rest), dtype)
        picked = self._room("picked", (each, *rest), dtype)
        for column, place in enumerate(places):
            job = self.jobs[place]
            begin = job.whole * job.batch if start is None else start
            order = job.order[begin : begin + each]
            # Clipped, or numpy would fill another array first; the order has no sample that is not there.
            np.take(self._data[name][place], order, axis=0, out=picked, mode="clip")
            out[:, column] = picked.reshape(steps, batch, *rest)
        return out

    def _room(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Where the data of the next call can lie: in the same memory as those of the last one."""
        size = math.prod(shape) * dtype.itemsize
        held, room = self._rooms.get(name, (-1, None))
        if room is None or held < size:
            room = Room(size)
            self._rooms[name] = size, room
        return room.at(0, shape, dtype)

    def told(self, place: int, losses: NDArray[np.float32]) -> None:
        """A device's mean losses of some more steps."""
        start = self._told[place]
        self._told[place] += len(losses)
        self._losses[place][start : start + len(losses)] = losses

    def outcomes(self) -> list[Outcome]:
        """What each device has now."""
        bundle = self._bundle
        weights = _joined(self.state, bundle.schema, len(self.jobs))
        local = _joined(self.state, bundle.local_schema, len(self.jobs))
        slots = {
            slot: _joined(self.state, bundle.weight_schema, len(self.jobs), f"opt/{slot}/")
            for slot in bundle.manifest.optimizer.slots
        }
        matrices = [m for m in (weights, local, *slots.values()) if m.size]
        sound = np.all([np.isfinite(m).all(axis=1) for m in matrices], axis=0)
        return [
            self._outcome(i, weights[i], local[i], {s: m[i] for s, m in slots.items()}, bool(sound[i]))
            for i in range(len(self.jobs))
        ]

    def _outcome(
        self, place: int, weights: Vector, local: Vector, slots: dict[str, Vector], sound: bool
    ) -> Outcome:
        job = self.jobs[place]
        if not sound:
            try:
                for vector in (weights, local, *slots.values()):
                    check_finite(
                        "weights after training", vector, "lower the learning rate or check the data"
                    )
            except LaconicError as e:
                return e
        step = int(self.state["step"][place]) if "step" in self.state else 0
        # Copies: a row would keep all of the stack alive.
        return TrainResult(
            weights=weights.copy(),
            local=local.copy(),
            losses=self._losses[place],
            samples=job.epochs * job.samples,
            steps=job.steps,
            optimizer=OptimizerState({s: v.copy() for s, v in slots.items()}, step),
        )


def _spread(matrix: NDArray[np.float32], schema: Schema) -> dict[str, Array]:
    """Flat vectors, one for each device, as tensors with devices on axis 0."""
    return {
        t.name: np.ascontiguousarray(matrix[:, where]).reshape(len(matrix), *t.shape)
        for t, where in zip(schema.tensors, schema.slices, strict=True)
    }


def _joined(state: dict[str, Array], schema: Schema, devices: int, prefix: str = "") -> NDArray[np.float32]:
    """And back: shape `(devices, schema.size)`."""
    out = np.empty((devices, schema.size), np.float32)
    for t, where in zip(schema.tensors, schema.slices, strict=True):
        out[:, where] = state[prefix + t.name].reshape(devices, -1)
    return out
