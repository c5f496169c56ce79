"""What becomes of versions once they are computed: measured, judged, on trial, taken back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from laconic.coordinator import restoring
from laconic.coordinator.advance import Score, Version
from laconic.coordinator.canary import Canary
from laconic.coordinator.evaluation import Evaluation, Gathering, Report, read_evaluation
from laconic.coordinator.records import ModelRecord, Status
from laconic.coordinator.registry import Entries, Registry
from laconic.coordinator.verdict import ModelSettings, better, worse_by_reports, worse_by_score
from laconic.coordinator.way_back import WayBack
from laconic.node import StoreView


class Request(msgspec.Struct, frozen=True):
    """A rollback that has been decided on, and is not done."""

    target: int
    why: str
    again: bool = False
    """No round ends by it: the one that was to come comes next."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a judgement has found."""

    worse: int = 0
    """Versions in a row that are worse, with the one that was judged; 0 if it is not."""
    why: str = ""
    target: int | None = None
    """The version to go back to, if there have been enough of them."""


FINE = Finding()


class Custody:
    """Judges the versions of a registry by what is known of them, and remembers trials and rollbacks."""

    def __init__(self, settings: ModelSettings, registry: Registry, store: StoreView) -> None:
        """Raises `StorageError` for records that cannot be read."""
        self._settings, self._registry, self._store = settings, registry, store
        self.request: Request | None = restoring.record(store, "rollback", Request)
        self.canary: Canary | None = restoring.record(store, "canary", Canary)
        self._version = -1
        self._gathering = Gathering()
        if not registry.empty:
            self._begin(registry.current.version)

    # --- reports

    @property
    def reports(self) -> int:
        """How many devices have measured the newest version."""
        return len(self._gathering)

    def heard(self, device: str, samples: int, loss: float | None, accuracy: float | None) -> None:
        """A device has measured the newest version, before it trained on it."""
        self._gathering.add(Report(device, samples, loss, accuracy))

    def settle(self) -> Entries:
        """What has been reported, to be saved; then begin on the newest version, if there is a newer one."""
        entries: Entries = {}
        if self._gathering.changed and self._version in self._registry:
            evaluation = self._gathering.evaluation()
            entries |= self._registry.note(self._version, fleet=evaluation.score())
            if self._settings.judges:
                entries[_key(self._version)] = msgspec.msgpack.encode(evaluation)
            self._gathering.changed = False
        newest = self._registry.current.version
        if newest != self._version:
            for key in self._store.keys("evaluation/"):
                if int(key.rsplit("/", 1)[1]) < newest - self._settings.window:
                    entries[key] = None
            self._begin(newest)
        return entries

    def _begin(self, version: int) -> None:
        self._version, self._gathering = version, Gathering(self._evaluation(version))

    def _evaluation(self, version: int) -> Evaluation:
        return read_evaluation(_key(version), self._store.get(_key(version)))

    # --- judgement

    def judge_candidate(self, computed: Version) -> Finding:
        """Judge what is to follow the newest version, by held-out data."""
        if not self._settings.judges or computed.score is None:
            return FINE
        newest, score = self._registry.current, computed.score
        known = [(r, r.loss) for r in self._before(newest.version + 1)]
        references = [(r, Score(loss, r.accuracy)) for r, loss in known if loss is not None]
        if not references:
            return FINE
        reference, before = max(references, key=lambda r: better(self._settings, (r[1].loss, r[1].accuracy)))
        why = worse_by_score(self._settings, score, before)
        return self._finding(why, newest.worse + 1, parent=newest, reference=reference)

    def judge_newest(self) -> Finding:
        """Judge the newest version by the reports of the devices."""
        if not self._settings.judges or not len(self._gathering):
            return FINE
        newest, found = self._registry.current, self._gathering.evaluation()
        references = [r for r in self._before(newest.version) if r.fleet is not None]
        if not references:
            return FINE
        reference = max(references, key=lambda r: better(self._settings, _medians(r)))
        why = worse_by_reports(self._settings, found, self._evaluation(reference.version))
        parent = self._registry[newest.version - 1]
        return self._finding(why, max(newest.worse, parent.worse + 1), parent=parent, reference=reference)

    def _finding(self, why: str, row: int, *, parent: ModelRecord, reference: ModelRecord) -> Finding:
        """Back to the parent, which loses the least, unless that is worse itself."""
        if not why:
            return FINE
        target = reference if parent.worse else parent
        why = f"{why} (version {reference.version})"
        return Finding(row, why, target.version if row >= self._settings.patience else None)

    def _before(self, version: int) -> Iterator[ModelRecord]:
        """The versions that `version` is compared with, the newest first.

        None before a rollback: the versions of before it were measured on the data of then. If data, not the
        model, has become worse, that costs one rollback and not a row of them.
        """
        registry, settings = self._registry, self._settings
        if version in registry and registry[version].rollback_of is not None:
            return
        oldest = version - (1 if settings.compare_with == "parent" else settings.window)
        for v in range(version - 1, max(oldest, 0) - 1, -1):
            if v not in registry:
                return
            record = registry[v]
            if record.status is Status.PUBLISHED and registry.keeps(v):
                yield record
            if record.rollback_of is not None:
                return

    # --- trials and rollbacks

    def ask(self, target: int, why: str, *, again: bool) -> Entries:
        """Decide on a rollback; it ends a trial."""
        self.request, self.canary = Request(target, why, again), None
        return {"rollback": msgspec.msgpack.encode(self.request), "canary": None}

    def try_out(self, canary: Canary | None) -> Entries:
        """Begin a trial, or ask more; None: it is over."""
        self.canary = canary
        return {"canary": None if canary is None else msgspec.msgpack.encode(canary)}

    def go_back(self, back: WayBack, now: float, *, round_number: int, settings: str) -> Entries:
        """Make the steps of a way back the newest versions, the last with the number that is offered.

        The memories of server optimizer and echo belong to the version that is taken back.
        """
        registry, entries = self._registry, self.settle()
        left = registry.current.version
        for step in back.steps:
            last = step is back.steps[-1]
            entries |= registry.add(
                step,
                now,
                round_number=round_number,
                updates=0,
                silent=0,
                samples=0,
                status=Status.PUBLISHED if last else Status.PASSAGE,
                rollback_of=back.target if last else None,
                why=back.why,
                settings=settings,
            )
        for version in range(back.target + 1, left + 1):
            if version in registry and registry[version].status is not Status.PASSAGE:
                why = registry[version].why or (back.why if version == left else "")
                entries |= registry.note(version, status=Status.TAKEN_BACK, why=why)
        self.request = self.canary = None
        return {
            **entries,
            **self.settle(),
            "server-optimizer": None,
            "server-echo": None,
            "rollback": None,
            "canary": None,
        }


def _medians(record: ModelRecord) -> tuple[float | None, float | None]:
    fleet = record.fleet
    return (None, None) if fleet is None else (fleet.loss_median, fleet.accuracy_median)


def _key(version: int) -> str:
    return f"evaluation/{version:08d}"
