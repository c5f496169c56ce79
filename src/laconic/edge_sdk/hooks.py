"""What a program is told of its device, in place of the notes that say all of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from laconic.node import Note
from laconic.transport.process import level_of

_log = logging.getLogger("laconic.device")
_LEVELS = logging.getLevelNamesMapping()


@dataclass(frozen=True, slots=True)
class NewModel:
    """A newer model is whole on the device: `predict` uses it from now on."""

    version: int
    name: str
    """Short hash of its weights."""


@dataclass(frozen=True, slots=True)
class RoundDone:
    """What this device sent has been judged by the coordinator."""

    round: int
    update_bytes: int
    committed: bool
    why: str = ""
    """Why it was not taken; what was learnt then goes along with the next update."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """Nothing was sent in a round."""

    round: int
    why: str
    """gate, battery, charging, metered, quiet, busy, hot, throttled, budget, data, model or failed; measured
    when the coordinator wanted no more than to know how good a version is here."""


class Hooks:
    """Calls the program's functions for the notes that they are about, on the device's own thread."""

    def __init__(
        self,
        device: str,
        on_model: Callable[[NewModel], None] | None,
        on_round: Callable[[RoundDone], None] | None,
        on_skip: Callable[[Skipped], None] | None,
        on_note: Callable[[Note, float], None] | None,
    ) -> None:
        self._device = device
        self._on_model, self._on_round, self._on_skip, self._on_note = on_model, on_round, on_skip, on_note

    def hear(self, note: Note, now: float) -> None:
        """Tell the program. What its functions raise is logged: the device must not end by it."""
        try:
            if self._on_note is not None:
                self._on_note(note, now)
            else:
                said = " ".join(f"{name}={value}" for name, value in note.fields.items())
                _log.log(
                    _LEVELS[level_of(note).upper()], "%s: %s", self._device, f"{note.kind} {said}".strip()
                )
            self._tell(note)
        except (Exception, asyncio.CancelledError):  # the program's own code
            _log.exception("a hook of the device failed at the note %r", note.kind)

    def _tell(self, note: Note) -> None:
        fields: dict[str, object] = dict(note.fields)
        match note.kind:
            case "model" if self._on_model is not None:
                self._on_model(NewModel(_number(fields["version"]), str(fields["model"])))
            case "committed" | "rejected" if self._on_round is not None:
                sent = _number(fields["round"]), _number(fields["bytes"])
                why = str(fields.get("why", ""))
                self._on_round(RoundDone(*sent, committed=note.kind == "committed", why=why))
            case "skipped" if self._on_skip is not None:
                self._on_skip(Skipped(_number(fields["round"]), str(fields["why"])))


def _number(value: object) -> int:
    assert isinstance(value, int)
    return value
