"""pfl-research's setting of CIFAR-10, here, in its own simulator and in Flower: updates of devices a second.

A thousand users of fifty images (made up, of CIFAR-10's shape), fifty of them a round, batch 10, one epoch of
plain SGD, the same network from the same weights. The first round is left out: processes start and warm up in
it. All score the same held-out images after each round.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from _result import Bar, at_least, at_most, unmeasured
from onnx import numpy_helper

from _sim import peers
from _sim.learning import COHORT_NETWORK, _network
from _sim.peers_arrays import write_arrays

SCENARIO = peers.HERE / "cifar.toml"
SHAPE = (3, 32, 32)
CLIENTS, COHORT, SAMPLES, HELD_OUT, ROUNDS, BATCH, LEARNING_RATE = 1000, 50, 50, 506, 6, 10, 0.02
CLASSES, COARSE = 10, 4
"""Each class has a pattern of `COARSE` x `COARSE` patches of one colour each, under noise."""
SIGNAL = 0.5

TURNS = 2
LIMIT_S = 900.0
TIMES_FLOWER, TIMES_PFL = 5.0, 1.5
LOSS_APART = 0.15
"""Between the last losses, of the first: each library draws users and dropout by itself."""

Found = dict[str, Any]


def measure() -> Found:
    """All contenders in turns, the rates of each; what could not be run says why as `trouble`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        contenders = _contenders(folder)
        turns: dict[str, list[Found]] = {contender: [] for contender in contenders}
        for _ in range(TURNS):
            for contender, turn in contenders.items():
                if not any("trouble" in found for found in turns[contender]):
                    turns[contender].append(_turn(turn))
    return {contender: summary(found) for contender, found in turns.items()}


def bars(found: Found) -> list[Bar]:
    """5 times Flower's rate, 1.5 times pfl-research's, by the clock; all end with much the same loss."""
    ours, flower = found["laconic"], found["flower"]
    both = [found["pfl, 2 processes"], found["pfl, 2 threads"]]
    ran = [one for one in both if "trouble" not in one]
    pfl = max(ran, key=lambda one: float(one["updates_per_s"])) if ran else both[0]
    return [
        _ratio("cifar: updates a second, times Flower's", ours, flower, TIMES_FLOWER),
        _ratio("cifar: updates a second, times pfl-research's", ours, pfl, TIMES_PFL),
        _apart("cifar: loss apart from Flower's, share of the first", ours, flower),
        _apart("cifar: loss apart from pfl-research's, share of the first", ours, pfl),
    ]


def summary(turns: list[Found]) -> Found:
    """Medians of several turns; the first trouble, if there was one."""
    for found in turns:
        if "trouble" in found:
            return found
    rates = ("updates_per_s", "updates_per_processor_s", "start_s")
    medians = {name: statistics.median(found[name] for found in turns) for name in rates}
    return turns[-1] | medians | {"all_updates_per_s": [found["updates_per_s"] for found in turns]}


def rates_of(ran: peers.Run) -> Found:
    """Updates a second after the first round, by the clock and by the processor, and what came before it."""
    at_s = ran.told["at_s"]
    updates = COHORT * (len(at_s) - 2)
    found = {
        "updates_per_s": updates / (at_s[-1] - at_s[1]),
        "updates_per_processor_s": updates / ran.processor_s(at_s[1], at_s[-1]),
        "start_s": at_s[1] - ran.began_s,
    }
    return found | {name: ran.told[name] for name in ("loss", "accuracy", "way") if name in ran.told}


def _ratio(name: str, ours: Found, theirs: Found, limit: float) -> Bar:
    if "trouble" in ours or "trouble" in theirs:
        return unmeasured(name, limit)
    return at_least(name, ours["updates_per_s"] / theirs["updates_per_s"], limit)


def _apart(name: str, ours: Found, theirs: Found) -> Bar:
    if "trouble" in ours or "trouble" in theirs:
        return unmeasured(name, LOSS_APART)
    return at_most(name, abs(ours["loss"][-1] - theirs["loss"][-1]) / theirs["loss"][0], LOSS_APART)


def _turn(turn: Callable[[], peers.Run]) -> Found:
    try:
        return rates_of(turn())
    except peers.PeerError as e:
        return {"trouble": str(e)}


def _contenders(folder: Path) -> Mapping[str, Callable[[], peers.Run]]:
    """What is run in each turn, in this order."""
    file = _prepared(folder)
    settings = {
        "folder": str(folder),
        "clients": CLIENTS,
        "cohort": COHORT,
        "samples": write_arrays(file),
        "rounds": ROUNDS,
        "batch_size": BATCH,
        "learning_rate": LEARNING_RATE,
        "cores": peers.CORES,
    }
    flower, pfl = peers.flower(), peers.pfl()
    script, alone, split = (
        peers.HERE / "pfl_run.py",
        json.dumps(settings | {"threads": peers.CORES}),
        json.dumps(settings | {"threads": 1}),
    )
    spread = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(peers.CORES))
    threads = str(peers.CORES)
    ours = (sys.executable, peers.HERE / "peers_scenario.py", file, threads)
    workshop = (sys.executable, peers.HERE / "peers_workshop.py", file, threads, str(ROUNDS), str(COHORT))
    return {
        "laconic": lambda: peers.run(ours, limit_s=LIMIT_S),
        "flower": lambda: peers.run(
            (flower.python, peers.HERE / "flower_run.py", "flower_cnn", split), limit_s=LIMIT_S, home=flower
        ),
        "pfl, 2 processes": lambda: peers.run(
            (pfl.python, *spread, script, split), limit_s=LIMIT_S, home=pfl
        ),
        "laconic, Workshop alone": lambda: peers.run(workshop, limit_s=LIMIT_S),
        "pfl, 2 threads": lambda: peers.run((pfl.python, script, alone), limit_s=LIMIT_S, home=pfl),
    }


def _prepared(folder: Path) -> Path:
    """The scenario's file with its images and its network, and the network's weights for the peers."""
    rng = np.random.default_rng(0)
    count = CLIENTS * SAMPLES + HELD_OUT
    y = rng.integers(0, CLASSES, count)
    patches = rng.standard_normal((CLASSES, SHAPE[0], COARSE, COARSE), np.float32)
    pattern = SIGNAL * patches.repeat(SHAPE[1] // COARSE, 2).repeat(SHAPE[2] // COARSE, 3)
    x = rng.standard_normal((count, *SHAPE), np.float32)
    x += pattern[y]
    np.savez(folder / "images.npz", x=x, y=y)
    model = onnx.load_from_string(_network(SHAPE, COHORT_NETWORK))
    weights: dict[str, Any] = {}
    for kept in model.graph.initializer:
        if kept.name.startswith("w"):
            kept.CopyFrom(numpy_helper.from_array(_glorot(rng, tuple(kept.dims)), kept.name))
        if kept.name[0] in "wb":
            weights[kept.name] = numpy_helper.to_array(kept)
    (folder / "network.onnx").write_bytes(model.SerializeToString())
    np.savez(folder / "initial.npz", **weights)
    return Path(shutil.copy(SCENARIO, folder))


def _glorot(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """As pfl-research's benchmark begins: Glorot and Bengio, AISTATS 2010, formula 16."""
    field = int(np.prod(shape[2:]))
    most = np.sqrt(6 / (field * (shape[0] + shape[1])))
    return rng.uniform(-most, most, shape).astype(np.float32)
