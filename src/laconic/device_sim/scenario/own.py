"""Which of a device's own examples are kept to score its model: the last ones in time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]


def set_apart(
    owners: Numbers, labels: NDArray[np.generic], group: Numbers | None, share: float
) -> NDArray[np.bool_]:
    """Which examples are kept: of each device that has two or more, `share` of them, at least one, not all.

    `owners`: the device of each example; examples are in the order of time. Labels that are classes: the
    last ones of each class (and group, if there are groups), so that all that a device knows is asked for.
    Others: the last groups of a device that has several, whole, or else its last examples.
    """
    none = np.zeros(len(owners), np.int64)
    if labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer):
        kinds = np.unique(labels, return_inverse=True)[1].astype(np.int64)
        return _last(owners, _pairs(kinds, none if group is None else group), share)
    if group is None:
        return _last(owners, none, share)
    # First groups in the place of examples, then their examples.
    held = _pairs(owners, group)
    _, first, number = np.unique(held, return_index=True, return_inverse=True)
    apart = _last(owners[first], none[first], share)[number]
    several = np.bincount(owners[first], minlength=int(owners.max()) + 1)[owners] > 1
    return np.where(several, apart, _last(owners, none, share))


def _last(owners: Numbers, kinds: Numbers, share: float) -> NDArray[np.bool_]:
    """The last examples of each device, of each kind about as large a share."""
    counts = np.bincount(owners)
    due = np.where(counts > 1, np.maximum(1, np.round(share * counts)), 0).astype(np.int64)
    # How far through its own kind each example comes, from 0 to 1: the last ones of all kinds come last.
    cells = _pairs(owners, kinds)
    cell_order = np.argsort(cells, kind="stable")
    begins = np.flatnonzero(np.diff(cells[cell_order], prepend=-1))
    sizes = np.diff(begins, append=len(cells))
    place = np.empty(len(cells))
    place[cell_order] = (np.arange(len(cells)) - np.repeat(begins, sizes) + 0.5) / np.repeat(sizes, sizes)
    by_device = np.lexsort((place, owners))
    ends = np.cumsum(counts)
    apart = np.empty(len(owners), np.bool_)
    apart[by_device] = np.arange(len(owners)) >= np.repeat(ends - due, counts)
    return apart


def _pairs(a: Numbers, b: Numbers) -> Numbers:
    """A number for each different pair, in the order of `a`, then `b`."""
    numbers = np.unique(b, return_inverse=True)[1]
    return a * (int(numbers.max()) + 1) + numbers
