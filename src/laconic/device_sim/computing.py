"""How fast a host computes, and what may go wrong with it."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from laconic.errors import ConfigError
from laconic.profiles import Board


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast a host computes: seconds for a job = `job_s` + samples x `sample_s`."""

    job_s: float = 0.01
    sample_s: float = 1e-4


def speed_by_flops(board: Board, flops: float, *, cores: int = 1, efficiency: float = 1.0) -> Speed:
    """A board's speed at `flops` floating point operations a training sample.

    Seconds = flops / (GFLOPS x 1e9 x cores/all cores x `efficiency`). The rating is High-Performance
    Linpack's, in float64 on all cores; how near a training step comes to it is `efficiency`, the scenario's
    to say.
    Raises `ConfigError` for a board without a rating.
    """
    if board.gflops is None:
        raise ConfigError("rating of a board", value=board.what, remedy="give its seconds a sample instead")
    if not (0 < flops < inf and 0 < efficiency < inf and 1 <= cores <= board.cores):
        raise ConfigError("flops, efficiency and cores", value=(flops, efficiency, cores), limit="above 0")
    return Speed(sample_s=flops * board.cores / (board.gflops.value * 1e9 * cores * efficiency))


def speed_by_batch(board: Board, task: str, samples: int) -> Speed:
    """A phone's speed as FLASH measured it for a task's batch of so many samples. Raises `ConfigError`."""
    if task not in board.batch_s:
        raise ConfigError(
            f"task measured on {board.what}",
            value=task,
            limit=", ".join(board.batch_s) or "none",
            remedy="" if board.batch_s else "give sample_s or flops, or take a phone",
        )
    if samples < 1:
        raise ConfigError(f"samples in a batch of {task}", value=samples, limit="1 or more")
    return Speed(sample_s=board.batch_s[task].value / samples)


@dataclass(frozen=True, slots=True)
class Failures:
    """What may happen to a job, each to its share of jobs: nothing else tells one device from another.

    `drop_out`: the device vanishes in the middle of the job and is back after `away_s`. `crash`: its process
    is killed and starts again at once. `slow`: how many times longer its jobs take.
    """

    drop_out: float = 0.0
    away_s: float = 600.0
    crash: float = 0.0
    slow: float = 1.0

    def __post_init__(self) -> None:
        if not (self.drop_out >= 0 and self.crash >= 0 and self.drop_out + self.crash <= 1):
            raise ConfigError("drop_out and crash", value=(self.drop_out, self.crash), limit="shares of 1")
        if not (0 < self.slow < inf and 0 <= self.away_s < inf):
            raise ConfigError("slow and away_s", value=(self.slow, self.away_s), limit="above 0")
