"""What a strategy is told: the devices that may be asked, and the round that it is for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np


@dataclass(frozen=True, slots=True)
class Candidate:
    """A device that is here, and that nothing forbids to ask."""

    name: str
    samples: int
    """That it has to train on, as it says itself."""
    joules: float
    """What the task is expected to cost it, computing and radio."""
    bytes: int
    """What the task is expected to cost it, up plus down."""
    charge: float | None = None
    """State of charge, 0 to 1; None without a battery."""
    charging: bool = False
    metered: bool = False
    seconds: float | None = None
    """How long it is expected to train; None until it has."""
    loss: float | None = None
    """Mean training loss of the first epoch the last time that it trained; None until it has told one."""
    asked: int = 0
    """How often it has been asked in this campaign."""
    asked_round: int = 0
    """The round in which it was asked last; 0 for never."""
    waited: int = 0
    """Rounds since then, or since it could have been asked for the first time."""
    reliability: float = 0.5
    """How likely it is to answer."""


@dataclass(frozen=True, slots=True)
class Context:
    """The round that devices are chosen for."""

    fleet: str
    cohort: str
    task: str
    """The round's task: another one in every round."""
    round: int

    def random(self) -> np.random.Generator:
        """A generator from fleet and task, anew with each call: after a crash it gives the same."""
        digest = hashlib.sha256(f"{self.fleet}\n{self.task}".encode()).digest()
        return np.random.default_rng(int.from_bytes(digest, "little"))

    def draws(self, candidates: Sequence[Candidate]) -> dict[str, float]:
        """A number from [0, 1) for each candidate, the same whatever their order."""
        names = sorted(c.name for c in candidates)
        return dict(zip(names, self.random().random(len(names)).tolist(), strict=True))


Strategy: TypeAlias = Callable[[Sequence[Candidate], int, Context], Sequence[str]]
"""Names of at most so many of the candidates, each once."""
