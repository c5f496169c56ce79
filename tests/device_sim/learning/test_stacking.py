"""A stack's graph: what is done in the loop over steps, and what for many steps at once."""

from __future__ import annotations

from collections import Counter

import onnx
import pytest
from tiny_models import CLASSES, FEATURES, dense, jobs_for, perceptron

from laconic.device_sim.learning import stack
from laconic.device_sim.learning.stack import Stacks
from laconic.device_sim.learning.stacking import stacked
from laconic.runtime import Bundle, TrainResult
from laconic.training import mean_squared_error, prepare


def operators(graph: bytes) -> tuple[Counter[str], Counter[str]]:
    """Those around the loop and those in it."""
    model = onnx.ModelProto()
    model.ParseFromString(graph)
    (scan,) = (n for n in model.graph.node if n.op_type == "Scan")
    around = Counter(n.op_type for n in model.graph.node)
    return around, Counter(n.op_type for a in scan.attribute if a.name == "body" for n in a.g.node)


def test_labels_are_looked_up_before_the_loop_and_the_loss_is_summed_after_it() -> None:
    around, body = operators(stacked(perceptron()).graph)
    assert around["Gather"] == 1
    assert not body["Gather"] + body["OneHot"]
    assert around["ReduceSum"] == 1
    assert body["ReduceSum"] == 2, "the gradients of two biases"
    assert (body["LogSoftmax"], around["LogSoftmax"]) == (1, 0)


def test_of_one_sample_nothing_is_summed() -> None:
    _, body = operators(stacked(perceptron(), single=True).graph)
    assert not body["ReduceSum"] + body["Expand"]


def test_the_size_of_a_prediction_is_known_before_the_loop() -> None:
    squares = Bundle.read(prepare(dense(FEATURES, 5, 2), loss=mean_squared_error()))
    around, body = operators(stacked(squares).graph)
    assert not body["Size"] + body["Shape"] + body["Div"]
    assert around["ReduceMean"] == 1


def test_what_is_handed_through_the_loop_counts_for_its_memory() -> None:
    # Log-probabilities and the one-hot form of a label; a prediction.
    assert stacked(perceptron()).carried_bytes == 2 * 4 * CLASSES
    squares = Bundle.read(prepare(dense(FEATURES, 5, 2), loss=mean_squared_error()))
    assert stacked(squares).carried_bytes == 4 * 2


@pytest.mark.parametrize("batch", [1, 3])
def test_calls_of_any_length_give_the_same_bits(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = perceptron("momentum")
    stacks = Stacks(bundle)

    def trained() -> list[bytes]:
        jobs = [stacks.ready(job) for job in jobs_for(bundle, [20, 13, 7], batch_size=batch)]
        out = []
        for result in stacks.train(jobs):
            assert isinstance(result, TrainResult)
            out += [result.weights.tobytes(), result.losses.tobytes()]
        return out

    whole = trained()
    monkeypatch.setattr(stack, "DATA_BYTES", 1)
    assert trained() == whole
