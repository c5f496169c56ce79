"""Long lives: devices whose data no longer changes, until it drifts at a third of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from _codec.data import Part, deal, digits
from _codec.federation import Codec, Federation, Observation, Point, Sent, State, run
from _codec.models import _Layers
from _codec.tasks import Task
from laconic.compression import GateSettings
from laconic.compression.echo import SILENT, EchoSettings
from laconic.runtime import Bundle, Trainer
from laconic.schema import Schema, Vector
from laconic.training import prepare

DEVICES, ROUNDS, DRIFT = 20, 230, 150
"""The data changes after round `DRIFT`, at every third device."""

RATE, DECAY, FLOOR = 0.1, 0.97, 0.05
"""Learning rate of round 1, its factor a round, its floor, from round 24 on."""

FOLLOWS = GateSettings("model", 0.05, force_after_rounds=100, loss_factor=2.0)
"""Recovers with the run without a gate: 4 rounds later at most, in six runs, and a tenth of a point below."""

THRIFTY = GateSettings("model", 0.1, force_after_rounds=100, loss_factor=2.0)
"""About half the sends of that, recovers 2 to 6 rounds later."""


@dataclass(frozen=True)
class Way:
    """When devices speak: a gate (None: always), and what their frames are worth in later rounds."""

    gate: GateSettings | None = None
    echo: EchoSettings = SILENT


ECHOED = Way(FOLLOWS, EchoSettings(0.03, 0.995))
"""Recommended for long lives."""

WAYS: Mapping[str, Way] = MappingProxyType(
    {
        "none": Way(),
        "model 0.05": Way(GateSettings("model", 0.05, force_after_rounds=100)),
        "model 0.05, loss 2": Way(FOLLOWS),
        "model 0.1": Way(GateSettings("model", 0.1, force_after_rounds=100)),
        "model 0.1, loss 2": Way(THRIFTY),
        "steered 0.1, loss 2": Way(
            GateSettings("steered", force_after_rounds=100, target_rate=0.1, loss_factor=2.0)
        ),
        "running 0.8": Way(GateSettings("running", 0.8, force_after_rounds=4)),
        "model 0.05, loss 2, echo 0.03": ECHOED,
    }
)
"""What is compared. A `force_after_rounds` of 4 alone would make every fifth round one of sending."""


@dataclass(frozen=True)
class Life:
    """One run: `accuracy` on the data of now by round; who `spoke`, (rounds, devices); bytes up by round."""

    accuracy: NDArray[np.float64]
    spoke: NDArray[np.bool_]
    bytes_up: NDArray[np.int64]


@dataclass(frozen=True)
class Findings:
    """What a run shows, next to the run without a gate.

    * `rate_learning`, `rate_quiet`, `rate_drifted`, `rate_others`: share of rounds in which a device
      spoke, in the first 20 rounds, in the 20 before the drift, and in the 20 after it at those with new data
      and at those without.
    * `first_word`: rounds after the drift until the last of the drifted devices had spoken.
    * `accuracy_before`, `accuracy_end`: means over 5 and 10 rounds.
    * `recovery`: rounds until the accuracy, as a mean of three rounds, came within a point of where the run
      without a gate ended; None for never. `lag`: that, less the ungated run's.
    * `deficit`: of the accuracy in the 40 rounds after the drift, on average, against the ungated run.
    * `bytes`: share of the ungated run's bytes up.
    """

    rate_learning: float
    rate_quiet: float
    rate_drifted: float
    rate_others: float
    first_word: int | None
    accuracy_before: float
    accuracy_end: float
    recovery: int | None
    lag: int | None
    deficit: float
    bytes: float


@cache
def task() -> Task:
    """Digits and two dense layers, 4,810 parameters: 230 rounds of 20 devices in seconds."""
    net = _Layers("mlp", (1, 8, 8))
    net.add("Flatten").add("Gemm", (64, 64), "dense1", transB=1).add("Relu")
    net.add("Gemm", (10, 64), "dense2", transB=1)
    return Task("digits", digits(), Trainer(Bundle.read(prepare(net.file(10), optimizer="sgd"))))


def quick(target: Vector, schema: Schema, number: int, state: State, rng: np.random.Generator) -> Sent:
    """The dead zone of preset "small" with a mean for each level, its size reckoned from its entropy.

    The gate's question is not the coder's, and hundreds of rounds are to take seconds.
    """
    step = 2.5 * float(np.sqrt(np.mean(target.astype(np.float64) ** 2)))
    if step == 0:
        return Sent(16, np.zeros_like(target))
    levels = np.trunc(np.abs(target) / step + 0.4).astype(np.int64)
    counts = np.bincount(levels)
    sums = np.bincount(levels, weights=np.abs(target))
    means = np.where(np.arange(len(counts)) > 0, sums / np.maximum(counts, 1), 0.0)
    some = counts[counts > 0]
    bits = -float(some @ np.log2(some / target.size)) + int((levels > 0).sum())
    return Sent(16 + round(bits / 8), (means[levels] * np.sign(target)).astype(np.float32))


def turned(part: Part) -> Part:
    """The same images, turned by 90 degrees: what a camera sees that was mounted otherwise."""
    return Part(np.ascontiguousarray(np.rot90(part.x, axes=(2, 3))), part.y)


def live(way: Way, *, skew: float, seed: int, codec: Codec | None = None) -> Life:
    """One life. After the drift a third of the test set is turned too."""
    known = task()
    dealt = [known.data.train.at(i) for i in deal(known.data.train.y, DEVICES, skew, seed)]
    drifted = [turned(p) if i % 3 == 0 else p for i, p in enumerate(dealt)]
    test = known.data.test
    third = np.arange(len(test)) < len(test) // 3
    new, old = turned(test.at(np.flatnonzero(third))), test.at(np.flatnonzero(~third))
    mixed = Part(np.concatenate([new.x, old.x]), np.concatenate([new.y, old.y]))
    spoke = np.zeros((ROUNDS, DEVICES), np.bool_)

    def observe(seen: Observation) -> None:
        if seen.direction == "up":
            spoke[seen.number - 1, seen.device] = True

    def score(number: int, weights: Vector) -> float:
        now = mixed if number > DRIFT else test
        found = known.trainer.evaluate(weights, now.x, now.y).accuracy
        assert found is not None
        return found

    federation = Federation(
        devices=DEVICES,
        rate=lambda number: max(RATE * DECAY ** (number - 1), FLOOR),
        gate=way.gate,
        echo=way.echo,
        shards=lambda number: drifted if number > DRIFT else dealt,
        score=score,
    )
    both = codec or quick
    points: list[Point] = run(
        known, skew=skew, seed=seed, rounds=ROUNDS, up=both, down=both, federation=federation, observe=observe
    )
    return Life(
        np.array([p.accuracy for p in points]), spoke, np.array([p.bytes_up for p in points], np.int64)
    )


def findings(life: Life, ungated: Life) -> Findings:
    """What `life` shows next to the run of the same skew and seed without a gate."""
    drifted = np.arange(DEVICES) % 3 == 0
    after = life.spoke[DRIFT:]
    words = [int(np.argmax(after[:, i])) + 1 if after[:, i].any() else None for i in np.flatnonzero(drifted)]
    known = [w for w in words if w is not None]
    due = float(ungated.accuracy[-10:].mean()) - 0.01
    recovery, reference = _reaches(life, due), _reaches(ungated, due)
    return Findings(
        rate_learning=float(life.spoke[:20].mean()),
        rate_quiet=float(life.spoke[DRIFT - 20 : DRIFT].mean()),
        rate_drifted=float(after[:20, drifted].mean()),
        rate_others=float(after[:20, ~drifted].mean()),
        first_word=max(known) if len(known) == len(words) else None,
        accuracy_before=float(life.accuracy[DRIFT - 5 : DRIFT].mean()),
        accuracy_end=float(life.accuracy[-10:].mean()),
        recovery=recovery,
        lag=None if recovery is None or reference is None else recovery - reference,
        deficit=float((ungated.accuracy - life.accuracy)[DRIFT : DRIFT + 40].mean()),
        bytes=float(life.bytes_up[-1] / ungated.bytes_up[-1]),
    )


def results(
    *,
    skews: tuple[float, ...] = (0.0, 0.9),
    seeds: tuple[int, ...] = (0, 1, 2),
    ways: Mapping[str, Way] = WAYS,
    codec: Codec | None = None,
) -> dict[str, Any]:
    """Every way's findings by skew, seed after seed: `{"skew 0.9": {"model 0.1": [{...}, ...]}}`."""
    out: dict[str, Any] = {}
    for skew in skews:
        table: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
        for seed in seeds:
            ungated = live(Way(), skew=skew, seed=seed, codec=codec)
            for name, way in ways.items():
                life = ungated if way == Way() else live(way, skew=skew, seed=seed, codec=codec)
                table[name].append(asdict(findings(life, ungated)))
        out[f"skew {skew:g}"] = table
    return out


def _reaches(life: Life, due: float) -> int | None:
    """Rounds from the drift to the first mean of three that is `due`; the third of them counts."""
    means = np.convolve(life.accuracy[DRIFT:], np.ones(3) / 3, "valid")
    reached = np.flatnonzero(means >= due)
    return int(reached[0]) + 3 if len(reached) else None
