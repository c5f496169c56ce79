"""A part of the store under a prefix: each campaign has its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from laconic.node import StoreView


class Compartment:
    """A `StoreView` of the entries whose keys begin with `prefix`, which is left out of their names."""

    def __init__(self, store: StoreView, prefix: str) -> None:
        self._store, self._prefix = store, prefix

    def get(self, key: str) -> bytes | None:
        """The blob under `key`, or None."""
        return self._store.get(self._prefix + key)

    def keys(self, prefix: str = "") -> Iterator[str]:
        """Every key that starts with `prefix`, in sorted order."""
        for key in self._store.keys(self._prefix + prefix):
            yield key[len(self._prefix) :]

    def entries(self, entries: Mapping[str, bytes | None]) -> dict[str, bytes | None]:
        """What a `Save` must hold for `entries` to be found here."""
        return {self._prefix + key: blob for key, blob in entries.items()}


def compartment_of(store: StoreView, cohort: str) -> Compartment:
    """The part of the coordinator's store that belongs to a cohort's campaign."""
    return Compartment(store, f"c/{cohort}/")
