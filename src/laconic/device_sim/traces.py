"""Recorded bandwidth: files of lines "seconds Mbit/s", as the 3G and Oboe traces are, alone or many."""

from __future__ import annotations

import os
import tarfile
import zlib
from fnmatch import fnmatchcase
from glob import escape, glob
from lzma import LZMAError
from math import isfinite
from pathlib import Path
from typing import Final, Self

from laconic.config import read_file
from laconic.device_sim.signals import Recorded
from laconic.errors import ConfigError

_LIMIT_BYTES: Final = 16 << 20
_LIMIT_TRACES: Final = 10_000
_LIMIT_ARCHIVE_BYTES: Final = 256 << 20
_LIMIT_HEADER_BYTES: Final = 64 << 10
_LONG_HEADERS: Final = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
"""Kinds of header whose content is read as a whole before there is a member."""
_LIMIT_LINES: Final = 1_000_000
_BYTES_PER_MBIT: Final = 125_000.0
# A transfer is followed from interval to interval: no file may make it take for ever.
_LEAST_INTERVAL_S: Final = 1e-3
_MOST_S: Final = 1e9
_LEAST_MBPS: Final = 1e-3


def files(folder: Path, named: str) -> list[Path]:
    """The files that a scenario in `folder` names: one, those of a folder or a pattern, or an archive.

    Raises `ConfigError` for a folder or pattern without files.
    """
    archive, _ = _divided(named)
    path = folder / (archive or named)
    folders = os.path.isdir(path)  # Path's own raises for a name that is too long.
    if archive is None and not os.path.isfile(path) and (folders or _is_pattern(named)):
        pattern = f"{escape(named)}/*" if folders else named
        found = sorted(p for p in map(Path, glob(str(Path(escape(str(folder))) / pattern))) if p.is_file())
        if not 1 <= len(found) <= _LIMIT_TRACES:
            raise ConfigError(f"traces in {path}", value=len(found), limit=f"1 to {_LIMIT_TRACES}")
        return found
    return [path]


def all_of(folder: Path, named: str) -> list[Recorded]:
    """Every trace that a scenario in `folder` names, in the order of their names. Raises `ConfigError`."""
    archive, pattern = _divided(named)
    if archive is not None:
        return _members(folder / archive, pattern)
    return [bandwidth(path) for path in files(folder, named)]


def bandwidth(path: Path) -> Recorded:
    """Bytes a second by the clock; each line's rate holds until the next, the last for the mean interval.

    Raises `ConfigError` that names file, line and value for whatever is not two numbers, times that do not
    rise by a millisecond, rates that are negative or next to nothing, and a file that is too long.
    """
    return _recorded(read_file(path, "trace", limit_bytes=_LIMIT_BYTES), str(path))


def _divided(named: str) -> tuple[str | None, str]:
    """An archive and the pattern for its members; None for what is no archive."""
    archive, colon, pattern = named.rpartition(":")
    return (archive, pattern) if colon and ".t" in Path(archive).name else (None, "")


def _is_pattern(named: str) -> bool:
    return any(c in named for c in "*?[")


def _members(archive: Path, pattern: str) -> list[Recorded]:
    """Traces of an archive that is nobody's friend: nothing of it is written, and not all is read."""
    found: dict[str, bytes] = {}
    size = 0
    try:
        with tarfile.open(archive, tarinfo=_Header) as tar:
            for number, member in enumerate(tar):
                if member.size < 0:
                    # A negative one would make room for those after it.
                    raise tarfile.ReadError(f"a member of {member.size} bytes")
                size += member.size
                if number >= _LIMIT_TRACES or size > _LIMIT_ARCHIVE_BYTES:
                    raise ConfigError(
                        f"members and bytes of the archive {archive}",
                        value=(number + 1, size),
                        limit=(_LIMIT_TRACES, _LIMIT_ARCHIVE_BYTES),
                    )
                name = member.name.removeprefix("./")
                if member.isreg() and fnmatchcase(name, pattern):
                    if member.size > _LIMIT_BYTES:
                        raise ConfigError(
                            f"size of {name} in {archive} in bytes", value=member.size, limit=_LIMIT_BYTES
                        )
                    file = tar.extractfile(member)
                    found[name] = file.read() if file is not None else b""
    except (tarfile.TarError, OSError, ValueError, EOFError, MemoryError, LZMAError, zlib.error) as e:
        raise ConfigError(f"cannot read the archive {archive} ({e})", remedy="check the path") from e
    if not found:
        raise ConfigError(f"traces in {archive}", value=pattern, limit="a pattern that some member has")
    return [_recorded(found[name], f"{archive}:{name}") for name in sorted(found)]


class _Header(tarfile.TarInfo):
    """A header that says no more about its member than a path and some attributes take."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        if header.type in _LONG_HEADERS and header.size > _LIMIT_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {header.size} bytes, of {_LIMIT_HEADER_BYTES} at most")
        return header


def _recorded(raw: bytes, path: str) -> Recorded:
    lines = raw.decode("ascii", errors="replace").split("\n", _LIMIT_LINES)
    if len(lines) > _LIMIT_LINES:
        raise ConfigError(f"lines of the trace {path}", value=len(lines), limit=_LIMIT_LINES)
    times: list[float] = []
    rates: list[float] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            t, mbps = (float(field) for field in line.split())
        except ValueError as e:
            raise ConfigError(where, value=line.strip(), limit="two numbers: seconds and Mbit/s") from e
        if not (isfinite(t) and isfinite(mbps) and mbps >= 0):
            raise ConfigError(where, value=line.strip(), limit="finite, and a rate of at least 0")
        if abs(t) > _MOST_S or (times and t - times[-1] < _LEAST_INTERVAL_S):
            limit = f"{_LEAST_INTERVAL_S} s above {times[-1] if times else -_MOST_S}, at most {_MOST_S:g}"
            raise ConfigError(f"{where}: seconds", value=t, limit=limit)
        times.append(t)
        rates.append(mbps * _BYTES_PER_MBIT)
    if len(times) < 2 or not any(rates):
        raise ConfigError(f"trace {path}", value=f"{len(times)} lines", limit="two lines, a rate above 0")
    first, last = times[0], times[-1]
    period = last - first + (last - first) / (len(times) - 1)
    recorded = Recorded([t - first for t in times], rates, period)
    if recorded.mean < _LEAST_MBPS * _BYTES_PER_MBIT:
        mean = recorded.mean / _BYTES_PER_MBIT
        raise ConfigError(f"mean of the trace {path} in Mbit/s", value=mean, limit=f"at least {_LEAST_MBPS}")
    return recorded
