"""The rate controller: one step and one price of a bit for the whole update, and the stages that follow.

For a given step every section is sent in the way with the least Lagrangian, squared error plus price times
bits (Shoham and Gersho, "Efficient bit allocation for an arbitrary set of quantizers", IEEE Trans. ASSP
36(9), 1988): with one price for all sections no byte could be moved from one to another to any advantage.
The step then is searched for until the frame fits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from laconic.compression.candidates import Candidate, Memory, Stretch, candidates
from laconic.compression.factorise import Matrix
from laconic.compression.frame import gathered, layout, wrap
from laconic.compression.selection import root_mean_square
from laconic.compression.settings import CodecSettings
from laconic.compression.wire import varint
from laconic.errors import LimitExceeded
from laconic.schema import Schema, Vector

PRICE = 0.09
"""Squared error that a bit must save, in squared steps. On real updates any price from 0.06 to 0.12 gave
frames of the same error and, within a few percent, the same size; above, coarse steps lose whole tensors at
once."""

STATISTIC_STEP_RMS = 0.1
"""Step of a statistic, in root mean squares of its own change, where the settings' step is coarser: a
variance is divided by, and what is left out of it is not made up for by the next gradient."""

_SPAN = 2.0**24
_STRIDE = 4.0
_BISECTIONS = 7


@dataclass(frozen=True, slots=True)
class Choice:
    """How a section is sent: the tensors it holds, its stages, its bytes in the frame, its squared error."""

    tensors: tuple[int, ...]
    stages: tuple[str, ...]
    bytes: int
    error: float


@dataclass(frozen=True, slots=True)
class Plan:
    """A frame, how each of its sections is sent, and its weighted squared error."""

    frame: bytes
    step: float
    error: float
    choices: tuple[Choice, ...]
    memory: Memory


@dataclass(frozen=True, slots=True)
class Task:
    """An update that is to be sent; `weights` are the importance of each tensor's squared error."""

    update: Vector
    schema: Schema
    settings: CodecSettings
    weights: Sequence[float]
    memory: Memory

    @property
    def pool(self) -> frozenset[int]:
        """The small tensors that share a section; nothing is gained by a pool of one."""
        most = self.settings.small_tensor_values
        small = [
            i
            for i, t in enumerate(self.schema.tensors)
            if 0 < t.size <= most and not t.statistic and self.weights[i] == 1
        ]
        return frozenset(small if len(small) > 1 else ())

    @property
    def start(self) -> float:
        """The settings' step."""
        return self.settings.step_rms * root_mean_square(self.update)

    def at(self, step: float, memory: Memory | None = None) -> Plan:
        """The frame with the least Lagrangian at a step; `memory` over the task's own."""
        pool = self.pool
        groups = layout(len(self.schema.tensors), pool)
        spared = STATISTIC_STEP_RMS
        if any(t.statistic for t in self.schema.tensors) and step > self.start:
            # Where a budget asks for less than the settings' step, statistics give way like all others.
            spared *= step / self.start
        choices: list[Choice] = []
        parts: list[bytes] = []
        before = {**self.memory, **(memory or {})}
        after: dict[int, Matrix] = {}
        for tensors in groups:
            best = self._best(tensors, step, spared, before.get(tensors[0]))
            if best.memory is not None:
                after[tensors[0]] = best.memory
            parts.append(best.part)
            head = len(varint(sum(self.schema.tensors[i].size for i in tensors)))
            choices.append(Choice(tensors, best.stages, head + len(best.part), best.error))
        frame = wrap(self.schema, pool, parts)
        error = sum(c.error * self.weights[c.tensors[0]] for c in choices)
        return Plan(frame, step, error, tuple(choices), after)

    def silent(self, plan: Plan) -> bool:
        """Whether nothing of the trained tensors is sent, though there is something to send."""
        trained = [c for c in plan.choices if not self.schema.tensors[c.tensors[0]].statistic]
        return all(c.stages == ("zero",) for c in trained) and any(c.error for c in trained)

    def _best(self, tensors: tuple[int, ...], step: float, spared: float, memory: Matrix | None) -> Candidate:
        values = gathered(self.update, self.schema, tensors)
        spec = self.schema.tensors[tensors[0]]
        alone = len(tensors) == 1 and len(spec.shape) > 1 and spec.size > 0
        columns = spec.size // spec.shape[0] if alone else max(values.size, 1)
        own = step / np.sqrt(self.weights[tensors[0]])
        if spec.statistic:
            own = min(own, spared * root_mean_square(values))
        ways = candidates(Stretch(values, columns), own, PRICE * own * own, self.settings, memory)
        return min(ways, key=lambda c: c.cost(PRICE * own * own))


def plan(task: Task, *, budget_bytes: int | None, max_error: float | None) -> Plan:
    """The frame with the settings' step; or the one that keeps to a budget or an error.

    `budget_bytes`: the finest step whose frame is at most so long. `max_error`: the coarsest step whose
    error is at most that share of the update's own weighted norm. With both the budget rules.

    Raises `LimitExceeded` for a budget below the frame in which nothing is sent.
    """
    start = task.start
    if not start > 0:
        return _checked(task.at(start), budget_bytes)
    if max_error is not None:
        total = sum(
            task.weights[i] * float(np.square(task.update[s], dtype=np.float64).sum())
            for i, s in enumerate(task.schema.slices)
        )
        found = _search(task, lambda p: p.error <= max_error**2 * total, start, finest=False)
        if budget_bytes is None or len(found.frame) <= budget_bytes:
            return found
    if budget_bytes is not None:
        return _checked(
            _search(task, lambda p: len(p.frame) <= budget_bytes, start, finest=True), budget_bytes
        )
    found = task.at(start)
    while task.silent(found):
        # With error feedback alone a silent frame would be repeated for ever.
        found = task.at(found.step / 2)
    return found


def _checked(plan: Plan, budget_bytes: int | None) -> Plan:
    if budget_bytes is not None and len(plan.frame) > budget_bytes:
        raise LimitExceeded(
            "bytes of a frame in which nothing is sent",
            value=len(plan.frame),
            limit=budget_bytes,
            remedy="raise the budget, or send nothing",
        )
    return plan


def _search(task: Task, fits: Callable[[Plan], bool], start: float, *, finest: bool) -> Plan:
    """The finest step that fits if what is too fine does not, else the coarsest; by bisection of logarithms.

    Each probe begins with the directions of the one before. Where nothing fits within the span, the plan
    nearest to it.
    """
    probe = task.at(start)
    good, bad = (probe, None) if fits(probe) else (None, probe)
    factor = _STRIDE
    while (good is None or bad is None) and factor <= _SPAN:
        # A coarser step makes a shorter frame, a finer one a smaller error.
        coarser = finest == (good is None)
        probe = task.at(start * factor if coarser else start / factor, probe.memory)
        good, bad = (probe, bad) if fits(probe) else (good, probe)
        factor *= _STRIDE
    if good is None or bad is None:
        return probe
    for _ in range(_BISECTIONS):
        probe = task.at(math.sqrt(good.step * bad.step), probe.memory)
        good, bad = (probe, bad) if fits(probe) else (good, probe)
    return good
