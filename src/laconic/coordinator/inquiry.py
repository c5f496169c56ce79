"""Questions and orders from another process: to the coordinator that runs, or to its store if none does."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from laconic.config import load
from laconic.coordinator.configuration import CoordinatorConfig, control_path, sections_of
from laconic.coordinator.control_socket import ask
from laconic.coordinator.migrations import check_format
from laconic.coordinator.status import Reader, Request, Stored, answer
from laconic.errors import RemoteProtocolError, StoreLocked
from laconic.storage import ReadOnlyStore


class Inquiry:
    """Asks the running coordinator; where none runs, questions are answered from its store."""

    def __init__(self, socket_path: Path, store: Path, rounds: Mapping[str, int]) -> None:
        """`rounds`: by campaign, how many it is to have."""
        self._socket, self._path, self._rounds = socket_path, store, rounds
        self._store: ReadOnlyStore | None = None
        self._reader: Reader | None = None

    def ask(self, what: str, **details: object) -> dict[str, Any]:
        """The answer to a question. Raises `RemoteProtocolError`, `StorageError`, `StoreLocked`."""
        if self._reader is None:
            found = ask(self._socket, ask=what, **details)
            if found is not None:
                return found
            self._reader = self._stored()
        request = msgspec.convert({"ask": what, **details}, Request)
        said = answer(request, self._reader, time.time())
        # As it comes over the socket.
        plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(said))
        return plain

    def devices(self) -> Iterator[dict[str, Any]]:
        """Every device, by name, in as many answers as that takes."""
        after, more = "", True
        while more:
            found = self.ask("devices", after=after)
            yield from found["devices"]
            more = found["more"] and bool(found["devices"])
            after = found["devices"][-1]["name"] if more else ""

    def order(self, what: str, **details: object) -> dict[str, Any]:
        """What the running coordinator says to an order. Raises `RemoteProtocolError` if none runs."""
        found = ask(self._socket, ask=what, **details)
        if found is None:
            raise RemoteProtocolError(
                "coordinator", value="none that runs", limit="one", remedy="start it: only it can do this"
            )
        return found

    def close(self) -> None:
        """Let go of the store."""
        if self._store is not None:
            self._store.close()

    def _stored(self) -> Stored:
        try:
            self._store = ReadOnlyStore(self._path)
        except StoreLocked as e:
            raise StoreLocked(
                f"store {self._path}",
                value=f"locked, and nobody answers at {self._socket}",
                remedy="is a coordinator starting, or one with another control.socket?",
            ) from e
        check_format(self._store)
        return Stored(self._store, self._rounds)


@contextmanager
def inquiry(config: Path, environment: Mapping[str, str]) -> Iterator[Inquiry]:
    """For the coordinator that `config` configures. Raises `ConfigError` for one that cannot be read."""
    found, folder = load(CoordinatorConfig, config, environment, who="coordinator"), config.resolve().parent
    rounds = {section.cohort: section.rounds.rounds for section in sections_of(found)}
    made = Inquiry(control_path(found, folder), folder / found.store, rounds)
    try:
        yield made
    finally:
        made.close()
