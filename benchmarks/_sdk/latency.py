"""How long a program waits for a prediction, and for training to stop, while its device trains beside it."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from onnx import helper, numpy_helper

from laconic.runtime import Bundle, Trainer
from laconic.runtime.priority import lower_priority
from laconic.training import prepare

MODELS = {"lenet": ((6, 16), (120, 84)), "fedavg_cnn": ((32, 64), (512,))}
"""Maps of the two 5x5 convolutions, units of the hidden layers: LeCun et al., Proc. IEEE 1998, with ReLU and
maxima, and McMahan et al., AISTATS 2017, section 3. Inputs are 28x28 grey images, outputs ten classes."""

TURNS = 6
TURN_S = 1.0
PAUSE_S = 0.003
"""Between two predictions: a program that asks now and then, from a cold cache."""


def measure(turns: int = TURNS, turn_s: float = TURN_S) -> dict[str, Any]:
    """For each model: milliseconds of a prediction of one sample, alone and beside training at batch 8; how
    many times the 99th percentile that is; and seconds until training has stopped, at most.

    Both are measured in turns, so that whatever else the machine does befalls both; `busy cores` is how much
    all of its programs together used meanwhile, of which this one takes at most one.
    """
    return {name: _measured(Bundle.read(prepare(_model(name))), turns, turn_s) for name in MODELS}


def _measured(bundle: Bundle, turns: int, turn_s: float) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((512, 1, 28, 28)).astype(np.float32), np.arange(512) % 10
    trainer = Trainer(bundle)
    predictor = trainer.predictor(bundle.initial)
    alone: list[float] = []
    beside: list[float] = []
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
            alone += _asked(predictor.predict, x[:1], turn_s)
            stop, begun = threading.Event(), threading.Event()
            running = pool.submit(train, stop, begun)
            begun.wait()
            beside += _asked(predictor.predict, x[:1], turn_s)
            stop.set()
            asked = time.perf_counter()
            steps += running.result()
            stops.append(time.perf_counter() - asked)
    result: dict[str, Any] = {"alone": _percentiles(alone), "beside training": _percentiles(beside)}
    result["p99 ratio"] = round(result["beside training"]["p99_ms"] / result["alone"]["p99_ms"], 2)
    result["longest stop_s"] = round(max(stops), 3)
    if used is not None:
        result["busy cores"] = round(((_busy_s() or used) - used) / (time.perf_counter() - began), 2)
    result["steps per s"] = round(steps / (turns * turn_s), 1)
    return result


def _asked(predict: Any, x: Any, seconds: float) -> list[float]:
    """Seconds that each prediction of a turn took."""
    taken = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        time.sleep(PAUSE_S)
        start = time.perf_counter()
        predict(x)
        taken.append(time.perf_counter() - start)
    return taken


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


def _model(name: str) -> bytes:
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
