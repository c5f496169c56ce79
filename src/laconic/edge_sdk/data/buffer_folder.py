"""The examples in an `ExampleBuffer`'s folder that another program fills: looked at, and never changed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from laconic.edge_sdk.data.buffer import ExampleBuffer, Keep
from laconic.edge_sdk.data.files import Stamp, unreadable
from laconic.edge_sdk.data.folder import Folder
from laconic.edge_sdk.data.segments import index_of
from laconic.edge_sdk.data.signature import Signature
from laconic.edge_sdk.data.snapshot import Snapshot, Source
from laconic.errors import DataError

_TRIES = 20
"""So often a folder is read anew that has changed meanwhile: its owner writes every few seconds at most."""


@dataclass(frozen=True)
class BufferFolder:
    """The folder of an `ExampleBuffer` in another process, with the settings that it has there.

    What that program has written is seen by the next training; the folder may be missing or empty till then.
    """

    path: str | Path
    keep: Keep = "newest"
    max_bytes: int = 2**26
    max_examples: int | None = None

    def bind(self, signature: Signature) -> Source:
        """The source for a model with these inputs and targets.

        Raises `ConfigError` for bounds that cannot be.
        """
        return _Glances(self, signature)


class _Glances:
    """Reads the folder when training begins, if it has changed."""

    def __init__(self, settings: BufferFolder, signature: Signature) -> None:
        self._settings, self._signature = settings, signature
        self._path = Path(settings.path)
        self._seen: tuple[Stamp, Snapshot] | None = None
        # So that bounds which cannot be are found now.
        self._buffer({}).close()

    @property
    def samples(self) -> int:
        """As many as were there the last time; at least one, since there may be more."""
        return 1 if self._seen is None else self._seen[1].samples

    def snapshot(self) -> Snapshot:
        stamp, files = self._look()
        if self._seen is None or self._seen[0] != stamp:
            with self._buffer(files) as buffer:
                self._seen = stamp, buffer.snapshot()
        return self._seen[1]

    def _buffer(self, files: dict[str, bytes]) -> ExampleBuffer:
        s = self._settings
        return ExampleBuffer(
            self._path,
            self._signature,
            keep=s.keep,
            max_bytes=s.max_bytes,
            max_examples=s.max_examples,
            folder=_Copy(self._path, files),
        )

    def _look(self) -> tuple[Stamp, dict[str, bytes]]:
        """Every segment, all of the same moment. Raises `DataError`."""
        for _ in range(_TRIES):
            try:
                before = self._stamps()
                files = {name: (self._path / name).read_bytes() for name in before}
                if self._stamps() == before:
                    return tuple(before.values()), files
            except FileNotFoundError:
                # Its records have moved to another file.
                continue
            except OSError as e:
                raise unreadable(self._path, e) from e
        raise DataError(f"the buffer {self._path} changes faster than it can be read")

    def _stamps(self) -> dict[str, tuple[int, int, int]]:
        try:
            names = sorted(p.name for p in self._path.iterdir() if index_of(p.name) is not None)
        except FileNotFoundError:
            return {}
        found = {name: (self._path / name).stat() for name in names}
        return {name: (s.st_mtime_ns, s.st_size, s.st_ino) for name, s in found.items()}


class _Copy(Folder):
    """Files in memory: what a shelf does with them does not reach the folder."""

    def __init__(self, path: Path, files: dict[str, bytes]) -> None:
        super().__init__(path)
        self._files = files

    def open(self) -> None:
        """Nothing is held."""

    def sizes(self) -> dict[str, int]:
        return {name: len(content) for name, content in self._files.items()}

    def read(self, name: str) -> bytes:
        return self._files[name]

    def append(self, name: str, content: bytes) -> None:
        self._files[name] = self._files.get(name, b"") + content

    def truncate(self, name: str, size: int) -> None:
        self._files[name] = self._files[name][:size]

    def rename(self, name: str, new: str) -> None:
        self._files[new] = self._files.pop(name)

    def remove(self, name: str) -> None:
        self._files.pop(name, None)
