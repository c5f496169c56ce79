"""Reads files of data, compressed or not, in bounded memory."""

from __future__ import annotations

import lzma
import os
import zlib
from pathlib import Path
from typing import Final

from laconic.config import read_file
from laconic.errors import ConfigError

ENDINGS: Final = ("", ".xz", ".gz")
"""A file may lie there under its name, or compressed with one of these added."""
_GZIP: Final = 31


def found(folder: Path, name: str) -> Path | None:
    """Where the file is, under its name or with one of `ENDINGS`; None if it is not there."""
    for ending in ENDINGS:
        path = folder / (name + ending)
        if os.path.isfile(path):  # Path's own raises for a name that is too long.
            return path
    return None


def read_plain(folder: Path, name: str, *, limit_bytes: int, remedy: str) -> bytes:
    """The content of a file that may lie there compressed.

    Raises `ConfigError` for a file that is not there, is damaged, or has more than `limit_bytes`.
    """
    path = found(folder, name)
    if path is None:
        raise ConfigError(f"no {name} in {folder.resolve()}", remedy=remedy)
    raw = read_file(path, "file of data", limit_bytes=limit_bytes)
    if path.suffix == ".xz":
        return unxz(raw, str(path), limit_bytes=limit_bytes)
    return gunzip(raw, str(path), limit_bytes=limit_bytes) if path.suffix == ".gz" else raw


def gunzip(raw: bytes, where: str, *, limit_bytes: int) -> bytes:
    """What is in a gzip file of one member (RFC 1952). Raises `ConfigError`."""
    reader = zlib.decompressobj(_GZIP)
    try:
        plain = reader.decompress(raw, limit_bytes + 1)
    except zlib.error as e:
        raise ConfigError(f"{where} is no gzip file ({e})", remedy="get it again") from e
    _bounded(len(plain), where, limit_bytes)
    if not reader.eof or reader.unused_data:
        raise ConfigError(f"{where} is cut off, or has something behind its end", remedy="get it again")
    return plain


def unxz(raw: bytes, where: str, *, limit_bytes: int) -> bytes:
    """What is in an xz file of one stream. Raises `ConfigError`."""
    # A dictionary of more than what may come out is of no use to anybody.
    reader = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=2 * limit_bytes + (1 << 26))
    try:
        plain = reader.decompress(raw, limit_bytes + 1)
    except (lzma.LZMAError, MemoryError) as e:
        raise ConfigError(f"{where} is no xz file ({e})", remedy="get it again") from e
    _bounded(len(plain), where, limit_bytes)
    if not reader.eof or reader.unused_data:
        raise ConfigError(f"{where} is cut off, or has something behind its end", remedy="get it again")
    return plain


def _bounded(size: int, where: str, limit_bytes: int) -> None:
    if size > limit_bytes:
        raise ConfigError(f"bytes of {where} unpacked", value=f"over {limit_bytes}", limit=limit_bytes)
