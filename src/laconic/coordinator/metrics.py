"""Prometheus metrics of a coordinator: what is counted, how it is written, and the port that it is read from.

Text exposition format 0.0.4 (prometheus.io/docs/instrumenting/exposition_formats). Counters are of this life
of the process; gauges are read when they are asked for.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from laconic import __version__
from laconic.coordinator.course import Course
from laconic.coordinator.rounds import Phase
from laconic.node import Computed, Event, Note
from laconic.transport.link import WireBytes

COUNTER, GAUGE = "counter", "gauge"

Labels = tuple[str, ...]
Samples = Mapping[Labels, float]


@dataclass(frozen=True, slots=True)
class Metric:
    """One family of time series."""

    name: str
    kind: str
    labels: Labels
    help: str


METRICS: Final = (
    Metric("laconic_info", GAUGE, ("version",), "1, with the release that runs"),
    Metric("laconic_connected", GAUGE, (), "1 while the broker has accepted the connection"),
    Metric("laconic_round", GAUGE, ("campaign",), "Number of the round that is open or comes next"),
    Metric("laconic_phase", GAUGE, ("campaign", "phase"), "1 for the phase that the campaign is in"),
    Metric("laconic_round_age_seconds", GAUGE, ("campaign",), "Age of the open round; 0 while none is open"),
    Metric("laconic_rounds_total", COUNTER, ("campaign",), "Rounds that are over"),
    Metric("laconic_version", GAUGE, ("campaign",), "Newest model version"),
    Metric("laconic_loss", GAUGE, ("campaign",), "Loss of the newest version on held-out data"),
    Metric(
        "laconic_accuracy", GAUGE, ("campaign",), "Accuracy of the newest version on held-out data, 0 to 1"
    ),
    Metric(
        "laconic_updates_total",
        COUNTER,
        ("campaign", "fate"),
        "Updates: committed, late, rejected, duplicate",
    ),
    Metric("laconic_update_bytes_total", COUNTER, ("campaign",), "Bytes of the frames of committed updates"),
    Metric("laconic_skips_total", COUNTER, ("campaign", "why"), "Devices that stayed silent, by reason"),
    Metric("laconic_dropped_total", COUNTER, (), "Messages that were not what their topic promises"),
    Metric("laconic_devices", GAUGE, ("campaign", "presence"), "Devices in the ledger: online, offline"),
    Metric(
        "laconic_devices_spent_bytes",
        GAUGE,
        ("campaign", "direction"),
        "Bytes over the devices' lives, as told",
    ),
    Metric(
        "laconic_devices_spent_joules",
        GAUGE,
        ("campaign", "use"),
        "Joules over the devices' lives: compute, radio",
    ),
    Metric(
        "laconic_socket_bytes_total", COUNTER, ("direction",), "Bytes over the coordinator's own connection"
    ),
    Metric("laconic_queue_messages", GAUGE, (), "Messages that have arrived and are not handled yet"),
    Metric("laconic_events_total", COUNTER, ("event",), "Events handled, by kind"),
    Metric(
        "laconic_event_seconds_total", COUNTER, ("event",), "Seconds in handling them; folding is in received"
    ),
    Metric(
        "laconic_versions_computed_total", COUNTER, (), "Versions computed: aggregated, encoded, evaluated"
    ),
    Metric("laconic_version_seconds_total", COUNTER, (), "Seconds in computing them"),
    Metric("laconic_store_bytes", GAUGE, (), "Size of the store on disk, with its write-ahead log"),
    Metric("laconic_store_free_bytes", GAUGE, (), "Free space on its disk"),
)
"""Every metric there is."""


class Counters:
    """What has happened in this life."""

    def __init__(self) -> None:
        self._counts: dict[str, dict[Labels, float]] = {m.name: {} for m in METRICS if m.kind == COUNTER}

    def noted(self, note: Note) -> None:
        """Count what the engine tells."""
        f = note.fields
        campaign = str(f.get("campaign", ""))
        match note.kind:
            case "closed":
                self._add("laconic_rounds_total", campaign)
            case "committed":
                self._add("laconic_updates_total", campaign, "late" if f["staleness"] else "committed")
                self._add("laconic_update_bytes_total", campaign, by=float(str(f["frame_bytes"])))
            case "rejected" | "duplicate":
                self._add("laconic_updates_total", campaign, note.kind)
            case "skipped":
                why = str(f["why"])
                # Devices say why; a label must not grow without bound.
                self._add("laconic_skips_total", campaign, why if why in _REASONS else "other")
            case "dropped":
                self._add("laconic_dropped_total")

    def handled(self, event: Event, seconds: float) -> None:
        """Count an event and the time that it took."""
        kind = type(event).__name__.lower()
        self._add("laconic_events_total", kind)
        self._add("laconic_event_seconds_total", kind, by=seconds)
        if isinstance(event, Computed):
            self._add("laconic_versions_computed_total")
            self._add("laconic_version_seconds_total", by=event.seconds)

    def samples(self) -> dict[str, Samples]:
        """By metric; what has no labels begins at 0."""
        unlabelled = {m.name for m in METRICS if not m.labels}
        return {
            name: found or ({(): 0.0} if name in unlabelled else {}) for name, found in self._counts.items()
        }

    def _add(self, name: str, *labels: str, by: float = 1.0) -> None:
        found = self._counts[name]
        found[labels] = found.get(labels, 0.0) + by


_REASONS: Final = frozenset(
    {
        *("gate", "battery", "charging", "metered", "quiet", "budget", "busy", "hot", "throttled"),
        *("data", "model", "failed", "memory"),
    }
)


def gauges(courses: Mapping[str, Course], now: float) -> dict[str, Samples]:
    """How campaigns and devices stand."""
    found: dict[str, dict[Labels, float]] = {m.name: {} for m in METRICS if m.kind == GAUGE}
    found["laconic_info"][(__version__,)] = 1.0
    for name, c in courses.items():
        newest = None if c.registry.empty else c.registry.current
        found["laconic_round"][(name,)] = c.round.number
        found["laconic_round_age_seconds"][(name,)] = (
            max(0.0, now - c.progress.opened_at) if c.progress.open else 0.0
        )
        for phase in Phase:
            found["laconic_phase"][name, phase.value] = float(c.round.phase is phase)
        for presence in ("online", "offline"):
            found["laconic_devices"][name, presence] = 0.0
        if newest is not None:
            found["laconic_version"][(name,)] = newest.version
            for key, value in (("laconic_loss", newest.loss), ("laconic_accuracy", newest.accuracy)):
                if value is not None:
                    found[key][(name,)] = value
    for r in next(iter(courses.values())).ledger if courses else ():
        if r.cohort in courses:
            for key, label, amount in (
                ("laconic_devices", "online" if r.online else "offline", 1.0),
                ("laconic_devices_spent_bytes", "up", r.bytes_up),
                ("laconic_devices_spent_bytes", "down", r.bytes_down),
                ("laconic_devices_spent_joules", "compute", r.joules_compute),
                ("laconic_devices_spent_joules", "radio", r.joules_radio),
            ):
                series = found[key]
                series[r.cohort, label] = series.get((r.cohort, label), 0.0) + amount
    return dict(found)


def process_samples(wire: WireBytes, *, connected: bool, waiting: int, store: Path) -> dict[str, Samples]:
    """What the process itself knows: its connection, its queue, its store."""
    size = sum(p.stat().st_size for p in (store, store.with_name(f"{store.name}-wal")) if p.exists())
    return {
        "laconic_connected": {(): float(connected)},
        "laconic_queue_messages": {(): waiting},
        "laconic_socket_bytes_total": {("up",): wire.up, ("down",): wire.down},
        "laconic_store_bytes": {(): size},
        "laconic_store_free_bytes": {(): shutil.disk_usage(store.parent).free},
    }


def exposition(samples: Mapping[str, Samples]) -> str:
    """All metrics as text."""
    return "".join(f"{line}\n" for metric in METRICS for line in _lines(metric, samples.get(metric.name, {})))


def _lines(metric: Metric, samples: Samples) -> Iterator[str]:
    yield f"# HELP {metric.name} {metric.help}"
    yield f"# TYPE {metric.name} {metric.kind}"
    for values, amount in sorted(samples.items()):
        named = ",".join(f'{k}="{_escaped(v)}"' for k, v in zip(metric.labels, values, strict=True))
        yield f"{metric.name}{{{named}}} {_number(amount)}" if named else f"{metric.name} {_number(amount)}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    if math.isfinite(value):
        return repr(value)
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
