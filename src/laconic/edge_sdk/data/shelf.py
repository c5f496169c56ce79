"""Segments in a folder: bytes bounded at every moment, room made by moving what is kept out of old files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from laconic.edge_sdk.data.folder import Folder
from laconic.edge_sdk.data.segments import HEADER, NUMBER_BITS, Layout, Segment, index_of
from laconic.edge_sdk.data.snapshot import Array
from laconic.errors import ConfigError

PARTS: Final = 16
"""Segments in the room that there is."""
_MOST_FILES: Final = 64
_MOST_READ_BYTES: Final = 2**31
_ASIDE: Final = ".aside"


class Shelf:
    """Records by number, on the disk. For one thread at a time; all but `open` raise `OSError`."""

    def __init__(self, folder: Folder, layout: Layout, max_bytes: int) -> None:
        """Raises `ConfigError` if not a single record has room."""
        self._folder, self._layout, self._max_bytes = folder, layout, max_bytes
        self._segment_bytes = max_bytes // PARTS
        self.records_per_segment = (self._segment_bytes - HEADER.size) // layout.record_bytes
        if self.records_per_segment < 1:
            least = PARTS * (HEADER.size + layout.record_bytes)
            raise ConfigError("max_bytes of the buffer", value=max_bytes, limit=f"{least} or more")
        self._segments: dict[int, Segment] = {}
        self._aside: dict[str, int] = {}
        self._active: Segment | None = None
        self._next_index = 1
        self.incarnation = 1
        self.damaged = 0
        """Records that were found changed, and segments in which nothing could be read."""
        self.written_bytes = 0
        self.lost: set[int] = set()
        """Numbers that were wanted and are gone: damaged, or without room. The caller empties it."""

    @property
    def disk_bytes(self) -> int:
        """What lies on the disk."""
        return sum(s.size for s in self._segments.values()) + sum(self._aside.values())

    def open(self) -> list[tuple[int, int, int]]:
        """Read what there is: number, key and label of every record, by number, each number once.

        The caller says by `keep` which of them it wants. A tail that was not written to its end is cut off; a
        file of which nothing can be used is set aside.
        """
        found: dict[int, tuple[int, int, int]] = {}
        for name, size in sorted(self._folder.sizes().items()):
            if name.endswith(_ASIDE):
                self._aside[name] = size
            elif (index := index_of(name)) is not None:
                self._next_index = max(self._next_index, index + 1)
                for number, key, label in self._open(Segment(index, size)):
                    found.setdefault(number, (number, key, label))
        lives = [number >> NUMBER_BITS for number in found]
        self.incarnation = max([self.incarnation, *(life + 1 for life in lives)])
        return [found[number] for number in sorted(found)]

    def keep(self, numbers: frozenset[int]) -> None:
        """Only these are wanted of what was found. Begins a new life, within the bounds."""
        taken: set[int] = set()
        for segment in self._segments.values():
            segment.live = {n for n in segment.numbers if n in numbers and n not in taken}
            taken |= segment.live
        with contextlib.suppress(OSError):
            while self.disk_bytes > self._max_bytes - self._segment_bytes and (victims := self._victims()):
                self._discard(victims[0])
        # In this order: were the last file of the life before gone first, a crash could begin that life anew.
        self._begin()
        with contextlib.suppress(OSError):
            for segment in [s for s in self._segments.values() if not s.numbers and s is not self._active]:
                self._discard(segment)
            self._tidy()

    def append(self, bodies: Sequence[tuple[int, bytes]]) -> int:
        """Make the first of some records durable: how many, at least one. When this raises, none is there."""
        segment = self._with_room()
        here = bodies[: self._places_left(segment)]
        self._put(segment, here)
        return len(here)

    def drop(self, number: int) -> None:
        """A record is not wanted any more."""
        for segment in self._segments.values():
            segment.live.discard(number)

    def free(self) -> None:
        """Remove a segment in which nothing is kept, or else the oldest, for a disk that is full."""
        if victims := self._victims():
            self._discard(min(victims, key=lambda s: (bool(s.live), s.index)))

    def read(self) -> dict[str, Array]:
        """Every record that is wanted and sound, in the order of numbers, as arrays."""
        order = sorted(n for s in self._segments.values() for n in s.live)
        row = {number: i for i, number in enumerate(order)}
        arrays, good = self._layout.empty(len(order)), np.zeros(len(order), np.bool_)
        for segment in self._segments.values():
            content = self._content(segment)
            places = [p for p in self._live_places(segment) if self._layout.sound(content, segment.index, p)]
            at = np.array([row[segment.numbers[p]] for p in places], np.intp)
            self._layout.fill(arrays, at, self._layout.records(content)[places])
            good[at] = True
        if good.all():
            return arrays
        self._damaged({number for number, i in row.items() if not good[i]})
        return {name: array[good] for name, array in arrays.items()}

    # --- segments

    def _open(self, segment: Segment) -> Iterator[tuple[int, int, int]]:
        if segment.size > _MOST_READ_BYTES:
            self._set_aside(segment)
            return
        content = self._content(segment)
        found = self._layout.look(content, segment.index)
        self.incarnation = max(self.incarnation, found.incarnation + 1)
        if not found.places and segment.size > HEADER.size:
            self._set_aside(segment)
            return
        records = self._layout.records(content)
        last = found.places[-1][0] + 1 if found.places else 0
        self.damaged += last - len(found.places)
        segment.numbers = [0] * last
        labels = self._layout.labels(records)
        for place, number, _ in found.places:
            segment.numbers[place] = number
        self._segments[segment.index] = segment
        end = HEADER.size + last * self._layout.record_bytes
        if end < segment.size:
            with contextlib.suppress(OSError):
                self._folder.truncate(segment.name, end)
                segment.size = end
        yield from ((number, key, int(labels[place])) for place, number, key in found.places)

    def _set_aside(self, segment: Segment) -> None:
        self.damaged += 1
        name = f"{segment.index:08d}{_ASIDE}"
        try:
            self._folder.rename(segment.name, name)
        except OSError:
            name = segment.name
        self._aside[name] = segment.size

    def _content(self, segment: Segment) -> bytes:
        try:
            return self._folder.read(segment.name)
        except OSError:
            return b""

    def _begin(self) -> Segment:
        """A new segment; its header alone, so that this life of the buffer is known of."""
        segment = self._active = Segment(self._next_index)
        self._next_index += 1
        with contextlib.suppress(OSError):
            self._write(segment, self._layout.header(self.incarnation))
        return segment

    def _with_room(self) -> Segment:
        if self._active is not None and self._places_left(self._active):
            return self._active
        self._active = None
        while self.disk_bytes + self._segment_bytes > self._max_bytes and (victims := self._victims()):
            # Only where the bounds were narrower than they are meant to be: nothing has room to move to.
            self._discard(victims[0])
        segment = self._begin()
        self._tidy()
        return self._active or segment

    def _tidy(self) -> None:
        """Move what is kept out of the segments with the least in them, until there is room for another."""
        for name in list(self._aside):
            if not self._crowded():
                return
            self._folder.remove(name)
            del self._aside[name]
        for victim in self._victims():
            if not self._crowded():
                return
            active = self._active
            # One place stays free, so that whoever wanted room has some.
            if active is None or (victim.live and len(victim.live) >= self._places_left(active)):
                continue
            content = self._content(victim)
            begin, length = HEADER.size, self._layout.record_bytes
            moving = [
                (victim.numbers[p], content[begin + p * length : begin + (p + 1) * length - 4])
                for p in self._live_places(victim)
                if self._layout.sound(content, victim.index, p)
            ]
            self._damaged(victim.live - {number for number, _ in moving})
            self._put(active, moving)
            victim.live.clear()
            self._discard(victim)

    def _crowded(self) -> bool:
        closed = self.disk_bytes - (self._active.size if self._active is not None else 0)
        # Room for the one that is open, for the next, and for one that a crash leaves full of copies.
        return closed > self._max_bytes - 3 * self._segment_bytes or len(self._segments) > _MOST_FILES

    def _victims(self) -> list[Segment]:
        """Closed segments, those first of which the smallest part is kept, then the oldest."""
        closed = [s for s in self._segments.values() if s is not self._active]
        return sorted(
            closed, key=lambda s: (len(s.live) * self._layout.record_bytes / max(1, s.size), s.index)
        )

    def _put(self, segment: Segment, bodies: Sequence[tuple[int, bytes]]) -> None:
        if not bodies:
            return
        first = len(segment.numbers)
        sealed = [self._layout.sealed(body, segment.index, first + i) for i, (_, body) in enumerate(bodies)]
        header = b"" if segment.size else self._layout.header(self.incarnation)
        self._write(segment, header + b"".join(sealed))
        segment.numbers += [number for number, _ in bodies]
        segment.live |= {number for number, _ in bodies}

    def _write(self, segment: Segment, content: bytes) -> None:
        self._active = self._segments[segment.index] = segment
        try:
            self._folder.append(segment.name, content)
        except OSError:
            # What the file holds now is not known: nothing more is added to it.
            self._active = None
            with contextlib.suppress(OSError):
                self._folder.truncate(segment.name, segment.size)
            with contextlib.suppress(OSError):
                if not segment.numbers:
                    self._folder.remove(segment.name)
                segment.size = self._folder.sizes().get(segment.name, 0)
                if not segment.size:
                    self._segments.pop(segment.index, None)
            raise
        segment.size += len(content)
        self.written_bytes += len(content)

    def _places_left(self, segment: Segment) -> int:
        return self.records_per_segment - len(segment.numbers)

    def _discard(self, segment: Segment) -> None:
        self._folder.remove(segment.name)
        self.lost |= segment.live
        del self._segments[segment.index]

    def _damaged(self, numbers: set[int]) -> None:
        self.damaged += len(numbers)
        self.lost |= numbers
        for number in numbers:
            self.drop(number)

    def _live_places(self, segment: Segment) -> list[int]:
        return [place for place, number in enumerate(segment.numbers) if number in segment.live]
