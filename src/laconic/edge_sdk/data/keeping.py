"""Which examples a bounded buffer keeps: the newest, or a uniform sample of all that ever came."""

from __future__ import annotations

import heapq
from collections import deque
from typing import Protocol

_MASK = 2**64 - 1


class Keeping(Protocol):
    """Decides what stays. Examples are known by their numbers, which rise in the order of arrival."""

    def offer(self, number: int, key: int, group: int) -> int | None:
        """Take an example: the number of the one that has to go for it, which may be itself, or None.

        `key` is uniform on 0 to 2^64 - 1; `group` is the class that the example is counted to.
        """
        ...

    def forget(self, numbers: frozenset[int]) -> None:
        """Examples that were kept are lost."""
        ...


class Newest:
    """The newest `capacity` examples."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._numbers: deque[int] = deque()

    def offer(self, number: int, key: int, group: int) -> int | None:
        self._numbers.append(number)
        return self._numbers.popleft() if len(self._numbers) > self._capacity else None

    def forget(self, numbers: frozenset[int]) -> None:
        self._numbers = deque(n for n in self._numbers if n not in numbers)


class Uniform:
    """A uniform sample of all examples ever offered, `capacity` of them in each of `groups`.

    Each example has a random key for life, and those with the smallest keys of their group are kept: every
    set of `capacity` examples is as likely as any other, which is what reservoir sampling asks for (Vitter,
    Random sampling with a reservoir, ACM TOMS 1985; by keys: Efraimidis and Spirakis, Weighted random
    sampling with a reservoir, IPL 2006, with equal weights). No count of what has gone by is needed, so none
    can be lost.
    """

    def __init__(self, capacity: int, groups: int = 1) -> None:
        self._capacity = capacity
        self._heaps: list[list[tuple[int, int]]] = [[] for _ in range(groups)]

    def offer(self, number: int, key: int, group: int) -> int | None:
        heap = self._heaps[group % len(self._heaps)]
        # The largest key is on top, and of equal ones the oldest.
        entry = (-key, number)
        if len(heap) < self._capacity:
            heapq.heappush(heap, entry)
            return None
        return heapq.heappushpop(heap, entry)[1]

    def forget(self, numbers: frozenset[int]) -> None:
        for i, heap in enumerate(self._heaps):
            self._heaps[i] = [entry for entry in heap if entry[1] not in numbers]
            heapq.heapify(self._heaps[i])


def key_of(seed: int, number: int) -> int:
    """A key for example `number`: SplitMix64's mixing (Steele, Lea and Flood, OOPSLA 2014), nested."""
    return _mixed(_mixed(number + 0x9E3779B97F4A7C15) ^ _mixed(seed + 0xD1B54A32D192ED03))


def _mixed(z: int) -> int:
    z &= _MASK
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & _MASK
    return z ^ (z >> 31)
