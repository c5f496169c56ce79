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

from laconic.compression.candidates import Candidate, Memory, Stretch, candidates, few
from laconic.compression.combining import front
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
_PROBES = 8

_NEAR = 0.001
"""How far below a limit the search ends, and what it aims at, as a share of the limit."""

_LEAST = 0.05
"""The part of an interval that a probe takes off at least."""

_FAR = 50.0

_SHORT = 1024
"""Bytes of a frame up to which every combination of ways is tried: half a second for 200,000 values."""

_FINER = (-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0)
"""The steps of these ways, in octaves from the one that was found."""


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
        groups = layout(len(self.schema.tensors), self.pool)
        spared = STATISTIC_STEP_RMS
        if any(t.statistic for t in self.schema.tensors) and step > self.start:
            # Where a budget asks for less than the settings' step, statistics give way like all others.
            spared *= step / self.start
        chosen: list[Candidate] = []
        before = {**self.memory, **(memory or {})}
        for tensors in groups:
            own, ways = self._ways(tensors, step, spared, before.get(tensors[0]))
            best = min(ways, key=lambda c: c.cost(PRICE * own * own))
            chosen.append(best)
        return self._plan(step, self.pool, chosen)

    def short(self, plan: Plan, fits: Callable[[int, float], bool], *, finest: bool) -> Plan:
        """The best combination of ways near the step of a short frame, where it is better.

        `fits`: of a frame's bytes and error. `finest`: the least error that fits, not the fewest bytes. A
        tensor of which nothing is sent costs three bytes or more, unless it is in the pool.
        """

        def order(of: Plan) -> tuple[float, float]:
            return (of.error, len(of.frame)) if finest else (len(of.frame), of.error)

        poolable = [
            i
            for i, t in enumerate(self.schema.tensors)
            if t.size and not t.statistic and self.weights[i] == 1
        ]
        tried = [plan, self._combined(plan, self.pool, fits, finest=finest)]
        if not self.settings.small_tensor_values:
            return min(tried, key=order)
        silent = {i for c in tried[1].choices if c.stages == ("zero",) for i in c.tensors}
        for pool in {frozenset(poolable), self.pool | silent.intersection(poolable)} - {self.pool}:
            tried.append(self._combined(plan, pool, fits, finest=finest))
        return min(tried, key=order)

    def _combined(
        self, plan: Plan, pool: frozenset[int], fits: Callable[[int, float], bool], *, finest: bool
    ) -> Plan:
        """The best combination with a pool; `plan` itself if none fits."""
        groups = layout(len(self.schema.tensors), pool)
        every: list[list[Candidate]] = []
        for tensors in groups:
            ways = list(few(self._stretch(tensors)))
            for octave in _FINER:
                ways += self._ways(tensors, plan.step * 2.0**octave, np.inf, plan.memory.get(tensors[0]))[1]
            every.append(ways)
        costs = [
            [(self._head(t) + len(w.part), w.error * self.weights[t[0]]) for w in ways]
            for t, ways in zip(groups, every, strict=True)
        ]
        outside = len(wrap(self.schema, pool, [b""] * len(groups))) - sum(map(self._head, groups))
        fitting = [c for c in front(costs) if fits(outside + c[0], c[1])]
        if not fitting:
            return plan
        best = fitting[-1 if finest else 0]
        return self._plan(plan.step, pool, [w[i] for w, i in zip(every, best[2], strict=True)])

    def _plan(self, step: float, pool: frozenset[int], chosen: Sequence[Candidate]) -> Plan:
        groups = layout(len(self.schema.tensors), pool)
        frame = wrap(self.schema, pool, [c.part for c in chosen])
        choices = tuple(
            Choice(tensors, c.stages, self._head(tensors) + len(c.part), c.error)
            for tensors, c in zip(groups, chosen, strict=True)
        )
        error = sum(c.error * self.weights[c.tensors[0]] for c in choices)
        memory = {t[0]: c.memory for t, c in zip(groups, chosen, strict=True) if c.memory is not None}
        return Plan(frame, step, error, choices, memory)

    def silent(self, plan: Plan) -> bool:
        """Whether nothing of the trained tensors is sent, though there is something to send."""
        trained = [c for c in plan.choices if not self.schema.tensors[c.tensors[0]].statistic]
        return all(c.stages == ("zero",) for c in trained) and any(c.error for c in trained)

    def _ways(
        self, tensors: tuple[int, ...], step: float, spared: float, memory: Matrix | None
    ) -> tuple[float, list[Candidate]]:
        """The step of a section, and every way to send it."""
        stretch = self._stretch(tensors)
        own = step / float(np.sqrt(self.weights[tensors[0]]))
        if self.schema.tensors[tensors[0]].statistic:
            own = min(own, spared * root_mean_square(stretch.values))
        return own, list(candidates(stretch, own, PRICE * own * own, self.settings, memory))

    def _stretch(self, tensors: tuple[int, ...]) -> Stretch:
        values = gathered(self.update, self.schema, tensors)
        spec = self.schema.tensors[tensors[0]]
        alone = len(tensors) == 1 and len(spec.shape) > 1 and spec.size > 0
        return Stretch(values, spec.size // spec.shape[0] if alone else max(values.size, 1))

    def _head(self, tensors: tuple[int, ...]) -> int:
        return len(varint(sum(self.schema.tensors[i].size for i in tensors)))


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
        allowed = max_error**2 * total
        found = _search(task, lambda p: _excess(p.error, allowed) / 2, start, finest=False)
        if len(found.frame) <= _SHORT and found.error <= allowed:
            found = task.short(found, lambda _, error: error <= allowed, finest=False)
        if budget_bytes is None or len(found.frame) <= budget_bytes:
            return found
    if budget_bytes is not None:
        limit = budget_bytes
        found = _search(task, lambda p: _excess(len(p.frame), limit), start, finest=True)
        if len(found.frame) <= min(_SHORT, limit):
            found = task.short(found, lambda size, _: size <= limit, finest=True)
        return _checked(found, limit)
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


def _excess(reached: float, limit: float) -> float:
    """The logarithm of what is reached over its limit; 0 or less fits."""
    if reached <= limit:
        return math.log(reached / limit) if reached > 0 else -_FAR
    return math.log(reached / limit) if limit > 0 else _FAR


def _search(task: Task, excess: Callable[[Plan], float], start: float, *, finest: bool) -> Plan:
    """The finest step that fits if what is too fine does not, else the coarsest.

    `excess`: see `_excess`. By interpolation of logarithms (the Illinois method: Dowell and Jarratt, BIT
    11, 1971), until a step fits with less than a thousandth to spare. Each probe begins with the directions
    of the one before. Where nothing fits within the span, the plan nearest to it.
    """
    probe = task.at(start)
    over = excess(probe)
    good, bad = ((probe, over), None) if over <= 0 else (None, (probe, over))
    factor = _STRIDE
    while (good is None or bad is None) and factor <= _SPAN:
        # A coarser step makes a shorter frame, a finer one a smaller error.
        coarser = finest == (good is None)
        probe = task.at(start * factor if coarser else start / factor, probe.memory)
        over = excess(probe)
        good, bad = ((probe, over), bad) if over <= 0 else (good, (probe, over))
        factor *= _STRIDE
    if good is None or bad is None:
        return probe
    below, above = good[1], bad[1]
    for _ in range(_PROBES):
        if good[1] >= -_NEAR:
            break
        share = min(max((below + _NEAR / 2) / (below - above), _LEAST), 1 - _LEAST)
        step = good[0].step * (bad[0].step / good[0].step) ** share
        probe = task.at(step, probe.memory)
        over = excess(probe)
        if over <= 0:
            good, below, above = (probe, over), over, above / 2
        else:
            bad, below, above = (probe, over), below / 2, over
    return good[0]
