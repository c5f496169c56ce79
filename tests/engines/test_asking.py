"""Whole fleets whose devices are chosen by name: who is asked, what survives a crash, who never waits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from chronicle import LoggedWorld, logged, settle, verify
from fleet import Fleet

from laconic.compression import PRESETS
from laconic.coordinator.asking import Asking
from laconic.coordinator.campaign import Campaign, Progress
from laconic.coordinator.ledger import DeviceRecord
from laconic.coordinator.selection import (
    Candidate,
    Context,
    SelectionSection,
    SelectionSettings,
    selection_of,
)
from laconic.errors import ConfigError
from laconic.node import Save
from laconic.protocol import topics
from often import points

STRATEGIES = ("uniform", "oort", "stratified", "test_asking:the_first", "test_asking:failing")


def the_first(devices: Sequence[Candidate], count: int, context: Context) -> list[str]:
    return [c.name for c in devices][:count]


def nobody(devices: Sequence[Candidate], count: int, context: Context) -> list[str]:
    return []


def failing(devices: Sequence[Candidate], count: int, context: Context) -> list[str]:
    raise RuntimeError("never mind")


@dataclass
class Choosing(Fleet):
    """A fleet with a strategy."""

    targeted: bool = True
    selection: SelectionSettings = field(default_factory=SelectionSettings)

    def campaign(self) -> Campaign:
        return replace(super().campaign(), selection=self.selection)


def choosing(strategy: str, waiting: int = 4, **more: Any) -> Choosing:
    chosen_by = selection_of(SelectionSection(strategy=strategy, most_rounds_waiting=waiting))
    usual: Mapping[str, Any] = {
        "devices": 6,
        "rounds": 12,
        "target_reports": 2,
        "over_selection": 1.0,
        "deadline_s": 20.0,
        "codec": PRESETS["dense8"],
    }
    return Choosing(**{**usual, **more}, selection=chosen_by)


def asked_by_round(world: LoggedWorld) -> dict[int, list[str]]:
    """Who was expected when each round opened, as it was saved."""
    found: dict[int, list[str]] = {}
    for host, entries in world.chronicle.saves:
        saved = entries.get("c/default/progress") if host == "coordinator" else None
        if saved is not None and (p := msgspec.msgpack.decode(saved, type=Progress)).open:
            found[p.number] = p.expected
    return found


def record_of(world: LoggedWorld, name: str) -> DeviceRecord:
    return msgspec.msgpack.decode(world.stores["coordinator"].get(f"device/{name}") or b"", type=DeviceRecord)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_round_asks_as_many_as_it_is_to_and_nobody_waits_too_long(strategy: str) -> None:
    fleet = choosing(strategy)
    world = logged(fleet)
    settle(fleet, world)
    assert verify(fleet, world, everyone=False) == 24
    asked = asked_by_round(world)
    assert {len(names) for names in asked.values()} == {2}
    for i in range(6):
        rounds = [0, *(n for n, names in asked.items() if f"d{i}" in names), 13]
        # Six devices, two a round: 4 + 5 // 2 rounds in between.
        assert max(b - a - 1 for a, b in pairwise(rounds)) <= 6
        record = record_of(world, f"d{i}").participation
        assert (record.cohort, record.asked) == ("default", len(rounds) - 2)
        assert record.asked_round == rounds[-2]
        assert record.loss is not None
    said = [n for _, h, n in world.notes if h == "coordinator" and n.kind == "opened"]
    counts = Counter(n for names in asked.values() for n in names)
    assert said[-1].fields["fairness"] == pytest.approx(24**2 / (6 * sum(x * x for x in counts.values())))
    failed = [n for _, _, n in world.notes if n.kind == "selection failed"]
    assert bool(failed) == strategy.endswith("failing")


def test_offers_go_only_to_those_who_are_chosen() -> None:
    fleet = choosing("test_asking:the_first", waiting=0, rounds=5)
    world = logged(fleet)
    settle(fleet, world)
    assert set(map(tuple, asked_by_round(world).values())) == {("d0", "d1")}
    assert {t for t, _ in world.published if t.endswith("/dn/task")} == {
        topics.device_task(f"d{i}") for i in (0, 1)
    }


@pytest.mark.parametrize("waiting", [0, 4])
def test_who_comes_into_a_round_that_asks_enough_waits_for_the_next(waiting: int) -> None:
    """Recorded: of a thousand that came after the first ten, all were asked, as these ten had all been."""
    fleet = choosing("uniform", waiting=waiting, targeted=True, devices=8, min_devices=2, rounds=3)
    world = logged(fleet)
    settle(fleet, world)
    verify(fleet, world, everyone=False)
    asked = {t for t, _ in world.published if t.endswith("/dn/task")}
    assert len(asked) <= 3 * 2
    assert sum(n.kind == "training" for _, h, n in world.notes if h != "coordinator") == 3 * 2


@pytest.mark.thinned
def test_a_crash_before_any_effect_changes_no_choice_and_loses_nothing() -> None:
    def run(k: int | None) -> LoggedWorld:
        fleet = choosing("oort", devices=3, rounds=3)
        world = logged(fleet, survives=k is not None and k % 4 == 0)
        if k is not None:
            world.crash_at_effect("coordinator", k)
        settle(fleet, world, rest_s=60.0)
        verify(fleet, world, everyone=False)
        return world

    total = run(None).effects_of("coordinator")
    assert total > 40
    for k in points(0, total, stride=3):
        world = run(k)
        asked: dict[int, list[list[str]]] = {}
        for host, entries in world.chronicle.saves:
            saved = entries.get("c/default/progress") if host == "coordinator" else None
            if saved is not None and (p := msgspec.msgpack.decode(saved, type=Progress)).open:
                asked.setdefault(p.number, []).append(p.expected)
        for choices in asked.values():
            # Later ones only add to the first.
            assert all(c[: len(choices[0])] == choices[0] for c in choices), k
        for i in range(3):
            name = f"d{i}"
            rounds = [n for n, choices in asked.items() if name in choices[-1]]
            assert record_of(world, name).participation.asked == len(rounds), k


def test_a_choice_is_saved_before_it_is_offered() -> None:
    fleet = choosing("oort", rounds=4)
    world = logged(fleet)
    known: set[str] = set()
    apply = world._apply

    def watch(host: Any, effect: Any) -> None:
        if isinstance(effect, Save) and (saved := effect.entries.get("c/default/progress")) is not None:
            known.clear()
            known.update(msgspec.msgpack.decode(saved, type=Progress).expected)
        topic = getattr(effect, "topic", "")
        if host.name == "coordinator" and topic.endswith("/dn/task"):
            assert topic.split("/")[3] in known
        apply(host, effect)

    world._apply = watch  # type: ignore[method-assign]
    settle(fleet, world)
    assert verify(fleet, world, everyone=False) == 8


def test_too_few_reports_ask_as_many_again() -> None:
    """Those who are asked first have no power: at the deadline the round asks others, and goes on."""
    fleet = choosing("test_asking:the_first", waiting=0, rounds=1, min_reports=2, deadline_s=5.0)
    fleet.sample_s = lambda i: 1e6 if i < 2 else 1e-3
    world = logged(fleet)
    settle(fleet, world, until_s=60.0, rest_s=1.0)
    assert asked_by_round(world)[1] == ["d0", "d1", "d2", "d3"]
    committed = [n.fields["device"] for _, h, n in world.notes if (h, n.kind) == ("coordinator", "committed")]
    assert sorted(map(str, committed)) == ["d2", "d3"]


def test_a_plug_in_that_asks_nobody_gets_as_many_as_a_round_needs() -> None:
    fleet = choosing("test_asking:nobody", rounds=3, min_reports=2)
    world = logged(fleet)
    settle(fleet, world)
    assert verify(fleet, world, everyone=False) == 6


def test_whoever_takes_the_place_of_one_that_has_gone_is_written_down() -> None:
    """d0 and d1 are asked; d0 vanishes; d5, which comes then, is asked in its place."""
    fleet = choosing("test_asking:the_first", waiting=0, rounds=1, min_devices=4, min_reports=2)
    fleet.sample_s = lambda i: 0.05
    fleet.devices = 4
    world = logged(fleet)
    world.add("d5", lambda: fleet.device(5), start_s=4.0)
    world.at(2.0, lambda: world.cut("d0", 600.0))
    fleet.run(world, 100.0)
    assert asked_by_round(world)[1] == ["d0", "d1", "d5"]
    assert record_of(world, "d5").participation.asked_round == 1


def test_devices_cannot_choose_themselves_by_value() -> None:
    fleet = choosing("oort")
    with pytest.raises(ConfigError, match="oort"):
        Asking(replace(fleet.campaign(), targeted=False), Any, Any)  # type: ignore[arg-type]


def test_a_uniform_cohort_is_written_down_too() -> None:
    fleet = Fleet(devices=5, rounds=6, share=0.5)
    world = logged(fleet)
    settle(fleet, world)
    verify(fleet, world)
    asked = Counter(n for names in asked_by_round(world).values() for n in names)
    for i in range(5):
        assert record_of(world, f"d{i}").participation.asked == asked[f"d{i}"]
