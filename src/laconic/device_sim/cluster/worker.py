"""What a worker does: a call that has come packed, with the sessions that it holds for a bundle."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final, NamedTuple, TypeAlias

from laconic.device_sim.cluster.likeness import Likeness, check, likeness
from laconic.device_sim.cluster.packing import Buffer, packed, unpacked
from laconic.device_sim.learning.choice import stacks_of
from laconic.device_sim.learning.job import Job, Outcome
from laconic.device_sim.learning.stack import Stacks
from laconic.device_sim.learning.workshop import CHUNK_BYTES, STRETCH_S, alone, stack
from laconic.errors import ConfigError, LaconicError
from laconic.runtime import Bundle, Trainer

_BENCHES: Final = 4
"""Bundles whose sessions a worker holds: each run of a sweep may have another."""

Call: TypeAlias = tuple[Callable[..., Any], tuple[object, ...]]
Done: TypeAlias = tuple[bytes, list[Buffer]]


class Given(NamedTuple):
    """A bundle that lies in the object store."""

    key: str
    stacked: bool
    """Whether its jobs go in stacks."""
    names: list[Any]
    """One, in a list: Ray fetches at once what an argument itself names."""


class Gave(NamedTuple):
    """What a call has given."""

    value: Any


class Raised(NamedTuple):
    """What it has raised."""

    error: Exception


class Refused(NamedTuple):
    """It cannot be done by this worker, whatever comes of it elsewhere."""

    why: str


class Bench:
    """The sessions of one bundle."""

    def __init__(self, bundle: Bundle, *, stacked: bool) -> None:
        """Raises `ConfigError` for stacks where there is no onnx."""
        self.trainer = Trainer(bundle, chunk_bytes=CHUNK_BYTES, stretch_s=STRETCH_S)
        self.stacks: Stacks | None = stacks_of(bundle) if stacked else None
        if stacked and self.stacks is None:
            raise ConfigError(
                "onnx is not installed on a worker", remedy="pip install 'laconic[training]' there"
            )


def do(here: Likeness, given: Given | None, head: bytes, *buffers: Buffer) -> Done:
    """Do a `Call` that is packed: `Gave`, `Raised` or `Refused`, packed.

    `here`: of the driver. A function for a bundle gets its `Bench` before its other arguments.
    """
    bench: tuple[object, ...] = ()
    try:
        check(here, _there(), "a worker")
        if given is not None:
            bench = (_bench(given),)
        function, arguments = unpacked(head, buffers)
    except Exception as e:
        return packed(Refused(str(e) if isinstance(e, LaconicError) else f"{type(e).__name__}: {e}"))
    try:
        return packed(Gave(function(*bench, *arguments)))
    except Exception as e:
        return packed(Raised(e))


def train_alone(bench: Bench, job: Job) -> Outcome:
    """One job."""
    return alone(bench.trainer, job)


def train_stack(bench: Bench, jobs: Sequence[Job]) -> list[Outcome]:
    """Jobs that the driver has put into one stack, in its order. Raises as `Stacks.ready` does."""
    assert bench.stacks is not None
    return stack(bench.stacks, [bench.stacks.ready(job) for job in jobs])


@cache
def _there() -> Likeness:
    return likeness()()


_benches: OrderedDict[tuple[str, bool], Bench] = OrderedDict()


def _bench(given: Given) -> Bench:
    key = given.key, given.stacked
    if key not in _benches:
        import ray

        _benches[key] = Bench(ray.get(given.names[0]), stacked=given.stacked)
    _benches.move_to_end(key)
    while len(_benches) > _BENCHES:
        _benches.popitem(last=False)
    return _benches[key]
