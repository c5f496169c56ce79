"""Devices that send rubbish, and versions that are worse: real processes over a real mosquitto.

tests/engines/test_rollback.py and test_aggregation.py provoke the same in the simulator, with crashes; here
it is seen in what separate processes say and hold.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from processes import Process, until
from sites import CLASSES, Site, softmax_bundle

pytestmark = pytest.mark.broker

FEATURES = 6
MARGIN = 0.2
HONEST = 6
LONG_S = 60
"""A bound for what takes a second or two; on a busy machine longer."""

COHORTS = ("sturdy", "held", "judged", "tried")
CAMPAIGNS = """
[[campaign]]
cohort = "sturdy"
bundle = "sturdy.bundle"
held_out = "held-out.npz"
rounds = { rounds = 100000, min_devices = 8, min_reports = 7, interval_s = 0.3, deadline_s = 10 }
aggregation = { rule = "robust", malicious_share = 0.3 }

[[campaign]]
cohort = "held"
bundle = "held.bundle"
held_out = "held-out.npz"
rounds = { rounds = 100000, min_devices = 6, interval_s = 0.3, deadline_s = 10 }
training = { learning_rate = 0.5 }
models = { margin_loss = 0.2 }

[[campaign]]
cohort = "judged"
bundle = "judged.bundle"
rounds = { rounds = 100000, min_devices = 6, interval_s = 0.3, deadline_s = 10 }
training = { learning_rate = 0.5 }
models = { margin_loss = 0.2, min_reports = 5, significance = 0.1 }

[[campaign]]
cohort = "tried"
bundle = "tried.bundle"
rounds = { rounds = 100000, min_devices = 6, interval_s = 0.3, deadline_s = 10 }
training = { learning_rate = 0.5 }
# One that lies among four who try it does not save a bad version: 5/16 is less than 0.35.
[campaign.models]
margin_loss = 0.2
min_reports = 4
significance = 0.35
canary_share = 0.5
canary_reports = 4
canary_deadline_s = 5
"""

Data = tuple[NDArray[np.float32], NDArray[np.int64]]


def data(seed: int, count: int = 60, *, scale: float = 1.0, turned: int = 0) -> Data:
    """Three classes that a linear model tells apart. `turned`: the labels are of other classes."""
    towards = np.random.default_rng(1).normal(size=(FEATURES, CLASSES))
    x = np.random.default_rng(seed).normal(size=(count, FEATURES))
    y = (np.argmax(x @ towards, axis=1) + turned) % CLASSES
    return (scale * x).astype(np.float32), y.astype(np.int64)


def prepare_site(site: Site) -> tuple[list[str], list[str], list[str]]:
    """The arguments of honest devices, of those with broken sensors, and of those with wrong labels."""
    x, y = data(99, 600)
    np.savez(site.folder / "held-out.npz", x=x, y=y)
    honest: list[str] = []
    for cohort in COHORTS:
        (site.folder / f"{cohort}.bundle").write_bytes(softmax_bundle(FEATURES))
        for i in range(HONEST):
            honest += site.device(cohort, f"{cohort}-{i}", *data(i))
    broken = site.device("sturdy", "sturdy-large", *data(50, scale=20.0, turned=1))
    broken += site.device("sturdy", "sturdy-absurd", *data(51, scale=1000.0, turned=1))
    wrong: list[str] = []
    for cohort in COHORTS[1:]:
        wrong += site.device(cohort, f"{cohort}-wrong", *data(60, 1500, turned=1))
    site.write(CAMPAIGNS)
    return honest, broken, wrong


def of(process: Process, kind: str, campaign: str) -> list[dict[str, Any]]:
    """A coordinator's notes of one kind about one campaign."""
    return [n for n in process.notes(kind) if n["campaign"] == campaign]


def stopped_at_trial(coordinator: Process) -> list[dict[str, Any]]:
    """The ways back from versions that nobody trained on: no update is dropped with them."""
    return [n for n in of(coordinator, "rolled back", "tried") if n["dropped"] == 0]


def test_rubbish_is_withstood_and_worse_versions_are_refused_or_taken_back(site: Site) -> None:
    honest, broken, wrong = prepare_site(site)
    site.broker()
    coordinator = site.coordinator()
    fleet, rubbish = site.devices("honest", honest), site.devices("broken", broken)
    made = dict.fromkeys(COHORTS, 0)

    def more(rounds: int) -> bool:
        return all(len(of(coordinator, "version", c)) > made[c] + rounds for c in COHORTS)

    until(lambda: more(6), LONG_S, "rounds without liars")
    liars = site.devices("wrong", wrong)
    until(lambda: bool(of(coordinator, "refused", "held")), LONG_S, "a refusal")
    until(lambda: bool(of(coordinator, "rolled back", "judged")), LONG_S, "a way back")
    until(lambda: bool(stopped_at_trial(coordinator)), LONG_S, "a way back after a trial")
    liars.kill()
    made = {c: len(of(coordinator, "version", c)) for c in COHORTS}
    until(lambda: more(4), LONG_S, "rounds without liars again")
    assert site.laconic("coordinator", "finish")[0] == 0
    assert coordinator.wait(LONG_S) == 0

    _check_withstood(coordinator, rubbish)
    _check_refused(coordinator)
    _check_taken_back(coordinator, fleet)
    _check_tried(coordinator, fleet, liars)


def _check_withstood(coordinator: Process, rubbish: Process) -> None:
    """One that sends too much is in every round and does no harm; one that sends absurdly much is refused."""
    losses = [v["loss"] for v in of(coordinator, "version", "sturdy")]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.8 * losses[0]
    first = {n["device"]: n["norm"] for n in of(coordinator, "committed", "sturdy") if n["round"] == 1}
    usual = sorted(first.values())[len(first) // 2]
    assert first["sturdy-large"] > 5 * usual
    taken = [n["round"] for n in of(coordinator, "committed", "sturdy") if n["device"] == "sturdy-absurd"]
    assert taken in ([], [1]), "only before it is known what is usual"
    refused = of(coordinator, "rejected", "sturdy")
    assert {n["device"] for n in refused} == {"sturdy-absurd"}
    assert len(refused) >= 4
    assert len(rubbish.notes("rejected")) >= len(refused) - 1, "and is told so"


def _check_refused(coordinator: Process) -> None:
    """No version is worse than the best by more than the margin, and what was refused would have been."""
    best = [v["loss"] for v in of(coordinator, "version", "held")]
    assert all(loss <= min(best[: i + 1]) + MARGIN for i, loss in enumerate(best))
    for note in of(coordinator, "refused", "held"):
        assert note["loss"] > min(best) + MARGIN
        assert "held-out data" in note["why"]
        assert note["updates"] == HONEST + 1
    assert of(coordinator, "rolled back", "held") == []
    assert best[-1] < min(n["loss"] for n in of(coordinator, "refused", "held"))


def _check_taken_back(coordinator: Process, fleet: Process) -> None:
    """Devices find a published version worse; all go back, and it is the older model by name."""
    names = {
        n["version"]: n["model"] for k in ("version", "rolled back") for n in of(coordinator, k, "judged")
    }
    ways_back = of(coordinator, "rolled back", "judged")
    for note in ways_back:
        assert "loss higher by more than 0.2" in note["why"]
        assert note["model"] == names[note["rollback_of"]]
        assert note["dropped"] >= HONEST, "updates that began from it"
    newest = ways_back[-1]["version"]
    assert {
        n["who"] for n in fleet.notes("model") if n["who"].startswith("judged") and n["version"] > newest
    } == {f"judged-{i}" for i in range(HONEST)}


def _check_tried(coordinator: Process, fleet: Process, liars: Process) -> None:
    """The bad version was with those who tried it, and with nobody else."""
    states = [(n["version"], n["state"]) for n in of(coordinator, "trial", "tried")]
    back = stopped_at_trial(coordinator)[0]
    bad = max(version for version, _ in states if version < back["version"])
    assert (bad, "begun") in states
    assert (bad, "passed") not in states
    assert back["rollback_of"] < bad

    def who(kind: str) -> set[str]:
        notes = [*fleet.notes(kind), *liars.notes(kind)]
        return {n["who"] for n in notes if n["who"].startswith("tried") and n["version"] == bad}

    assert who("model") == who("measuring")
    assert len(who("measuring")) >= 4
