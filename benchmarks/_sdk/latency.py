"""How long a program waits for a prediction, and for training to stop, while its device trains beside it."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from _result import Bar, at_most
from onnx import helper, numpy_helper

from laconic.runtime import Bundle, Trainer
from laconic.runtime.priority import lower_priority
from laconic.training import prepare

MODELS = {"lenet": ((6, 16), (120, 84)), "fedavg_cnn": ((32, 64), (512,))}
"""Maps of the two 5x5 convolutions, units of the hidden layers: LeCun et al., Proc. IEEE 1998, with ReLU and
maxima, and McMahan et al., AISTATS 2017, section 3. Inputs are 28x28 grey images, outputs ten classes."""

Found = dict[str, float]

RATIO_LIMIT = 2.0
TURNS = 20
TURN_S = 1.0
PAUSE_S = 0.003
"""Between two predictions: a program that asks now and then, from a cold cache."""


def measure(turns: int = TURNS, turn_s: float = TURN_S) -> dict[str, Any]:
    """For each model: milliseconds of a prediction of one sample, alone and beside training at batch 8; how
    many times the 99th percentile that is; and seconds until training has stopped, at most.

    Both are measured in turns, so that whatever else the machine does befalls both; percentiles are medians
    over the turns. `busy cores` is how much all of its programs together used meanwhile, of which this one
    takes at most one. `ratio` is of times by the clock, `ratio without waiting` of what is left of them
    without the time in which others had the processor: an otherwise idle machine's.
    """
    return {name: _measured(Bundle.read(prepare(model(name))), turns, turn_s) for name in MODELS}


def _measured(bundle: Bundle, turns: int, turn_s: float) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((512, 1, 28, 28)).astype(np.float32), np.arange(512) % 10
    trainer = Trainer(bundle)
    predictor = trainer.predictor(bundle.initial)
    alone: list[Found] = []
    beside: list[Found] = []
    stops: list[float] = []
    steps, used = 0, _busy_s()
    began = time.perf_counter()
    with ThreadPoolExecutor(1, initializer=lower_priority) as pool:

        def train(stop: threading.Event, begun: threading.Event) -> int:
            run = trainer.start(bundle.initial, x, y, epochs=10**6, batch_size=8, learning_rate=1e-4, seed=0)
            taken = 0
            for progress in run:
                taken = progress.steps
                begun.set()
                if stop.is_set():
                    break
            return taken

        for _ in range(turns):
            alone.append(_asked(predictor.predict, x[:1], turn_s))
            stop, begun = threading.Event(), threading.Event()
            running = pool.submit(train, stop, begun)
            begun.wait()
            beside.append(_asked(predictor.predict, x[:1], turn_s))
            stop.set()
            asked = time.perf_counter()
            steps += running.result()
            stops.append(time.perf_counter() - asked)
    result: dict[str, Any] = {"alone": _medians(alone), "beside training": _medians(beside)}
    for what in ("ratio", "ratio without waiting"):
        p99 = "p99_ms" if what == "ratio" else "p99_without_waiting_ms"
        result[what] = round(result["beside training"][p99] / result["alone"][p99], 2)
    result["longest stop_s"] = round(max(stops), 3)
    if used is not None:
        result["busy cores"] = round(((_busy_s() or used) - used) / (time.perf_counter() - began), 2)
    result["steps per s"] = round(steps / (turns * turn_s), 1)
    return result


def bars(found: Mapping[str, Any]) -> list[Bar]:
    """By the clock: also what other programs add to a wait beside training."""
    return [
        at_most(f"latency: p99 beside training over alone, {name}", it["ratio"], RATIO_LIMIT)
        for name, it in found.items()
    ]


def _asked(predict: Any, x: Any, seconds: float) -> Found:
    """Milliseconds that the predictions of a turn took: percentiles, also without what the thread spent in
    wait of a processor (Linux, Documentation/scheduler/sched-stats.rst)."""
    taken, working = [], []
    end = time.perf_counter() + seconds
    with open("/proc/thread-self/schedstat", "rb", buffering=0) as schedule:

        def waited_s() -> float:
            return int(os.pread(schedule.fileno(), 64, 0).split()[1]) / 1e9

        while time.perf_counter() < end:
            time.sleep(PAUSE_S)
            before_s, start = waited_s(), time.perf_counter()
            predict(x)
            taken.append(time.perf_counter() - start)
            working.append(taken[-1] - (waited_s() - before_s))
    p99 = float(np.percentile(working, 99)) * 1000
    return {**_percentiles(taken), "p99_without_waiting_ms": p99, "times": len(taken)}


def _medians(turns: Sequence[Found]) -> Found:
    return {key: round(float(np.median([turn[key] for turn in turns])), 3) for key in turns[0]}


def _busy_s() -> float | None:
    """Seconds that the machine's cores have been busy, all together (proc_stat(5)); None where unknown."""
    try:
        user, nice, system, _, _, irq, softirq, *_ = (
            Path("/proc/stat").read_text().splitlines()[0].split()[1:]
        )
    except OSError:
        return None
    return sum(map(int, (user, nice, system, irq, softirq))) / os.sysconf("SC_CLK_TCK")


def _percentiles(seconds: Sequence[float]) -> dict[str, float]:
    found = np.percentile(seconds, [50, 99, 100]) * 1000
    return dict(zip(("p50_ms", "p99_ms", "max_ms"), np.round(found, 3).tolist(), strict=True))


def model(name: str) -> bytes:
    """One of `MODELS` as ONNX, with weights by He et al., ICCV 2015."""
    maps, hidden = MODELS[name]
    rng = np.random.default_rng(0)
    weights, nodes, x, channels, side = {}, [], "x", 1, 28

    def layer(layer_name: str, *shape: int) -> list[str]:
        for n, s in ((f"{layer_name}.weight", shape), (f"{layer_name}.bias", (shape[0],))):
            deviation = (2 / np.prod(shape[1:])) ** 0.5 if n.endswith("weight") else 0.0
            weights[n] = (rng.standard_normal(s) * deviation).astype(np.float32)
        return [f"{layer_name}.weight", f"{layer_name}.bias"]

    for i, count in enumerate(maps):
        # LeNet's second convolution has no border.
        border = 0 if name == "lenet" and i else 2
        names = layer(f"conv{i}", count, channels, 5, 5)
        nodes += [
            helper.make_node("Conv", [x, *names], [f"c{i}"], pads=[border] * 4),
            helper.make_node("Relu", [f"c{i}"], [f"r{i}"]),
            helper.make_node("MaxPool", [f"r{i}"], [f"p{i}"], kernel_shape=[2, 2], strides=[2, 2]),
        ]
        x, channels, side = f"p{i}", count, (side - 4 + 2 * border) // 2
    nodes.append(helper.make_node("Flatten", [x], ["flat"]))
    x, width = "flat", channels * side * side
    for i, units in enumerate(hidden):
        nodes.append(helper.make_node("Gemm", [x, *layer(f"dense{i}", units, width)], [f"d{i}"], transB=1))
        nodes.append(helper.make_node("Relu", [f"d{i}"], [f"h{i}"]))
        x, width = f"h{i}", units
    nodes.append(helper.make_node("Gemm", [x, *layer("logits", 10, width)], ["y"], transB=1))
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("x", 1, ["batch", 1, 28, 28])],
        [helper.make_tensor_value_info("y", 1, ["batch", 10])],
        initializer=[numpy_helper.from_array(w, n) for n, w in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    encoded: bytes = model.SerializeToString()
    return encoded


if __name__ == "__main__":
    print(json.dumps(measure(), indent=2))
