"""What devices learn from: a data set, what is held out of it, and its division among devices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from laconic.device_sim.datasets import cmapss, digits, har, mnist, npz
from laconic.device_sim.datasets.labelled import Array, Dataset, Labelled, Part
from laconic.device_sim.scenario.division import Parts, divided
from laconic.device_sim.scenario.own import set_apart
from laconic.device_sim.scenario.settings import DataSection

__all__ = ["Array", "Examples", "Part", "dataset_of", "examples_of"]


@dataclass(frozen=True)
class Examples:
    """A part for each device, and what nobody trains on.

    `own`: with `own_held_out`, what each device keeps to score its own model by, in the order of the devices
    (nothing of a device that has one example); empty without.
    """

    devices: Sequence[Part]
    held_out: Part
    own: Sequence[Part] = ()

    def labels(self) -> Array:
        """All labels that there are."""
        return np.concatenate([p.y for p in (self.held_out, *self.devices, *self.own)])


def examples_of(s: DataSection, devices: int, seed: int, folder: Path) -> Examples:
    """The examples of a scenario; those of a device are in the order of the files.

    Raises `ConfigError` for files that cannot be used, or too few examples or groups.
    """
    rng = np.random.default_rng([seed, 1])
    dataset = dataset_of(s, folder)
    train = dataset.train
    mine, theirs = _held_out(s, dataset, rng)
    if s.groups_each and s.division == "group" and train.group is not None:
        # The same order whatever the number of devices: those of a smaller fleet are in a larger one, too.
        names = rng.permutation(np.unique(train.group[mine]))
        mine = mine[np.isin(train.group[mine], names[: s.groups_each * devices])]
    if s.samples:
        mine = rng.permutation(mine)[: s.samples * devices]
    mine = np.sort(mine)
    group = None if train.group is None else train.group[mine]
    division = divided(s, train.y[mine], group, devices, rng)
    where = mine[division.order]
    held_out = dataset.held_out or train.gathered(theirs).plain()
    if not s.own_held_out:
        return Examples(Parts(train.gathered(where), division.starts), held_out)
    owners = np.repeat(np.arange(devices), np.diff(division.starts))
    apart = set_apart(
        owners, train.y[where], None if group is None else group[division.order], s.own_held_out
    )
    learnt, own = (
        Parts(train.gathered(where[some]), _starts(owners[some], devices)) for some in (~apart, apart)
    )
    return Examples(learnt, held_out, own)


def dataset_of(s: DataSection, folder: Path) -> Dataset:
    """The data set of a scenario whose file is in `folder`. Raises `ConfigError`, and as `fetch` does."""
    path = folder / (s.path or "")
    if s.source == "digits":
        return digits.load()
    if s.source == "npz":
        return npz.load(path)
    if s.source == "mnist":
        return mnist.load(path, download=s.download)
    if s.source == "har":
        return har.load(path, held_out=s.har.held_out, download=s.download)
    return cmapss.load(
        path,
        subset=s.cmapss.subset,
        window=s.cmapss.window,
        stride=s.cmapss.stride,
        cap_cycles=s.cmapss.cap_cycles,
        unit_cycles=s.cmapss.unit_cycles,
        channels=s.cmapss.channels,
        download=s.download,
    )


def _held_out(
    s: DataSection, dataset: Dataset, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which examples are to be learnt from, and which are held out: none where the data set has its own.

    Where groups are not split, whole groups are held out.
    """
    train: Labelled = dataset.train
    if dataset.held_out is not None:
        return np.arange(len(train.y)), np.empty(0, np.int64)
    if s.division == "group" and train.group is not None:
        names = rng.permutation(np.unique(train.group))
        apart = np.isin(train.group, names[: max(1, round(s.held_out * len(names)))])
        return np.flatnonzero(~apart), np.flatnonzero(apart)
    order = rng.permutation(len(train.y))
    kept = max(1, round(s.held_out * len(order)))
    return order[kept:], np.sort(order[:kept])


def _starts(owners: NDArray[np.int64], devices: int) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=devices))]).astype(np.int64)
