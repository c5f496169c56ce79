"""How fast virtual devices really learn: convolutional networks in threads, tiny models in stacks.

Seconds are the processor's, all threads together: other programs on the machine count only in so far as they
take caches, memory and a core's units away. A rate for two cores is twice that of one where two threads need
no more processor time than one; `share_of_linear` says how much more.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from _result import Bar, at_least
from onnx import NodeProto, TensorProto, helper, numpy_helper

from laconic.device_sim.learning import Job, Workshop
from laconic.runtime import Bundle, TrainResult
from laconic.training import prepare

REPEATS = 9
TINY = ((32, 10), (64, 10), (64, 24, 10), (64, 32, 10), (64, 64, 10))
"""Widths of the layers; each model is trained at batch 1 and 8, 64 steps a job."""

TINY_JOBS, TINY_STEPS = 256, 64
LENET_JOBS, LENET_SAMPLES = 32, 160
USERS, USER_SAMPLES, COHORT, ROUNDS, USER_BATCH = 1000, 50, 50, 2, 10

Layer = tuple[str, tuple[int, ...]]


def measure() -> dict[str, Any]:
    """Device-steps a second, and device updates a second in a round of 50 out of 1,000 users."""
    return {"lenet": _lenet(), "tiny": _tiny(), "cohort": _cohort()}


def bars(found: dict[str, Any]) -> list[Bar]:
    """2,400 device-steps/s of LeNet on two cores, 200,000 on one of models below 5,000 parameters."""
    lenet = found["lenet"]
    return [
        at_least(
            "learning, LeNet, batch 8: device-steps/s on 2 cores", lenet["steps_per_s_on_2_cores"], 2400
        ),
        at_least("learning, LeNet, 2 threads: share of linear", lenet["share_of_linear"], 0.9),
        *(
            at_least(
                f"learning, {tiny['parameters']} parameters, batch {tiny['batch']}: device-steps/s on a core",
                tiny["steps_per_s"],
                200_000,
            )
            for tiny in found["tiny"]
        ),
    ]


def _lenet() -> dict[str, float]:
    bundle = Bundle.read(prepare(_network((1, 28, 28), LENET)))
    jobs = _jobs(bundle, LENET_JOBS, LENET_SAMPLES, 8)
    one, alone_s = _spent(bundle, jobs, threads=1)
    two, wall_s = _spent(bundle, jobs, threads=2)
    steps = LENET_JOBS * LENET_SAMPLES // 8
    return {
        "parameters": bundle.schema.size,
        "steps_per_s_on_1_core": steps / one,
        "steps_per_s_on_2_cores": 2 * steps / two,
        "share_of_linear": one / two,
        "steps_per_s_by_the_clock_1_thread": steps / alone_s,
        "steps_per_s_by_the_clock_2_threads": steps / wall_s,
    }


def _tiny() -> list[dict[str, float]]:
    out = []
    for widths in TINY:
        bundle = Bundle.read(prepare(_network(widths[:1], _dense(widths))))
        for batch in (1, 8):
            jobs = _jobs(bundle, TINY_JOBS, TINY_STEPS * batch, batch)
            stacks, _ = _spent(bundle, jobs, threads=1, way="stacks")
            threads, _ = _spent(bundle, jobs[: TINY_JOBS // 8], threads=1, way="threads")
            steps = TINY_JOBS * TINY_STEPS
            row = {"parameters": bundle.schema.size, "batch": batch, "steps_per_s": steps / stacks}
            out.append(row | {"steps_per_s_one_by_one": steps / 8 / threads})
    return out


def _cohort() -> dict[str, float]:
    """The setting of pfl-research's benchmark on CIFAR-10: its network, and as many users, a round's share of
    them, samples and batches; images are made up."""
    bundle = Bundle.read(prepare(_network((3, 32, 32), COHORT_NETWORK)))
    users = _jobs(bundle, USERS, USER_SAMPLES, USER_BATCH)
    rng = np.random.default_rng(0)
    weights = bundle.initial
    spent, wall = float("inf"), float("inf")
    with Workshop(bundle) as workshop:
        for _ in range(1 + ROUNDS):
            picked = rng.choice(USERS, COHORT, replace=False)
            jobs = [
                Job(weights, user.x, user.y, 1, USER_BATCH, 0.1, user.seed)
                for user in (users[i] for i in picked)
            ]
            began, began_s = time.perf_counter(), time.process_time()
            updates = [_sound(o).weights - weights for o in workshop.train(jobs)]
            spent = min(spent, time.process_time() - began_s)
            wall = min(wall, time.perf_counter() - began)
            weights = weights + np.mean(updates, axis=0)
    return {
        "parameters": bundle.schema.size,
        "updates_per_processor_s": COHORT / spent,
        "updates_per_s_by_the_clock": COHORT / wall,
    }


def _spent(bundle: Bundle, jobs: Sequence[Job], *, threads: int, way: Any = "threads") -> tuple[float, float]:
    """Processor and wall seconds, the best of a few times."""
    best = best_wall = float("inf")
    with Workshop(bundle, way=way, threads=threads) as workshop:
        # The first time warms up.
        for _ in range(1 + REPEATS):
            wall, began = time.perf_counter(), time.process_time()
            for outcome in workshop.train(jobs):
                _sound(outcome)
            best = min(best, time.process_time() - began)
            best_wall = min(best_wall, time.perf_counter() - wall)
    return best, best_wall


def _sound(outcome: object) -> TrainResult:
    assert isinstance(outcome, TrainResult), outcome
    return outcome


def _jobs(bundle: Bundle, count: int, samples: int, batch: int) -> list[Job]:
    rng = np.random.default_rng(0)
    shape = tuple(d or 1 for d in bundle.manifest.inputs[0].shape)
    return [
        Job(
            bundle.initial,
            rng.standard_normal((samples, *shape), np.float32),
            rng.integers(0, 10, samples),
            1,
            batch,
            0.01,
            seed,
        )
        for seed in range(count)
    ]


LENET: tuple[Layer, ...] = (
    ("Conv", (6, 1, 5, 5, 2)),
    ("Relu", ()),
    ("MaxPool", (2,)),
    ("Conv", (16, 6, 5, 5, 0)),
    ("Relu", ()),
    ("MaxPool", (2,)),
    ("Flatten", ()),
    ("Gemm", (120, 400)),
    ("Relu", ()),
    ("Gemm", (84, 120)),
    ("Relu", ()),
    ("Gemm", (10, 84)),
)
"""LeCun et al., Proc. IEEE 1998, in the form most used today; the last number of a Conv is its padding."""

COHORT_NETWORK: tuple[Layer, ...] = (
    ("Conv", (32, 3, 3, 3, 0)),
    ("Relu", ()),
    ("Conv", (64, 32, 3, 3, 0)),
    ("Relu", ()),
    ("MaxPool", (2,)),
    ("Dropout", (25,)),
    ("Flatten", ()),
    ("Gemm", (128, 12544)),
    ("Relu", ()),
    ("Dropout", (50,)),
    ("Gemm", (10, 128)),
)
"""The number of a Dropout is in per cent."""


def _dense(widths: Sequence[int]) -> Iterable[Layer]:
    for i, (wide, narrow) in enumerate(pairwise(widths)):
        if i:
            yield "Relu", ()
        yield "Gemm", (narrow, wide)


def _network(shape: Sequence[int], layers: Iterable[Layer]) -> bytes:
    """An ONNX file with random weights and ten logits."""
    rng = np.random.default_rng(0)
    nodes: list[NodeProto] = []
    weights: dict[str, Any] = {}
    x = "x"
    for i, (op_type, sizes) in enumerate(layers):
        inputs, attributes = [x], {}
        if op_type in ("Conv", "Gemm"):
            matrix = sizes[:4]
            deviation = np.sqrt(2 / np.prod(matrix[1:]))
            weights[f"w{i}"] = (deviation * rng.standard_normal(matrix)).astype(np.float32)
            weights[f"b{i}"] = np.zeros(sizes[0], np.float32)
            inputs += [f"w{i}", f"b{i}"]
        if op_type == "Conv":
            attributes = {"kernel_shape": list(sizes[2:4]), "pads": [sizes[4]] * 4}
        elif op_type == "Gemm":
            attributes = {"transB": 1}
        elif op_type == "MaxPool":
            attributes = {"kernel_shape": [sizes[0]] * 2, "strides": [sizes[0]] * 2}
        elif op_type == "Dropout":
            weights[f"share{i}"] = np.asarray(sizes[0] / 100, np.float32)
            weights[f"on{i}"] = np.asarray(True)
            inputs += [f"share{i}", f"on{i}"]
        nodes.append(helper.make_node(op_type, inputs, [f"y{i}"], **attributes))
        x = f"y{i}"
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *shape])],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, ["N", 10])],
        initializer=[numpy_helper.from_array(a, n) for n, a in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    encoded: bytes = model.SerializeToString()
    return encoded
