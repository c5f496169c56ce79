"""Laws of `prepare`: what becomes of a source model's names, weights, shapes and oddities."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from small_models import node, normal, onnx_file, perceptron, softmax_regression

from laconic.errors import ConfigError, LaconicError, ModelError, UnsupportedOperator
from laconic.runtime import Bundle, Trainer
from laconic.runtime.batches import Inputs
from laconic.runtime.trainer import Form
from laconic.training import prepare
from laconic.training.models import digits_cnn
from often import examples

GRAPHS = ("step", "epoch", "evaluation", "inference")


def names(bundle: Bundle) -> list[str]:
    return [t.name for t in bundle.schema.tensors]


def train(bundle: Bundle, x: Inputs, y: np.ndarray, **settings: object) -> np.ndarray:
    given = {"epochs": 2, "batch_size": 4, "learning_rate": 0.1, "seed": 0} | settings
    return Trainer(bundle).train(bundle.initial, x, y, **given).weights  # type: ignore[arg-type]


def test_the_same_model_gives_the_same_bytes() -> None:
    assert prepare(digits_cnn()) == prepare(digits_cnn())
    assert prepare(digits_cnn(0)) != prepare(digits_cnn(1))


def test_graphs_hold_standard_operators_and_no_weights() -> None:
    bundle = Bundle.read(prepare(digits_cnn()))
    for name in GRAPHS:
        model = onnx.load_from_string(bundle.parts[name])
        assert model.ir_version == 8
        assert [(o.domain, o.version) for o in model.opset_import] == [("", 18)]
        bodies = [a.g for n in model.graph.node for a in n.attribute if a.name == "body"]
        for graph in (model.graph, *bodies):
            assert {n.domain for n in graph.node} == {""}
            assert all(numpy_helper.to_array(i).size <= 1024 for i in graph.initializer)
        inputs = {i.name for i in model.graph.input}
        assert inputs.issuperset(names(bundle))


def test_weights_keep_their_names_shapes_order_and_values() -> None:
    bundle = Bundle.read(prepare(perceptron()))
    assert names(bundle) == ["w1", "b1", "w2", "b2"]
    tensors = bundle.schema.unflatten(bundle.initial)
    for initializer in onnx.load_from_string(perceptron()).graph.initializer:
        assert np.array_equal(tensors[initializer.name], numpy_helper.to_array(initializer))


def test_weights_with_equal_values_stay_apart() -> None:
    nodes = [node("Gemm", ["x", "w1", "b1"], ["a"]), node("Gemm", ["a", "w2", "b2"], ["y"])]
    square = normal(0, 3, 3)
    weights = {"w1": square, "b1": np.zeros(3, np.float32), "w2": square, "b2": np.zeros(3, np.float32)}
    bundle = Bundle.read(prepare(onnx_file(nodes, weights, ("n", 3))))
    assert names(bundle) == list(weights)
    trained = bundle.schema.unflatten(train(bundle, normal(1, 8, 3), np.arange(8) % 3))
    assert not np.array_equal(trained["w1"], trained["w2"])


def test_a_weight_used_twice_is_one_parameter() -> None:
    nodes = [node("MatMul", ["x", "w"], ["a"]), node("Relu", ["a"], ["b"]), node("MatMul", ["b", "w"], ["y"])]
    bundle = Bundle.read(prepare(onnx_file(nodes, {"w": normal(0, 3, 3)}, ("n", 3))))
    assert names(bundle) == ["w"]
    assert not np.array_equal(train(bundle, normal(1, 8, 3), np.arange(8) % 3), bundle.initial)


def test_a_constant_node_can_hold_a_weight_and_a_scalar_is_no_weight() -> None:
    nodes = [
        node("Constant", [], ["w"], value=numpy_helper.from_array(normal(0, 4, 3))),
        node("Constant", [], ["tenth"], value=numpy_helper.from_array(np.array(0.1, np.float32))),
        node("MatMul", ["x", "w"], ["a"]),
        node("Add", ["a", "tenth"], ["y"]),
    ]
    bundle = Bundle.read(prepare(onnx_file(nodes, {}, ("n", 4))))
    assert names(bundle) == ["w"]


@pytest.mark.parametrize("final", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("axis", [1, -1])
def test_the_loss_is_put_before_a_final_softmax(final: str, axis: int) -> None:
    plain = onnx.load_from_string(perceptron())
    logits = Bundle.read(prepare(plain.SerializeToString()))
    plain.graph.node.append(node(final, ["y"], ["p"], axis=axis))
    plain.graph.node.append(node("Identity", ["p"], ["q"]))
    plain.graph.output[0].name = "q"
    bundle = Bundle.read(prepare(plain.SerializeToString()))
    x, y = normal(5, 10, 4), np.arange(10) % 3
    assert np.array_equal(train(bundle, x, y), train(logits, x, y))
    p = Trainer(bundle).predict(bundle.initial, x)
    assert np.allclose((p if final == "Softmax" else np.exp(p)).sum(1), 1, atol=1e-5)


def with_flatten(target: Sequence[int], batch: int | str, opset: int = 18) -> bytes:
    nodes = [
        node("Conv", ["x", "k"], ["a"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Reshape", ["a", "target"], ["b"]),
        node("MatMul", ["b", "w"], ["y"]),
    ]
    weights = {
        "k": normal(0, 2, 1, 3, 3),
        "w": normal(1, 32, 3),
        "target": np.array(target, np.int64),
    }
    return onnx_file(nodes, weights, (batch, 1, 4, 4), output_shape=(batch, 3), opset=opset)


@pytest.mark.parametrize(
    ("target", "batch"),
    [((1, 32), 1), ((1, -1), 1), ((-1, 32), 1), ((7, 32), 7), ((-1, 32), "n"), ((0, -1), "n"), ((0, 32), 1)],
)
def test_the_batch_size_of_the_export_does_not_matter(target: Sequence[int], batch: int | str) -> None:
    bundle = Bundle.read(prepare(with_flatten(target, batch)))
    x, y = normal(2, 9, 1, 4, 4), np.arange(9) % 3
    due = Bundle.read(prepare(with_flatten((0, 32), "batch")))
    assert np.array_equal(train(bundle, x, y), train(due, x, y))
    for size in (1, 2, 9):
        assert Trainer(bundle).predict(bundle.initial, x[:size]).shape == (size, 3)


def test_a_reshape_that_mixes_samples_is_refused() -> None:
    nodes = [node("Reshape", ["x", "target"], ["a"]), node("MatMul", ["a", "w"], ["y"])]
    weights = {"w": normal(0, 8, 3), "target": np.array([1, 8], np.int64)}
    with pytest.raises(ModelError, match="batch"):
        prepare(onnx_file(nodes, weights, (2, 4)))


def test_the_shape_arithmetic_of_exporters_is_understood() -> None:
    nodes = [
        node("Conv", ["x", "k"], ["a"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Shape", ["a"], ["s"]),
        node("Gather", ["s", "zero"], ["n"], axis=0),
        node("Unsqueeze", ["n", "axes"], ["n1"]),
        node("Concat", ["n1", "rest"], ["target"], axis=0),
        node("Reshape", ["a", "target"], ["b"]),
        node("MatMul", ["b", "w"], ["y"]),
    ]
    weights = {
        "k": normal(0, 2, 1, 3, 3),
        "w": normal(1, 32, 3),
        "zero": np.array(0, np.int64),
        "axes": np.array([0], np.int64),
        "rest": np.array([-1], np.int64),
    }
    for batch in ("n", 1):
        bundle = Bundle.read(prepare(onnx_file(nodes, weights, (batch, 1, 4, 4))))
        x, y = normal(2, 9, 1, 4, 4), np.arange(9) % 3
        due = Bundle.read(prepare(with_flatten((0, 32), "batch")))
        assert np.array_equal(train(bundle, x, y), train(due, x, y))


@pytest.mark.parametrize("opset", [13, 17, 18, 19, 21])
def test_old_and_new_opsets_give_the_same_training(opset: int) -> None:
    bundle = Bundle.read(prepare(with_flatten((-1, 32), "n", opset)))
    due = Bundle.read(prepare(with_flatten((-1, 32), "n")))
    x, y = normal(2, 9, 1, 4, 4), np.arange(9) % 3
    assert np.array_equal(train(bundle, x, y), train(due, x, y))


def test_open_sample_axes_can_be_closed() -> None:
    weights = {"W": normal(0, 5, 3)}
    file = onnx_file([node("MatMul", ["x", "W"], ["y"])], weights, ("n", "features"))
    opened = Bundle.read(prepare(file))
    assert opened.manifest.inputs[0].shape == (None,)
    assert not np.array_equal(train(opened, normal(1, 8, 5), np.arange(8) % 3), opened.initial)
    assert Bundle.read(prepare(file, input_shapes={"x": (5,)})).manifest.inputs[0].shape == (5,)
    with pytest.raises(ConfigError, match="input_shapes"):
        prepare(file, input_shapes={"z": (5,)})
    with pytest.raises(ConfigError, match="shape of input 'x'"):
        prepare(softmax_regression(), input_shapes={"x": (6,)})


def test_an_operator_without_a_rule_is_named() -> None:
    nodes = [node("MatMul", ["x", "w"], ["a"]), node("Hardmax", ["a"], ["y"], name="the/bend")]
    with pytest.raises(UnsupportedOperator) as caught:
        prepare(onnx_file(nodes, {"w": normal(0, 4, 3)}, ("n", 4)))
    error = caught.value
    assert (error.op_type, error.domain, error.opset, error.node) == ("Hardmax", "", 18, "the/bend")
    assert "docs/add-an-operator.md" in error.remedy


def test_an_operator_outside_the_standard_is_named() -> None:
    model = onnx.load_from_string(softmax_regression())
    model.graph.node[0].domain = "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 3))
    with pytest.raises(UnsupportedOperator) as caught:
        prepare(model.SerializeToString())
    assert (caught.value.op_type, caught.value.domain, caught.value.opset) == ("Gemm", "com.example", 3)


def test_an_operator_before_every_trainable_weight_needs_no_rule() -> None:
    nodes = [node("Tan", ["x"], ["a"]), node("MatMul", ["a", "w"], ["y"])]
    bundle = Bundle.read(prepare(onnx_file(nodes, {"w": normal(0, 4, 3)}, ("n", 4))))
    assert not np.array_equal(train(bundle, normal(1, 8, 4), np.arange(8) % 3), bundle.initial)


def test_frozen_weights_stay_and_shorten_the_backward_pass() -> None:
    everything, head = (
        Bundle.read(prepare(digits_cnn())),
        Bundle.read(prepare(digits_cnn(), frozen=["conv*"])),
    )
    assert names(head) == ["dense1.weight", "dense1.bias", "dense2.weight", "dense2.bias"]
    assert len(head.parts["step"]) < len(everything.parts["step"]) * 0.6
    assert set(head.frozen) == {"conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias"}
    x = normal(0, 12, 1, 8, 8)
    # What is known to be constant is prepared, and so summed in another order.
    np.testing.assert_allclose(
        Trainer(head).predict(head.initial, x),
        Trainer(everything).predict(everything.initial, x),
        rtol=1e-5,
        atol=1e-5,
    )


def test_local_weights_are_trained_but_do_not_travel() -> None:
    bundle = Bundle.read(prepare(perceptron(), local=["*2"]))
    whole = Bundle.read(prepare(perceptron()))
    assert names(bundle) == ["w1", "b1"]
    x, y = normal(5, 10, 4), np.arange(10) % 3
    settings = {"epochs": 2, "batch_size": 4, "learning_rate": 0.1, "seed": 0}
    result = Trainer(bundle).train(bundle.initial, x, y, **settings)  # type: ignore[arg-type]
    due = train(whole, x, y)
    assert np.array_equal(np.concatenate([result.weights, result.local]), due)
    metrics = Trainer(bundle).evaluate(result.weights, x, y, local=result.local)
    assert metrics == Trainer(whole).evaluate(due, x, y)


@pytest.mark.parametrize("form", ["epoch", "step"])
def test_roles_state_and_proximal_term_go_together(form: Form) -> None:
    bundle = Bundle.read(
        prepare(perceptron(), optimizer="momentum", proximal=True, frozen=["w1"], local=["b2"])
    )
    assert names(bundle) == ["b1", "w2"]
    assert [t.name for t in bundle.local_schema.tensors] == ["b2"]
    x, y = normal(5, 10, 4), np.arange(10) % 3
    settings: dict[str, Any] = {"epochs": 3, "batch_size": 4, "learning_rate": 0.1, "seed": 0}
    loose, tight = (
        Trainer(bundle, form=form).train(bundle.initial, x, y, **settings, proximal_mu=mu) for mu in (0, 5)
    )
    start = bundle.initial
    assert 0 < np.linalg.norm(tight.weights - start) < np.linalg.norm(loose.weights - start)
    assert not np.array_equal(loose.local, bundle.initial_local)


def test_a_pattern_that_matches_nothing_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match="pattern"):
        prepare(perceptron(), frozen=["cnov*"])


@pytest.mark.parametrize(
    "patterns", [{"frozen": ["*"]}, {"local": ["*"]}, {"trainable": ["w1"], "frozen": ["w*"]}]
)
def test_patterns_that_leave_nothing_to_train_are_a_mistake(patterns: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="no parameter is left that trains"):
        prepare(perceptron(), **patterns)


def test_only_the_chosen_output_is_trained() -> None:
    nodes = [node("MatMul", ["x", "w1"], ["y"]), node("MatMul", ["x", "w2"], ["z"])]
    model = onnx.load_from_string(onnx_file(nodes, {"w1": normal(0, 4, 3), "w2": normal(1, 4, 2)}, ("n", 4)))
    model.graph.output.append(helper.make_tensor_value_info("z", 1, ["n", 2]))
    first = Bundle.read(prepare(model.SerializeToString()))
    other = Bundle.read(prepare(model.SerializeToString(), output="z"))
    for bundle, trained, frozen, classes in ((first, "w1", "w2", 3), (other, "w2", "w1", 2)):
        assert (names(bundle), list(bundle.frozen)) == ([trained], [frozen])
        (target,) = bundle.manifest.targets
        assert (target.name, target.classes) == ("target", classes)
        assert [o.name for o in bundle.manifest.outputs] == ["y", "z"]
    with pytest.raises(ConfigError, match="output"):
        prepare(model.SerializeToString(), output="q")


def test_a_model_may_have_several_inputs() -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("MatMul", ["z", "v"], ["b"]),
        node("Add", ["a", "b"], ["y"]),
    ]
    model = onnx.load_from_string(onnx_file(nodes, {"w": normal(0, 4, 3), "v": normal(1, 2, 3)}, ("n", 4)))
    model.graph.input.append(helper.make_tensor_value_info("z", 1, ["m", 2]))
    bundle = Bundle.read(prepare(model.SerializeToString()))
    assert [(i.name, i.shape) for i in bundle.manifest.inputs] == [("x", (4,)), ("z", (2,))]
    data = {"x": normal(2, 9, 4), "z": normal(3, 9, 2)}
    due = data["x"] @ normal(0, 4, 3) + data["z"] @ normal(1, 2, 3)
    assert np.allclose(Trainer(bundle).predict(bundle.initial, data), due, atol=1e-5)
    assert not np.array_equal(train(bundle, data, np.arange(9) % 3), bundle.initial)
    with pytest.raises(ConfigError, match="several inputs"):
        train(bundle, data["x"], np.arange(9) % 3)
    with pytest.raises(ConfigError, match="differ"):
        train(bundle, {**data, "z": data["z"][:3]}, np.arange(9) % 3)


def test_data_in_other_files_is_refused() -> None:
    model = onnx.load_from_string(softmax_regression())
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    with pytest.raises(ModelError, match="another file"):
        prepare(model.SerializeToString())


@pytest.mark.parametrize("name", ["lr", "target", "target/y", "seed", "step", "sum/loss", "opt/m/w", "w:new"])
def test_names_that_the_graphs_need_are_refused(name: str) -> None:
    nodes = [node("MatMul", ["x", name], ["y"])]
    with pytest.raises(ModelError, match="reserved"):
        prepare(onnx_file(nodes, {name: normal(0, 4, 3)}, ("n", 4)))


def test_names_of_inner_tensors_do_not_matter() -> None:
    model = onnx.load_from_string(perceptron())
    renamed = {"a": "lr", "b": "w1:new", "c": "loss"}
    for n in model.graph.node:
        n.input[:] = [renamed.get(i, i) for i in n.input]
        n.output[:] = [renamed.get(o, o) for o in n.output]
    x, y = normal(5, 10, 4), np.arange(10) % 3
    bundle, due = Bundle.read(prepare(model.SerializeToString())), Bundle.read(prepare(perceptron()))
    assert np.array_equal(train(bundle, x, y), train(due, x, y))


def test_weights_that_are_not_finite_are_refused() -> None:
    weights = {"w": np.full((4, 3), np.inf, np.float32)}
    with pytest.raises(ModelError, match="not finite"):
        prepare(onnx_file([node("MatMul", ["x", "w"], ["y"])], weights, ("n", 4)))


def test_unknown_names_of_losses_and_optimizers_list_the_known() -> None:
    with pytest.raises(ConfigError, match="cross_entropy"):
        prepare(perceptron(), loss="cross-entropy")
    with pytest.raises(ConfigError, match="momentum"):
        prepare(perceptron(), optimizer="sdg")


@settings(max_examples=examples(60), deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 12))
def test_a_damaged_model_is_refused_or_prepared_but_never_crashes(seed: int, edits: int) -> None:
    rng = np.random.default_rng(seed)
    file = bytearray(perceptron())
    for _ in range(edits):
        file[rng.integers(len(file))] = rng.integers(256)
    with contextlib.suppress(LaconicError):
        Bundle.read(prepare(bytes(file)))


@pytest.mark.parametrize("file", [b"", b"\0" * 64, b"not a model", b"\x08\x08"])
def test_what_is_no_model_is_refused(file: bytes) -> None:
    with pytest.raises(ModelError, match="not an ONNX model"):
        prepare(file)
