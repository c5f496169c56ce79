"""Readers that a configuration names: an entry point of the group `laconic.readers`, or a dotted name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Final

from laconic.edge_sdk.readers import ina219
from laconic.edge_sdk.readers.sample import Reader
from laconic.errors import ConfigError

GROUP: Final = "laconic.readers"
_OWN: Final[Mapping[str, Callable[[Mapping[str, object]], Reader]]] = {"ina219": ina219.make}


def load(name: str, options: Mapping[str, object]) -> Reader:
    """The reader called `name`, made with `options`.

    `name`: one of ours (`ina219`), an entry point, or `package.module:function`; what it names is called with
    the options as a mapping and gives a `Reader`. Its code runs with all rights of this process.

    Raises `ConfigError` if there is none of that name, it cannot be imported or made, or is no reader.
    """
    try:
        reader: Reader = _factory(name)(options)
    except ConfigError:
        raise
    except Exception as e:
        raise ConfigError(f"the reader {name} cannot be made ({type(e).__name__}: {e})") from e
    if not (
        callable(getattr(reader, "read", None))
        and isinstance(getattr(reader, "source", None), str)
        and isinstance(getattr(reader, "period_s", None), (int, float))
        and reader.period_s > 0
    ):
        raise ConfigError(
            f"the reader {name}",
            value=type(reader).__name__,
            limit="an object with read(), source and period_s above 0",
            remedy="see docs/power.md",
        )
    return reader


def _factory(name: str) -> Callable[[Mapping[str, object]], Any]:
    if name in _OWN:
        return _OWN[name]
    # Takes 10 ms and 2 MB to load, and few devices have a reader of their own.
    from importlib.metadata import entry_points

    for point in entry_points(group=GROUP, name=name):
        return _callable(point.load(), name)
    module, colon, attribute = name.partition(":")
    if not colon:
        known = sorted({*_OWN, *entry_points(group=GROUP).names})
        raise ConfigError(
            "power.reader", value=name, limit=", ".join(known), remedy="or package.module:function"
        )
    return _callable(getattr(import_module(module), attribute), name)


def _callable(found: object, name: str) -> Callable[[Mapping[str, object]], Any]:
    if not callable(found):
        raise ConfigError(f"the reader {name}", value=type(found).__name__, limit="a function")
    return found
