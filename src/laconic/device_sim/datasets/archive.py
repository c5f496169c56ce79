"""Takes single files out of zip archives, in bounded memory."""

from __future__ import annotations

import io
import os
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from laconic.errors import ConfigError


def member(archive: Path | bytes, name: str, *, limit_bytes: int) -> bytes:
    """The content of one file in an archive, which may be in memory.

    Raises `ConfigError` for an archive without it, one that is damaged, or a file of more than `limit_bytes`.
    """
    where = "archive" if isinstance(archive, bytes) else str(archive)
    source = io.BytesIO(archive) if isinstance(archive, bytes) else archive
    try:
        with zipfile.ZipFile(source) as opened, opened.open(name) as file:
            content = file.read(limit_bytes + 1)
    except (
        OSError,
        KeyError,
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
    ) as e:
        raise ConfigError(f"cannot take {name} out of {where} ({e})", remedy="get it again") from e
    if len(content) > limit_bytes:
        raise ConfigError(f"bytes of {name} in {where}", value=f"over {limit_bytes}", limit=limit_bytes)
    return content


def put(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files below a folder, each under its name only when all of it is written.

    Raises `ConfigError` where that cannot be done.
    """
    for name, content in files.items():
        target = folder / name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
            try:
                with os.fdopen(handle, "wb") as out:
                    out.write(content)
                os.replace(temporary, target)
            finally:
                Path(temporary).unlink(missing_ok=True)
        except OSError as e:
            raise ConfigError(f"cannot write {target} ({e.strerror})", remedy="is there room?") from e
