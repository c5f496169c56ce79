"""Listens to what nodes say while a world runs, and writes down what it cost at that moment."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from laconic.coordinator.engine import CoordinatorEngine
from laconic.coordinator.selection import jain
from laconic.device_sim.body import Body
from laconic.device_sim.energy import Part, shares, spent_and_worked
from laconic.device_sim.host import Host
from laconic.device_sim.scenario.losses import Losses
from laconic.device_sim.scenario.results import ClassRow, DeviceRow, RoundRow, StepRow, Totals, finite
from laconic.device_sim.scenario.stepping import Steps
from laconic.device_sim.signals import HOUR_S
from laconic.device_sim.world import World
from laconic.errors import LocalProtocolError
from laconic.node import Note
from laconic.schema import Vector

COORDINATOR = "coordinator"
_OUTCOMES = ("useful", "silent", "wasted")
_BEGINS = ("training", "training on", "measuring")
_STEPS = ("model", *_BEGINS, "sending", "skipped", "failed", "rejected")
_FAILURES = 20
"""Different errors that are told apart."""
_FOUND = re.compile(r", found .*?(?=, allowed |; |$)", re.DOTALL)
"""The value in an error, of which each failure has its own."""


@dataclass
class _Diary:
    """What has become of one device's work."""

    kind: str
    samples: int
    body: Body
    host: Host
    begun_j: float | None = None
    """What it had spent on work when the work that goes on was begun."""
    trained: int = 0
    committed: int = 0
    failed: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    outcome_j: dict[str, float] = field(default_factory=lambda: dict.fromkeys(_OUTCOMES, 0.0))

    @property
    def work_j(self) -> float:
        """Computing, and the radio but for its idling."""
        return self.body.ledger[Part.COMPUTE] + self.body.ledger.radio

    def begin(self) -> None:
        self.end("wasted")
        self.begun_j = self.work_j
        self.trained += 1

    def end(self, outcome: str) -> None:
        if self.begun_j is not None:
            self.outcome_j[outcome] += self.work_j - self.begun_j
            self.begun_j = None


def federated(world: World) -> Vector:
    """The weights of the newest version. Raises `LocalProtocolError` before there is one."""
    node = world.node(COORDINATOR)
    if not isinstance(node, CoordinatorEngine) or not node.courses:
        raise LocalProtocolError("a world's model before its coordinator has begun")
    (course,) = node.courses.values()
    return course.registry.weights


class _Sums(NamedTuple):
    """Of the devices of a class, at one moment."""

    on: int
    charges: list[float]
    bytes_up: int
    bytes_down: int
    joules: float
    work_j: float


def _sums(diaries: Sequence[_Diary]) -> _Sums:
    """In one pass: whole fleets are summed up at every version."""
    on = up = down = 0
    charges = []
    for d in diaries:
        body, host = d.body, d.host
        charge = body.charge
        on += body.on
        up += host.bytes_up
        down += host.bytes_down
        if charge is not None:
            charges.append(charge)
    joules, work_j = spent_and_worked(d.body.ledger for d in diaries)
    return _Sums(on, charges, up, down, joules, work_j)


class Recorder:
    """Reads a world's notes as they come, and takes them away."""

    def __init__(
        self, world: World, kinds: Mapping[str, tuple[str, int]], losses: Losses | None = None
    ) -> None:
        """`kinds`: class and number of samples of each device, all of which are in the world."""
        self._world, self._start_s, self._losses = world, world.now, losses
        self._tasks: dict[int, str] = {}
        self._diaries: dict[str, _Diary] = {}
        for name, (kind, samples) in kinds.items():
            host = world.host(name)
            assert host.body is not None
            self._diaries[name] = _Diary(kind, samples, host.body, host)
        self._of_class: dict[str, list[_Diary]] = {}
        for diary in self._diaries.values():
            self._of_class.setdefault(diary.kind, []).append(diary)
        self.rounds: list[RoundRow] = []
        self.classes: list[ClassRow] = []
        self.ends: dict[int, float] = {}
        """Hours at which each round was over, whether it made a version or not."""
        self._line = Steps()
        self._opened: dict[str, Any] = {}
        self._opened_s = 0.0
        self._rounds_opened = 0
        self._failures: Counter[str] = Counter()

    @property
    def steps(self) -> list[StepRow]:
        """What happened in some of the rounds."""
        return self._line.rows

    @property
    def held(self) -> int:
        """How many rounds there have been: those of which nothing came, too."""
        return max([*self.ends, *(r.round for r in self.rounds[-1:])], default=0)

    @property
    def hours(self) -> float:
        """Since the run began."""
        return (self._world.now - self._start_s) / HOUR_S

    def look(self) -> bool:
        """Take the notes that have come since; whether there is a new row of a round."""
        rows = len(self.rounds)
        for time_s, host, note in self._world.notes:
            if host == COORDINATOR:
                self._coordinator(time_s, note)
            else:
                self._device(time_s, host, note)
        self._world.notes.clear()
        return len(self.rounds) > rows

    # --- notes

    def _coordinator(self, time_s: float, note: Note) -> None:
        f: Mapping[str, Any] = note.fields
        match note.kind:
            case "opened":
                self._opened, self._opened_s = dict(f), time_s
                self._rounds_opened += 1
                self._line.open(f["round"], time_s)
                self._tasks[f["round"]] = f["task"]
            case "committed":
                diary = self._diaries[f["device"]]
                diary.body.advance(time_s)
                diary.committed += 1
                diary.end("useful")
                self._line.add(time_s, f["device"], "committed")
            case "closed":
                self._line.close()
                self.ends[f["round"]] = self.hours
                # A version is made, and said to be, before its round is.
                if self.rounds and self.rounds[-1].round == f["round"]:
                    self.rounds[-1] = msgspec.structs.replace(
                        self.rounds[-1], late=f["late"], absent=f["absent"]
                    )
            case "version" | "refused":
                self._row(time_s, f)
                if self._losses is not None and note.kind == "version":
                    self._losses.version(f["round"], federated(self._world))

    def _device(self, time_s: float, name: str, note: Note) -> None:
        diary = self._diaries[name]
        if note.kind in _STEPS:
            diary.body.advance(time_s)
            self._line.add(time_s, name, note.kind)
        if self._losses is not None and (note.kind == "sending" or note.fields.get("why") == "gate"):
            number: Any = note.fields["round"]
            self._losses.trained(name, number, self._tasks.get(number, ""))
        if note.kind in _BEGINS:
            diary.begin()
        elif note.kind == "skipped":
            why = str(note.fields["why"])
            diary.skipped[why] += 1
            diary.end({"gate": "silent", "measured": "useful"}.get(why, "wasted"))
        elif note.kind in ("failed", "rejected"):
            diary.failed += 1
            diary.end("wasted")
            why = _FOUND.sub("", str(note.fields["why"]))
            self._failures[why if why in self._failures or len(self._failures) < _FAILURES else "other"] += 1

    def _row(self, time_s: float, f: Mapping[str, Any]) -> None:
        self._world.settle()
        number = int(f["round"])
        of_class = {kind: _sums(diaries) for kind, diaries in self._of_class.items()}
        everybody = of_class.values()
        self.rounds.append(
            RoundRow(
                round=number,
                version=f.get("version"),
                hours=self.hours,
                opened_hours=(self._opened_s - self._start_s) / HOUR_S if self._opened else 0.0,
                accuracy=f["accuracy"],
                loss=finite(f["loss"]),
                asked=self._opened.get("asked", 0),
                updates=f["updates"],
                late=0,
                silent=f.get("silent", 0),
                absent=0,
                fairness=self._opened.get("fairness", 1.0),
                bytes_up=sum(s.bytes_up for s in everybody),
                bytes_down=sum(s.bytes_down for s in everybody),
                joules=sum(s.joules for s in everybody),
                work_joules=sum(s.work_j for s in everybody),
            )
        )
        for kind, s in of_class.items():
            charges = s.charges
            self.classes.append(
                ClassRow(
                    round=number,
                    hours=self.hours,
                    name=kind,
                    devices=len(self._of_class[kind]),
                    on=s.on,
                    charge_least=min(charges, default=None),
                    charge_mean=sum(charges) / len(charges) if charges else None,
                    charge_most=max(charges, default=None),
                    bytes_up=s.bytes_up,
                    bytes_down=s.bytes_down,
                    joules=s.joules,
                )
            )

    # --- the end

    def devices(self) -> list[DeviceRow]:
        """Every device, up to now; work that goes on is wasted."""
        self._world.settle()
        return [self._device_row(name, diary) for name, diary in self._diaries.items()]

    def _device_row(self, name: str, d: _Diary) -> DeviceRow:
        d.end("wasted")
        ledger, cell, host = d.body.ledger, d.body.build.cell, d.host
        return DeviceRow(
            name=name,
            kind=d.kind,
            samples=d.samples,
            trained=d.trained,
            committed=d.committed,
            skipped=dict(sorted(d.skipped.items())),
            failed=d.failed,
            lives=host.life + host.runs,
            jobs=host.jobs,
            bytes_up=host.bytes_up,
            bytes_down=host.bytes_down,
            ip_bytes_up=host.ip_bytes_up,
            ip_bytes_down=host.ip_bytes_down,
            idle_j=ledger[Part.IDLE],
            user_j=ledger[Part.USER],
            compute_j=ledger[Part.COMPUTE],
            promotion_j=ledger[Part.PROMOTION],
            active_j=ledger[Part.ACTIVE],
            tail_j=ledger[Part.TAIL],
            radio_idle_j=ledger[Part.RADIO_IDLE],
            self_discharge_j=ledger[Part.SELF_DISCHARGE],
            charged_j=ledger[Part.CHARGED],
            battery_start_j=d.body.start_j,
            battery_end_j=d.body.energy_j,
            battery_j=cell.capacity_j if cell else None,
            on=d.body.on,
            useful_j=d.outcome_j["useful"],
            silent_j=d.outcome_j["silent"],
            wasted_j=d.outcome_j["wasted"],
            upkeep_j=d.work_j - sum(d.outcome_j.values()),
        )

    def totals(
        self, devices: Sequence[DeviceRow], *, ended: str, parameters: int, held_out: int, way: str
    ) -> Totals:
        """The sums over all devices."""
        kept = [r for r in self.rounds if r.version is not None]
        skipped: Counter[str] = Counter()
        for d in devices:
            skipped.update(d.skipped)
        commits = [d.committed for d in devices]
        ledgers = {name: d.body.ledger for name, d in self._diaries.items()}
        origins = {name: d.body.build.origins or {} for name, d in self._diaries.items()}
        by_part = {p: sum(ledger[p] for ledger in ledgers.values()) for p in Part}
        accuracies = [r.accuracy for r in kept if r.accuracy is not None]
        return Totals(
            ended=ended,
            hours=self.hours,
            rounds=self.held,
            accuracy=accuracies[-1] if accuracies else None,
            best_accuracy=max(accuracies, default=None),
            loss=kept[-1].loss if kept else None,
            devices=len(devices),
            parameters=parameters,
            held_out=held_out,
            way=way,
            bytes_up=sum(d.bytes_up for d in devices),
            bytes_down=sum(d.bytes_down for d in devices),
            ip_bytes_up=sum(d.ip_bytes_up for d in devices),
            ip_bytes_down=sum(d.ip_bytes_down for d in devices),
            joules=sum(by_part[p] for p in Part if p is not Part.CHARGED),
            joules_by_part={p.name.lower(): by_part[p] for p in Part if p is not Part.CHARGED},
            joules_by_origin={o.value: share for o, share in shares(ledgers, origins).items()},
            charged_j=by_part[Part.CHARGED],
            useful_j=sum(d.useful_j for d in devices),
            silent_j=sum(d.silent_j for d in devices),
            wasted_j=sum(d.wasted_j for d in devices),
            upkeep_j=sum(d.upkeep_j for d in devices),
            jain=jain(commits),
            never=commits.count(0),
            committed=sum(commits),
            skipped=dict(sorted(skipped.items())),
            imbalance=max(d.body.imbalance() for d in self._diaries.values()),
            events=self._world.events,
            opened=self._rounds_opened,
            versions=sum(r.round > 0 for r in kept),
            failures=dict(sorted(self._failures.items())),
        )
