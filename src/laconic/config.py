"""Configuration: one TOML file for each process, checked against a structure, overridden by the environment.

Unknown keys are refused. `LACONIC_<SECTION>_<KEY>` overrides `key` in `[section]`; a key at the top is
overridden by `LACONIC_DEVICE_<KEY>` or `LACONIC_COORDINATOR_<KEY>`. Secrets stand in files of their own; the
configuration names their paths. Relative paths are relative to the folder of the configuration file.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from stat import S_ISBLK, S_ISCHR
from typing import Any, BinaryIO, TypeVar, get_args, get_type_hints

import msgspec

from laconic.errors import ConfigError

_PREFIX = "LACONIC_"
_UNKNOWN = re.compile("Object contains unknown field `(.*)`", re.DOTALL)
_MISSING = re.compile("Object missing required field `(.*)`", re.DOTALL)


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of a configuration's tables."""


class BrokerSection(Section, frozen=True):
    """`[broker]`: where the MQTT broker is and how to be let in."""

    url: str = "mqtt://127.0.0.1:1883"
    """`mqtt://host:port`, or `mqtts://host:port` for TLS; `ws://` or `wss://` through a WebSocket."""
    username: str | None = None
    password_file: str | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    keep_alive_s: int = 60
    max_packet_bytes: int = 128 * 1024


class SecuritySection(Section, frozen=True):
    """`[security]`: keys that the whole fleet shares."""

    fleet_key_file: str | None = None
    """Signs model manifests; a device that has it refuses any that are not signed with it."""


T = TypeVar("T", bound=Section)


def load(kind: type[T], path: Path, environment: Mapping[str, str], *, who: str) -> T:
    """The configuration in `path`, as a `kind`; `who` (device, coordinator) names it in the environment.

    Raises `ConfigError` that names the file, the key, the value and what was expected.
    """
    table = read_toml(path, "configuration", remedy="see docs/configuration.md")
    for name, keys, string in _variables(kind, ()):
        name = _PREFIX + (name if len(keys) > 1 else f"{who}_{name}").upper()
        if name in environment:
            _put(table, keys, environment[name] if string else toml_value(environment[name]), path)
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as e:
        raise ConfigError(
            f"{path}: {explained(e, kind)}", remedy="see docs/configuration.md for the keys"
        ) from e


def explained(error: msgspec.ValidationError, kind: type[Section]) -> str:
    """What is wrong with a table, in a configuration's words: the key, and for one that there is not, another
    that is written like it."""
    what, _, where = str(error).partition(" - at `$")
    path = where.removesuffix("`").lstrip(".")
    if found := _UNKNOWN.fullmatch(what):
        key = f"{path}.{found[1]:.60}".lstrip(".")
        near = get_close_matches(found[1], _keys(kind, path), 1)
        return f"unknown key {key}" + (f" (there is {near[0]})" if near else "")
    if found := _MISSING.fullmatch(what):
        return f"there is no key {f'{path}.{found[1]}'.lstrip('.')}"
    return f"{path}: {what[:1].lower()}{what[1:]}" if path else what


def _keys(kind: type[Section], path: str) -> Sequence[str]:
    """Which keys the table at `path` may have; none where that is no table of fixed keys."""
    here: type[msgspec.Struct] = kind
    for name in path.split(".") if path else ():
        hint = get_type_hints(here).get(name.partition("[")[0])
        # An optional table, or a list of them, has them in its arguments.
        inner = [h for h in (hint, *get_args(hint)) if isinstance(h, type) and issubclass(h, msgspec.Struct)]
        if not inner:
            return ()
        here = inner[0]
    return here.__struct_fields__


def read_file(path: Path, what: str, *, limit_bytes: int = 2**31) -> bytes:
    """The content of a file that a configuration or an argument names.

    Raises `ConfigError` when it cannot be read, is larger than `limit_bytes`, or is a device, which may never
    end.
    """
    with opened(path, what, limit_bytes=limit_bytes) as file:
        return file.read()


@contextmanager
def opened(path: Path, what: str, *, limit_bytes: int) -> Iterator[BinaryIO]:
    """The same file, to be read piece by piece; what goes wrong meanwhile is the same `ConfigError`."""
    try:
        found = path.stat()
        if S_ISCHR(found.st_mode) or S_ISBLK(found.st_mode):
            raise ConfigError(f"{what} {path}", value="a device", limit="a file", remedy="check the path")
        if found.st_size > limit_bytes:
            raise ConfigError(f"size of the {what} {path} in bytes", value=found.st_size, limit=limit_bytes)
        file = path.open("rb")
    except OSError as e:
        raise ConfigError(f"cannot read the {what} {path} ({e.strerror})", remedy="check the path") from e
    except ValueError as e:
        # A path with a zero byte, which no file has.
        raise ConfigError(f"path of the {what}", value=str(path), limit="no zero bytes") from e
    with file:
        try:
            yield file
        except OSError as e:
            raise ConfigError(f"cannot read the {what} {path} ({e.strerror})", remedy="check the path") from e


def read_toml(path: Path, what: str, *, remedy: str, limit_bytes: int = 2**31) -> dict[str, Any]:
    """The table of a TOML file. Raises `ConfigError` as `read_file`, with `remedy` for what is no TOML."""
    text = read_file(path, what, limit_bytes=limit_bytes).decode(errors="replace")
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as e:
        raise ConfigError(f"{path} is not TOML ({e})", remedy=remedy) from e


def toml_value(text: str) -> Any:
    """A number, truth value or list as TOML writes it; the text itself, if it is none."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def read_secret(path: Path, what: str) -> bytes:
    """A secret: a file's content without the white space at its end.

    Raises `ConfigError` if it is empty.
    """
    secret = read_file(path, what, limit_bytes=64 * 1024).rstrip()
    if not secret:
        raise ConfigError(f"{what} {path} is empty", remedy="write the secret into it")
    return secret


def within(key: str, value: float, least: float, most: float) -> None:
    """Raises `ConfigError` for a value of `key` outside `least` to `most`, or that is not a number."""
    if not least <= value <= most:
        raise ConfigError(key, value=value, limit=f"{least} to {most}")


def _variables(kind: type, path: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...], bool]]:
    """Every environment variable that `kind` listens to: its name, its keys, whether it holds a string."""
    for key, hint in get_type_hints(kind).items():
        keys = (*path, key)
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            yield from _variables(hint, keys)
        else:
            string = hint is str or str in getattr(hint, "__args__", ())
            yield "_".join(keys), keys, string


def _put(table: dict[str, Any], keys: tuple[str, ...], value: Any, path: Path) -> None:
    for key in keys[:-1]:
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            raise ConfigError(f"{path}: {key}", value=table, limit=f"a table: [{key}]")
    table[keys[-1]] = value
