"""Nothing lost, nothing twice, whatever happens next: hypothesis plays network, power supply and clock.

It lets time pass, doubles, loses and holds back messages, kills processes and cuts links, in any order, on a
fleet that is larger than the one of `test_crashes`. At every step the ledger agrees with what was committed;
in the end the oracle of `chronicle` folds everything anew.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import msgspec
import pytest
from chronicle import Host, LoggedLearner, LoggedWorld, settle, verify
from fleet import Fleet, LinearLearner
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from laconic.compression import PRESETS
from laconic.coordinator.campaign import Committed
from laconic.coordinator.engine import CoordinatorEngine
from laconic.coordinator.staleness import Lateness
from laconic.transport.broker import Delivery
from often import examples

DEVICES = 5
HOSTS = ("coordinator", *(f"d{i}" for i in range(DEVICES)))


class Meddled(LoggedWorld):
    """A world in which the next messages have a fate; presence and offers have none, as in `LoggedWorld`."""

    def __init__(self) -> None:
        super().__init__(survives=True)
        self.fates: deque[tuple[str, float]] = deque()

    def _receive(self, host: Host, d: Delivery, qos: int = 1) -> None:
        if not self.fates or d.topic.endswith(("/state", "/task", "/man")):
            super()._receive(host, d, qos)
            return
        fate, later_s = self.fates.popleft()
        if fate == "doubled":
            super()._receive(host, d, qos)
        if fate != "lost":
            self.at(self.now + later_s, lambda: self._late(host, d))

    def _late(self, host: Host, d: Delivery) -> None:
        if host.linked:
            super()._receive(host, d)


class Life(RuleBasedStateMachine):
    """One campaign of a fleet."""

    @initialize(
        targeted=st.booleans(),
        late=st.booleans(),
        target_reports=st.sampled_from([0, 3]),
        sparse=st.booleans(),
    )
    def begin(self, targeted: bool, late: bool, target_reports: int, sparse: bool) -> None:
        self.fleet = Fleet(
            devices=DEVICES,
            rounds=4,
            codec=PRESETS["small" if sparse else "dense8"],
            delta_codec=PRESETS["dense8"],
            chunk_bytes=48,
            targeted=targeted,
            deadline_s=20.0,
            min_reports=2,
            target_reports=target_reports,
            lateness=Lateness(max_staleness=2) if late else Lateness(),
        )
        self.world = Meddled()
        self.fleet.learner = lambda i: _learner(self.world, i)
        self.fleet.world(self.world)

    @rule(seconds=st.floats(0.01, 8.0))
    def time_passes(self, seconds: float) -> None:
        self.world.run(self.world.now + seconds)

    @rule(
        fates=st.lists(
            st.tuples(st.sampled_from(["lost", "doubled", "held"]), st.floats(0.0, 30.0)),
            min_size=1,
            max_size=6,
        )
    )
    def the_next_messages_suffer(self, fates: list[tuple[str, float]]) -> None:
        self.world.fates.extend(fates)

    @rule(host=st.sampled_from(HOSTS))
    def a_process_is_killed(self, host: str) -> None:
        self.world.crash(host)

    @rule(host=st.sampled_from(HOSTS), effects=st.integers(0, 12))
    def a_process_is_killed_soon(self, host: str, effects: int) -> None:
        self.world.crash_at_effect(host, self.world.effects_of(host) + effects)

    @rule(host=st.sampled_from(HOSTS), seconds=st.floats(0.1, 40.0))
    def a_link_breaks(self, host: str, seconds: float) -> None:
        self.world.cut(host, seconds)

    @invariant()
    def the_ledger_counts_what_was_committed(self) -> None:
        node = self.world.node("coordinator")
        if not isinstance(node, CoordinatorEngine) or not node.courses:
            return
        counts = dict.fromkeys(HOSTS[1:], 0)
        for host, entries in self.world.chronicle.saves:
            if host == "coordinator":
                for key, blob in entries.items():
                    if key.startswith(("c/default/update/", "c/default/late/")) and blob is not None:
                        counts[msgspec.msgpack.decode(blob, type=Committed).device] += 1
        ledger = node.courses["default"].ledger
        assert {name: ledger[name].committed for name in counts} == counts

    def teardown(self) -> None:
        if hasattr(self, "world"):
            settle(self.fleet, self.world)
            assert verify(self.fleet, self.world) >= self.fleet.min_reports


def _learner(world: Meddled, number: int) -> Any:
    return LoggedLearner(world, number, LinearLearner(number))


QUIET = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))

TestLives = Life.TestCase
TestLives.settings = settings(QUIET, max_examples=examples(10), stateful_step_count=12)


@pytest.mark.soak
class TestManyLives(Life.TestCase):
    """The same for longer, and differently each time."""

    settings = settings(QUIET, max_examples=examples(300), stateful_step_count=30, derandomize=False)
