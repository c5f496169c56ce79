"""Fetches published files over https, held against their SHA-256."""

from __future__ import annotations

import hashlib
import os
import ssl
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO, Any, Final

from laconic.errors import ConfigError, TransportError

WITHIN_S: Final = 900.0
"""A download that takes longer is given up."""
SILENT_S: Final = 30.0
"""So is one that has nothing to say for so long."""
_PIECE_BYTES: Final = 1 << 18


@dataclass(frozen=True, slots=True)
class Published:
    """A file as it is published: its name here, its SHA-256, its size, and its address."""

    name: str
    sha256: str
    size_bytes: int
    url: str


def fetch(
    file: Published, folder: Path, *, context: ssl.SSLContext | None = None, within_s: float = WITHIN_S
) -> Path:
    """Download a file into a folder, which is made if it is not there; where it lies then.

    It has its name only once all of it is there and has the right digest. `context`: whom to trust, by
    default whom the system trusts.

    Raises `ConfigError` for an address without TLS, a folder that cannot be written, and a file that is not
    the one that was published; `TransportError` for a server that cannot be reached or is too slow.
    """
    _only_https(file.url)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=folder)
    except OSError as e:
        raise ConfigError(f"cannot write into {folder} ({e.strerror})", remedy="choose another path") from e
    try:
        with os.fdopen(handle, "wb") as out:
            digest = _downloaded(file, out, by_hand(file, folder), context, time.monotonic() + within_s)
        if digest != file.sha256:
            raise ConfigError(
                f"SHA-256 of {file.url}", value=digest, limit=file.sha256, remedy=by_hand(file, folder)
            )
        target = folder / file.name
        os.replace(name, target)
    except OSError as e:
        raise ConfigError(f"cannot write {file.name} into {folder} ({e})", remedy="is there room?") from e
    finally:
        Path(name).unlink(missing_ok=True)
    return target


def by_hand(file: Published, folder: Path) -> str:
    """What to do where the network is of no help; `folder`: where the file is looked for."""
    put = "unpack it, and what is packed in it," if file.name.endswith(".zip") else "put it"
    return (
        f"get {file.name} from {file.url} (SHA-256 {file.sha256}) and {put} into {folder.resolve()},"
        " or say where it is with --set data.path=FOLDER, absolute or from the scenario's folder"
    )


class _NoWayDown(urllib.request.HTTPRedirectHandler):
    """Follows only to addresses with TLS."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        _only_https(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _downloaded(
    file: Published, out: IO[bytes], remedy: str, context: ssl.SSLContext | None, until_s: float
) -> str:
    """The SHA-256 of what came, which has been written."""
    https = urllib.request.HTTPSHandler(context=context or ssl.create_default_context())
    opener = urllib.request.build_opener(https, _NoWayDown)
    hashed, came = hashlib.sha256(), 0
    try:
        with opener.open(file.url, timeout=min(SILENT_S, max(0.1, until_s - time.monotonic()))) as answer:
            while piece := _piece(answer):
                came += len(piece)
                if came > file.size_bytes:
                    raise ConfigError(f"bytes of {file.url}", value=f"over {came - 1}", limit=file.size_bytes)
                if time.monotonic() > until_s:
                    raise TransportError(f"{file.url} is too slow, {came} bytes so far", remedy=remedy)
                hashed.update(piece)
                out.write(piece)
        if came < file.size_bytes:
            raise TransportError(f"{file.url} ended after {came} bytes", limit=file.size_bytes, remedy=remedy)
    except (urllib.error.URLError, HTTPException, TimeoutError, ssl.SSLError, ConnectionError) as e:
        raise TransportError(f"cannot get {file.url} ({e})", remedy=remedy) from e
    return hashed.hexdigest()


def _piece(answer: Any) -> bytes:
    """What has come, without waiting for more than that: a slow server must not hold up the clock."""
    piece: bytes = answer.read1(_PIECE_BYTES)
    return piece


def _only_https(url: str) -> None:
    if not url.startswith("https://"):
        raise ConfigError("address to download from", value=url, limit="https://")
