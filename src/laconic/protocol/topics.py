"""Topic names: one function to build each, one function to read any."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, TypeAlias

from laconic.errors import ConfigError, Malformed

ROOT: Final = "laconic/v1"
TOPIC_LIMIT_BYTES: Final = 128
"""No topic that is built here is longer."""
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_HASH: Final = re.compile(r"[0-9a-f]{16}")
_FIN: Final = re.compile(rf"{ROOT}/d/([A-Za-z0-9_-]{{1,64}})/up/u/([0-9a-f]{{16}})/fin")
_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,5}")


def check_name(name: str, what: str) -> str:
    """`name` itself, if it can stand in a topic: 1 to 64 of letters, digits, `_` and `-`.

    Raises `ConfigError` otherwise.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"name of the {what}",
            value=name,
            limit="1 to 64 of A-Z a-z 0-9 _ -",
            remedy="choose another name",
        )
    return name


# --- device, upwards


def state(device: str) -> str:
    """Retained birth; the last will replaces it by "offline"."""
    return f"{ROOT}/d/{device}/up/state"


def update_chunk(device: str, update: str, index: int) -> str:
    """One chunk of an update frame."""
    return f"{ROOT}/d/{device}/up/u/{update}/{index}"


def update_fin(device: str, update: str) -> str:
    """The promise of an update: its size, hash, weight and base."""
    return f"{ROOT}/d/{device}/up/u/{update}/fin"


def skip(device: str) -> str:
    """Nothing worth sending, and why."""
    return f"{ROOT}/d/{device}/up/skip"


def telemetry(device: str) -> str:
    """Battery, bytes, joules (QoS 0)."""
    return f"{ROOT}/d/{device}/up/tel"


# --- device, downwards


def device_task(device: str) -> str:
    """An offer to one device."""
    return f"{ROOT}/d/{device}/dn/task"


def ack(device: str) -> str:
    """What became of an update."""
    return f"{ROOT}/d/{device}/dn/ack"


def cohort_task(cohort: str) -> str:
    """A retained offer to every device of a cohort."""
    return f"{ROOT}/g/{cohort}/task"


def cohort_model(cohort: str) -> str:
    """A retained offer without work: where a device that has no model yet finds the newest."""
    return f"{ROOT}/g/{cohort}/model"


# --- models


def manifest(model: str) -> str:
    """Retained manifest of a model version."""
    return f"{ROOT}/m/{model}/man"


def blob_chunk(blob: str, index: int) -> str:
    """Retained chunk of a blob (a full model or a delta)."""
    return f"{ROOT}/m/{blob}/{index}"


EVERY_UP: Final = f"{ROOT}/d/+/up/#"
"""What a coordinator subscribes to."""


@dataclass(frozen=True, slots=True)
class State:
    device: str


@dataclass(frozen=True, slots=True)
class UpdateChunk:
    device: str
    update: str
    index: int


@dataclass(frozen=True, slots=True)
class UpdateFin:
    device: str
    update: str


@dataclass(frozen=True, slots=True)
class Skip:
    device: str


@dataclass(frozen=True, slots=True)
class Telemetry:
    device: str


@dataclass(frozen=True, slots=True)
class DeviceTask:
    device: str


@dataclass(frozen=True, slots=True)
class Ack:
    device: str


@dataclass(frozen=True, slots=True)
class CohortTask:
    cohort: str


@dataclass(frozen=True, slots=True)
class CohortModel:
    cohort: str


@dataclass(frozen=True, slots=True)
class ManifestOf:
    model: str


@dataclass(frozen=True, slots=True)
class BlobChunk:
    blob: str
    index: int


Address: TypeAlias = (
    State
    | UpdateChunk
    | UpdateFin
    | Skip
    | Telemetry
    | DeviceTask
    | Ack
    | CohortTask
    | CohortModel
    | ManifestOf
    | BlobChunk
)


def parse(topic: str) -> Address:
    """What a topic addresses.

    Raises `Malformed` for any topic that this module would not build.
    """
    if (fin := _FIN.fullmatch(topic)) is not None:
        # What a coordinator hears most.
        return UpdateFin(fin[1], fin[2])
    parts = topic.split("/")
    match parts:
        case ["laconic", "v1", "d", device, "up", *rest] if _NAME.fullmatch(device):
            match rest:
                case ["state"]:
                    return State(device)
                case ["skip"]:
                    return Skip(device)
                case ["tel"]:
                    return Telemetry(device)
                case ["u", update, index] if _HASH.fullmatch(update) and _INDEX.fullmatch(index):
                    return UpdateChunk(device, update, int(index))
        case ["laconic", "v1", "d", device, "dn", "task"] if _NAME.fullmatch(device):
            return DeviceTask(device)
        case ["laconic", "v1", "d", device, "dn", "ack"] if _NAME.fullmatch(device):
            return Ack(device)
        case ["laconic", "v1", "g", cohort, "task"] if _NAME.fullmatch(cohort):
            return CohortTask(cohort)
        case ["laconic", "v1", "g", cohort, "model"] if _NAME.fullmatch(cohort):
            return CohortModel(cohort)
        case ["laconic", "v1", "m", model, "man"] if _HASH.fullmatch(model):
            return ManifestOf(model)
        case ["laconic", "v1", "m", blob, index] if _HASH.fullmatch(blob) and _INDEX.fullmatch(index):
            return BlobChunk(blob, int(index))
    raise Malformed("topic", value=topic, remedy="see docs/spec/protocol.md for the topics there are")


def sender(topic: str) -> str:
    """The device a topic claims to come from, or "" where it names none: for logs, never for trust."""
    parts = topic.split("/")
    return parts[3][:64] if len(parts) > 4 and parts[2] == "d" else ""
