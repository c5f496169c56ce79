"""Laws of heads: whatever a classifier ends in, the loss is put on the logits, and the outputs stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import NodeProto, helper
from read_models import Array, agree, run_source
from small_models import node, normal, onnx_file

from laconic.errors import LaconicError
from laconic.runtime import Bundle
from laconic.training import binary_cross_entropy, prepare
from laconic.training.source import Source, load
from often import examples

CROSS_ENTROPY = frozenset({"Softmax", "LogSoftmax"})
BINARY = frozenset({"Sigmoid"})


def value(source: Source, tensor: str, x: Array) -> Array:
    """What a tensor inside of a source is."""
    return run_source(replace(source, outputs=(tensor,)), {"x": x})[0]


def ends_in(
    tail: Sequence[NodeProto], width: int = 3, constants: Mapping[str, Array] | None = None, kind: int = 1
) -> bytes:
    nodes = [node("Gemm", ["x", "w", "b"], ["z"]), *tail]
    weights = {"w": normal(0, 4, width), "b": normal(1, width), **(constants or {})}
    model = onnx.load_from_string(onnx_file(nodes, weights, ("n", 4)))
    model.graph.output[0].type.tensor_type.elem_type = kind
    return model.SerializeToString()


@settings(max_examples=examples(30), deadline=None)
@given(
    st.sampled_from(["Softmax", "LogSoftmax", "Sigmoid"]),
    st.lists(st.sampled_from(["Identity", "Reshape", "Squeeze", "Flatten"]), max_size=3),
)
def test_the_loss_is_put_before_a_final_activation(op: str, arranging: Sequence[str]) -> None:
    """Also when the activation comes before axes of size 1 are dropped, as in networks of convolutions."""
    tail = [
        node("Unsqueeze", ["z", "axes"], ["u"]),
        node(op, ["u"], ["t0"], **({} if op == "Sigmoid" else {"axis": 1})),
    ]
    constants = {"axes": np.array([2, 3]), "flat": np.array([0, -1])}
    steps = arranging or ["Flatten"]
    if steps[0] == "Identity":
        steps = [*steps, "Flatten"]
    for i, step in enumerate(steps):
        inputs = [f"t{i}"]
        if step == "Reshape":
            inputs.append("flat")
        elif step == "Squeeze":
            first = all(s == "Identity" for s in steps[:i])
            if not first:
                step = "Identity"
            else:
                inputs.append("axes")
        tail.append(node(step, inputs, [f"t{i + 1}"]))
    tail.append(node("Identity", [f"t{len(steps)}"], ["y"]))
    x = normal(5, 6, 4)
    source = agree(ends_in(tail, constants=constants), {"x": x})
    absorbs = BINARY if op == "Sigmoid" else CROSS_ENTROPY
    found = source.prediction("y", absorbs)
    logits = value(source, "z", x)
    if value(source, found, x).shape == logits.shape and steps.count("Identity") + 1 >= len(steps):
        np.testing.assert_allclose(value(source, found, x), logits, rtol=1e-6)
    other = CROSS_ENTROPY if op == "Sigmoid" else BINARY
    np.testing.assert_array_equal(value(source, source.prediction("y", other), x), value(source, "y", x))


def test_labels_lead_to_the_scores_that_they_were_chosen_from() -> None:
    table = np.array([7, 5, 9])
    tail = [
        node("Softmax", ["z"], ["p"]),
        node("ArgMax", ["p"], ["i"], axis=1, keepdims=1),
        node("Squeeze", ["i", "one"], ["j"]),
        node("Gather", ["table", "j"], ["label"]),
        node("Cast", ["label"], ["y"], to=6),
    ]
    file = ends_in(tail, constants={"table": table, "one": np.array([1])}, kind=6)
    source = agree(file, {"x": normal(5, 6, 4)})
    assert source.trained == ("y",)
    assert source.prediction("y", CROSS_ENTROPY) == "z"


def test_the_first_output_of_real_numbers_is_trained() -> None:
    tail = [node("ArgMax", ["z"], ["y"], axis=1, keepdims=0), node("Softmax", ["z"], ["p"])]
    model = onnx.load_from_string(ends_in(tail, kind=7))
    model.graph.output.append(helper.make_tensor_value_info("p", 1, ["n", 3]))
    source = agree(model.SerializeToString(), {"x": normal(5, 6, 4)})
    assert (source.outputs, source.trained) == (("y", "p"), ("p",))
    assert source.prediction("p", CROSS_ENTROPY) == source.prediction("y", CROSS_ENTROPY) == "z"


@pytest.mark.parametrize("axis", [1, -1])
def test_two_classes_from_one_logit_serve_both_losses(axis: int) -> None:
    tail = [
        node("Sigmoid", ["z"], ["p"]),
        node("Sub", ["one", "p"], ["q"]),
        node("Concat", ["q", "p"], ["y"], axis=axis),
    ]
    x = normal(5, 6, 4)
    source = agree(ends_in(tail, 1, {"one": np.array(1, np.float32)}), {"x": x})
    assert source.prediction("y", BINARY) == "z"
    logits, z = value(source, source.prediction("y", CROSS_ENTROPY), x), value(source, "z", x)
    np.testing.assert_array_equal(logits, np.concatenate([0 * z, z], 1))


@pytest.mark.parametrize("axis", [1, -1])
@pytest.mark.parametrize("labels", [2, 3])
def test_of_several_labels_and_their_complements_the_labels_are_predicted(axis: int, labels: int) -> None:
    """scikit-learn's MLPClassifier for two labels leaves as four columns: (1 - p, p)."""
    tail = [
        node("Sigmoid", ["z"], ["p"]),
        node("Binarizer", ["p"], ["over"], domain="ai.onnx.ml", threshold=0.5),
        node("Cast", ["over"], ["label"], to=7),
        node("Sub", ["one", "p"], ["q"]),
        node("Concat", ["q", "p"], ["y"], axis=axis),
    ]
    model = onnx.load_from_string(ends_in(tail, labels, {"one": np.array(1, np.float32)}))
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 1))
    model.graph.output.insert(0, helper.make_tensor_value_info("label", 7, ["n", labels]))
    file = model.SerializeToString()
    source = agree(file, {"x": normal(5, 6, 4)})
    assert (source.trained, source.types["y"].shape) == (("y",), ("batch", 2 * labels))
    assert source.prediction("y", BINARY) == source.prediction("label", BINARY) == "z"
    assert source.prediction("y", frozenset()) == "p"
    bundle = Bundle.read(prepare(file, loss=binary_cross_entropy()))
    assert [(t.shape, t.classes) for t in bundle.manifest.targets] == [((labels,), 0)]


def test_two_classes_of_a_picture_stay_two() -> None:
    """One sigmoid for each place, beside its complement: a choice between two, not one label."""
    tail = [
        node("Unsqueeze", ["z", "axes"], ["u"]),
        node("Sigmoid", ["u"], ["p"]),
        node("Sub", ["one", "p"], ["q"]),
        node("Concat", ["q", "p"], ["y"], axis=1),
    ]
    constants = {"one": np.array(1, np.float32), "axes": np.array([1])}
    source = agree(ends_in(tail, 3, constants), {"x": normal(5, 6, 4)})
    assert source.prediction("y", CROSS_ENTROPY) == "y"


def test_a_sigmoid_over_one_column_is_absorbed() -> None:
    source = agree(ends_in([node("Sigmoid", ["z"], ["y"])], 1), {"x": normal(5, 6, 4)})
    assert (source.prediction("y", BINARY), source.prediction("y", CROSS_ENTROPY)) == ("z", "y")


def test_a_softmax_over_another_axis_is_no_head() -> None:
    source = agree(ends_in([node("Softmax", ["z"], ["y"], axis=0)]), {"x": normal(5, 6, 4)})
    assert source.prediction("y", CROSS_ENTROPY) == "y"


def pipeline(nodes: Sequence[NodeProto], outputs: Sequence[Any], features: int = 4) -> bytes:
    graph = helper.make_graph(
        list(nodes), "pipeline", [helper.make_tensor_value_info("x", 1, [None, features])], list(outputs)
    )
    versions = [helper.make_opsetid("", 15), helper.make_opsetid("ai.onnx.ml", 2)]
    return helper.make_model(graph, opset_imports=versions, ir_version=8).SerializeToString()


def linear_classifier(rows: Array, intercepts: Array, transform: str, classes: Sequence[Any]) -> NodeProto:
    names = "classlabels_ints" if isinstance(classes[0], int) else "classlabels_strings"
    return node(
        "LinearClassifier",
        ["x"],
        ["label", "scores"],
        domain="ai.onnx.ml",
        coefficients=rows.ravel().tolist(),
        intercepts=intercepts.tolist(),
        post_transform=transform,
        **{names: list(classes)},
    )


def labelled(kind: int, name: str = "label") -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, [None])


def scored(name: str = "scores") -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, 1, [None, None])


@settings(max_examples=examples(40), deadline=None)
@given(
    st.sampled_from(["one row", "mirrored", "two rows", "three rows"]),
    st.sampled_from(["NONE", "SOFTMAX", "LOGISTIC"]),
    st.booleans(),
    st.integers(0, 99),
)
def test_linear_classifiers_are_what_onnxruntime_computes(
    form: str, transform: str, text: bool, seed: int
) -> None:
    w, b = normal(seed, 3, 4), normal(seed + 1, 3)
    rows, intercepts = {
        "one row": (w[:1], b[:1]),
        "mirrored": (np.stack([-w[0], w[0]]), np.array([-b[0], b[0]], np.float32)),
        "two rows": (w[:2], b[:2]),
        "three rows": (w, b),
    }[form]
    count = max(len(rows), 2)
    classes: list[Any] = ["a", "b", "c"][:count] if text else [4, 2, 8][:count]
    file = pipeline(
        [linear_classifier(rows, intercepts, transform, classes)], [labelled(8 if text else 7), scored()]
    )
    source = agree(file, {"x": normal(seed + 2, 7, 4)})
    assert [p.name for p in source.parameters] == ["coefficients", "intercepts"]
    assert source.trained == ("scores",)
    assert source.classes == ({"label": tuple(classes)} if text else {})


@pytest.mark.parametrize("transform", ["SOFTMAX", "LOGISTIC"])
@pytest.mark.parametrize("count", [2, 3])
def test_the_probabilities_of_a_pipeline_lead_to_logits(transform: str, count: int) -> None:
    w, b = normal(0, 3, 4), normal(1, 3)
    rows, intercepts = (np.stack([-w[0], w[0]]), np.array([-b[0], b[0]])) if count == 2 else (w, b)
    nodes = [
        linear_classifier(rows, intercepts, transform, list(range(count))),
        node("Normalizer", ["scores"], ["p"], domain="ai.onnx.ml", norm="L1"),
        node("ZipMap", ["p"], ["y"], domain="ai.onnx.ml", classlabels_int64s=list(range(count))),
    ]
    kind = helper.make_map_type_proto(7, helper.make_tensor_type_proto(1, []))
    zipped = helper.make_value_info("y", helper.make_sequence_type_proto(kind))
    x = normal(2, 7, 4)
    source = agree(pipeline(nodes, [labelled(7), zipped]), {"x": x})
    logits = value(source, source.prediction("y", CROSS_ENTROPY), x)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(p, value(source, "y", x), rtol=1e-5, atol=1e-6)
    assert source.prediction("y", CROSS_ENTROPY) not in ("y", "p")


def test_mixtures_of_probabilities_become_the_softmax_of_their_logarithms() -> None:
    made = []
    for i in range(2):
        inner = linear_classifier(normal(i, 3, 4), normal(i + 5, 3), "SOFTMAX", [0, 1, 2])
        inner.output[:] = [f"label{i}", f"p{i}"]
        made += [inner, node("Mul", [f"p{i}", "half"], [f"m{i}"])]
    half = helper.make_node("Constant", [], ["half"], value_float=0.5)
    file = pipeline([half, *made, node("Add", ["m0", "m1"], ["scores"])], [scored()])
    x = normal(2, 7, 4)
    source = agree(file, {"x": x})
    logits = value(source, source.prediction("scores", CROSS_ENTROPY), x)
    np.testing.assert_allclose(np.exp(logits), value(source, "scores", x), rtol=1e-5)


PREPARATION = {
    "Scaler": {"offset": [0.5, 0, -1, 2], "scale": [2, 1, 0.5, 3]},
    "Normalizer": {"norm": "L2"},
    "Binarizer": {"threshold": 0.2},
    "Imputer": {"imputed_value_floats": [1.0, 2.0, 3.0, 4.0], "replaced_value_float": float("nan")},
}


@pytest.mark.parametrize("op", PREPARATION)
def test_preparation_of_data_is_written_out_and_holds_no_weights(op: str) -> None:
    nodes = [
        node(op, ["x"], ["a"], domain="ai.onnx.ml", **PREPARATION[op]),
        node(
            "LinearRegressor",
            ["a"],
            ["scores"],
            domain="ai.onnx.ml",
            targets=2,
            coefficients=normal(0, 8).tolist(),
            intercepts=[1.0, 2.0],
        ),
    ]
    x = normal(2, 7, 4)
    if op == "Imputer":
        x[1, 2] = x[3, 0] = np.nan
    source = agree(pipeline(nodes, [scored()]), {"x": x})
    assert [(p.name, p.value.shape) for p in source.parameters] == [
        ("coefficients", (2, 4)),
        ("intercepts", (2,)),
    ]


@settings(max_examples=examples(20), deadline=None)
@given(st.sampled_from(["MAX", "L1", "L2"]), st.integers(0, 99))
def test_rows_are_normalised_as_onnxruntime_does(norm: str, seed: int) -> None:
    """Also those without a positive element, and of zeros."""
    normalizer = node("Normalizer", ["x"], ["a"], domain="ai.onnx.ml", norm=norm)
    last = node("LinearRegressor", ["a"], ["scores"], domain="ai.onnx.ml", coefficients=normal(0, 4).tolist())
    last.attribute.extend([helper.make_attribute("intercepts", [1.0]), helper.make_attribute("targets", 1)])
    x = normal(seed, 6, 4)
    x[1], x[2, 0], x[3] = -np.abs(x[1]), 0, 0
    x[4] = np.minimum(x[4], 0)
    agree(pipeline([normalizer, last], [scored()]), {"x": x})


@pytest.mark.parametrize("keys", ["keys_int64s", "keys_floats"])
def test_tables_of_labels_are_looked_up(keys: str) -> None:
    x = np.array([[3, 1, 5, 9], [1, 1, 3, 0]], np.float32)
    cast = node("Cast", ["x"], ["a"], to=7 if keys == "keys_int64s" else 1)
    table = node(
        "LabelEncoder",
        ["a"],
        ["scores"],
        domain="ai.onnx.ml",
        **{keys: [1, 3, 5] if keys == "keys_int64s" else [1.0, 3.0, 5.0]},
        values_floats=[0.5, 1.5, 2.5],
        default_float=-7.0,
    )
    agree(pipeline([cast, table], [scored()]), {"x": x})


@pytest.mark.parametrize(
    ("op", "reason"),
    [
        ("TreeEnsembleClassifier", "no gradient"),
        ("SVMClassifier", "are data, not weights"),
        ("TfIdf", "TfIdf"),
    ],
)
def test_what_has_no_gradient_is_refused_with_the_reason(op: str, reason: str) -> None:
    attributes: dict[str, Any] = {"classlabels_int64s": [0, 1]} if "Tree" in op else {}
    with pytest.raises(LaconicError, match=reason):
        load(pipeline([node(op, ["x"], ["label", "scores"], domain="ai.onnx.ml", **attributes)], [scored()]))


def test_arrays_of_features_are_picked() -> None:
    index = helper.make_node("Constant", [], ["i"], value_ints=[2, 0])
    pick = node("ArrayFeatureExtractor", ["x", "i"], ["a"], domain="ai.onnx.ml")
    join = node("FeatureVectorizer", ["a", "x"], ["scores"], domain="ai.onnx.ml", inputdimensions=[2, 4])
    agree(pipeline([index, pick, join], [scored()]), {"x": normal(0, 5, 4)})
