"""Divides examples among devices: each example is one device's, and each device has at least one."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from laconic.device_sim.datasets.labelled import Part
from laconic.device_sim.scenario.settings import DataSection
from laconic.errors import ConfigError

Owners = NDArray[np.int64]
"""The number of the device that each example belongs to."""


@dataclass(frozen=True)
class Division:
    """Examples by device, and within a device in their own order.

    `order`: int64 `(examples,)`; those of device i are `order[starts[i] : starts[i + 1]]`.
    """

    order: NDArray[np.int64]
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, owners: Owners, devices: int) -> Division:
        """The division in which example i is `owners[i]`'s."""
        counts = np.bincount(owners, minlength=devices)
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return cls(np.argsort(owners, kind="stable"), starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def of_device(self, device: int) -> NDArray[np.int64]:
        """The examples of a device, in ascending order."""
        return self.order[self.starts[device] : self.starts[device + 1]]


class Parts(Sequence[Part]):
    """The parts of all devices as stretches of the same arrays: views, made when they are asked for."""

    def __init__(self, whole: Part, starts: NDArray[np.int64]) -> None:
        """`starts`: int64 `(devices + 1)`, where each device's examples begin, and their number."""
        self.whole, self.starts = whole, starts

    def __len__(self) -> int:
        return len(self.starts) - 1

    @overload
    def __getitem__(self, index: int) -> Part: ...
    @overload
    def __getitem__(self, index: slice) -> list[Part]: ...
    def __getitem__(self, index: int | slice) -> Part | list[Part]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        device = range(len(self))[index]
        stretch = slice(self.starts[device], self.starts[device + 1])
        return self.whole.at(stretch)

    def __iter__(self) -> Iterator[Part]:
        return (self[i] for i in range(len(self)))


def divided(
    s: DataSection,
    labels: NDArray[np.generic],
    group: NDArray[np.int64] | None,
    devices: int,
    rng: np.random.Generator,
) -> Division:
    """Which examples each device has.

    uniform: dealt out at random. own_class: `own_class` of a class's examples go to the devices whose class
    it is (device number modulo classes), the rest is dealt out at random. dirichlet: of each class, devices
    have shares drawn from a symmetric Dirichlet distribution with `alpha` (Hsu, Qi, Brown, "Measuring the
    Effects of Non-Identical Data Distribution", 2019, has it by device). group: groups are dealt out at
    random, whole, as evenly as can be.

    Raises `ConfigError` for fewer examples or groups than devices, labels that are no classes where classes
    are needed, and data without groups where those are.
    """
    if len(labels) < devices:
        raise ConfigError(
            "examples to divide among devices", value=len(labels), limit=f"at least one for each of {devices}"
        )
    if s.division == "group":
        owners = _by_group(group, devices, rng)
    elif s.division == "uniform":
        owners = _dealt(rng.permutation(len(labels)), devices)
    else:
        if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
            raise ConfigError(
                "data.division", value=s.division, limit="uniform or group, where y are no classes"
            )
        by = _by_dirichlet if s.division == "dirichlet" else _by_own_class
        owners = by(s, labels, devices, rng)
    return Division.of(_fed(owners, devices), devices)


def _shares(sizes: NDArray[np.int64]) -> Owners:
    """Who has each place, if device i has `sizes[i]` places, one device after the other."""
    return np.repeat(np.arange(len(sizes)), sizes)


def _even(count: int, devices: int) -> NDArray[np.int64]:
    """`count` in as even numbers as can be: the first ones have one more."""
    return count // devices + (np.arange(devices) < count % devices)


def _dealt(order: NDArray[np.int64], devices: int) -> Owners:
    owners = np.empty(len(order), np.int64)
    owners[order] = _shares(_even(len(order), devices))
    return owners


def _by_group(group: NDArray[np.int64] | None, devices: int, rng: np.random.Generator) -> Owners:
    if group is None:
        raise ConfigError(
            "data.division", value="group", limit="data with groups: cmapss, har, npz with group"
        )
    names, number = np.unique(group, return_inverse=True)
    if len(names) < devices:
        raise ConfigError("groups to divide among devices", value=len(names), limit=f"at least {devices}")
    owner_of = np.empty(len(names), np.int64)
    owner_of[rng.permutation(len(names))] = np.arange(len(names)) % devices
    return owner_of[number]


def _by_dirichlet(
    s: DataSection, labels: NDArray[np.generic], devices: int, rng: np.random.Generator
) -> Owners:
    owners = np.empty(len(labels), np.int64)
    for c in np.unique(labels):
        mine = rng.permutation(np.flatnonzero(labels == c))
        cuts = np.round(np.cumsum(rng.dirichlet(np.full(devices, s.alpha)))[:-1] * len(mine)).astype(np.int64)
        owners[mine] = _shares(np.diff(cuts, prepend=0, append=len(mine)))
    return owners


def _by_own_class(
    s: DataSection, labels: NDArray[np.generic], devices: int, rng: np.random.Generator
) -> Owners:
    owners = np.empty(len(labels), np.int64)
    classes = np.unique(labels)
    for number, c in enumerate(classes):
        mine = rng.permutation(np.flatnonzero(labels == c))
        whose = np.arange(number, devices, len(classes))
        own = round(s.own_class * len(mine)) if len(whose) else 0
        if own:
            owners[mine[:own]] = whose[_shares(_even(own, len(whose)))]
        # From another device on for each class, or the first would have all remainders.
        owners[mine[own:]] = (_shares(_even(len(mine) - own, devices)) + number) % devices
    return owners


def _fed(owners: Owners, devices: int) -> Owners:
    """Whoever has nothing is given one example by whoever has most: the last that is left."""
    counts = np.bincount(owners, minlength=devices)
    hungry = np.flatnonzero(counts == 0)
    if not len(hungry):
        return owners
    found = Division.of(owners, devices)
    owners = owners.copy()
    most = [(-int(count), device) for device, count in enumerate(counts) if count > 1]
    heapq.heapify(most)
    for device in hungry:
        count, giver = most[0]
        owners[found.order[found.starts[giver] - count - 1]] = device
        heapq.heapreplace(most, (count + 1, giver))
    return owners
