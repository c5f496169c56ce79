"""Whether the network is metered, as NetworkManager knows or guesses it, without a D-Bus library.

NMMetered (libnm, nm-dbus-interface.h): 0 unknown, 1 yes, 2 no, 3 guessed yes, 4 guessed no. Its documentation
asks programs to treat 3 like 1. Whichever of `busctl`, `gdbus` and `nmcli` answers is asked from then on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Final

from laconic.edge_sdk.readers import command
from laconic.edge_sdk.readers.command import Run
from laconic.edge_sdk.readers.sample import Sample

_NAME: Final = "org.freedesktop.NetworkManager"
_PATH: Final = "/org/freedesktop/NetworkManager"
_METERED: Final = {1: True, 2: False, 3: True, 4: False}
_GET: Final = "org.freedesktop.DBus.Properties.Get"


def of_busctl(output: str) -> bool | None:
    """What `{"type":"u","data":4}` means, or `u 4` of a busctl without JSON."""
    try:
        told = json.loads(output)
    except (ValueError, RecursionError):
        found = re.fullmatch(r"\s*u (\d{1,3})\s*", output)
        return _METERED.get(int(found[1])) if found else None
    value = told.get("data") if isinstance(told, dict) else None
    return _METERED.get(value) if isinstance(value, int) and not isinstance(value, bool) else None


def of_gdbus(output: str) -> bool | None:
    """What `(<uint32 4>,)` means."""
    found = re.fullmatch(r"\s*\(<uint32 (\d{1,3})>,\)\s*", output)
    return _METERED.get(int(found[1])) if found else None


def of_nmcli(output: str) -> bool | None:
    """What the states of all devices mean: metered if any that is connected is; None without any."""
    answers: set[bool] = set()
    connected = False
    for line in output.splitlines():
        key, _, value = line.strip().partition(":")
        if key == "GENERAL.STATE":
            # "100 (connected (externally))" is the loopback device, through which nobody pays.
            connected = value.startswith("100") and "externally" not in value
        elif key == "GENERAL.METERED" and connected:
            word = value.partition(" ")[0].lower()
            if word in ("yes", "no"):
                answers.add(word == "yes")
    return None if not answers else True in answers


_WAYS: Final[tuple[tuple[Sequence[str], Callable[[str], bool | None]], ...]] = (
    (("busctl", "--system", "--json=short", "get-property", _NAME, _PATH, _NAME, "Metered"), of_busctl),
    (("busctl", "--system", "get-property", _NAME, _PATH, _NAME, "Metered"), of_busctl),
    (
        (
            *("gdbus", "call", "--system", "--dest", _NAME, "--object-path", _PATH),
            *("--method", _GET, _NAME, "Metered"),
        ),
        of_gdbus,
    ),
    (("nmcli", "-t", "-f", "GENERAL.STATE,GENERAL.METERED", "device", "show"), of_nmcli),
)


class NetworkManager:
    """Metered or not, by NetworkManager."""

    period_s = 20.0

    def __init__(self, run: Run = command.run) -> None:
        self._run = run
        self._way: int | None = None

    @property
    def source(self) -> str:
        program = "busctl, gdbus or nmcli" if self._way is None else _WAYS[self._way][0][0]
        return f"NetworkManager's Metered ({program})"

    def read(self) -> Sample:
        for i, (words, meaning) in enumerate(_WAYS):
            if self._way not in (None, i):
                continue
            output = self._run(words)
            if output is not None:
                # It has answered, even if the answer is that it does not know.
                self._way = i
                return Sample(metered=meaning(output))
        self._way = None
        return Sample()
