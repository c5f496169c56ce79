"""Laws of reading a file: what is a weight, what becomes of shapes, branches, precisions and other files."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from read_models import agree, run_file, run_source
from small_models import node, normal, onnx_file, perceptron

from laconic.errors import LaconicError, ModelError, UnsupportedOperator
from laconic.training.builder import BATCH
from laconic.training.source import Source, load
from laconic.training.source.sizes import Axes, Size
from often import examples


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def parameters(source: Source) -> list[str]:
    return [p.name for p in source.parameters]


def operators(source: Source) -> list[str]:
    return [n.op_type for n in source.nodes]


# --- weights ------------------------------------------------------------------------------------------------


def test_settings_are_no_weights() -> None:
    nodes = [
        node("Conv", ["x", "k"], ["a"]),
        node("Pad", ["a", "pads", "fill"], ["b"]),
        node("Resize", ["b", "roi", "scales"], ["c"], mode="nearest"),
        node("Clip", ["c", "low", "high"], ["d"]),
        node("Pow", ["d", "two"], ["e"]),
        node("Add", ["e", "mask"], ["y"]),
    ]
    values = {
        "k": normal(0, 2, 1, 3, 3),
        "pads": ints(0, 0, 1, 1, 0, 0, 1, 1),
        "fill": np.float32(0.5).reshape(()),
        "roi": np.zeros(0, np.float32),
        "scales": np.array([1, 1, 2, 2], np.float32),
        "low": np.array(-1, np.float32),
        "high": np.array(6, np.float32),
        "two": np.array([2], np.float32),
        "mask": np.array([0, 0, 0, -1e9], np.float32).reshape(1, 1, 1, 4).repeat(2, 3),
    }
    file = onnx_file(nodes, values, ("n", 1, 4, 4))
    assert parameters(agree(file, {"x": normal(1, 3, 1, 4, 4)})) == ["k"]


def test_the_statistics_of_a_data_set_are_no_weights() -> None:
    nodes = [
        node("Cast", ["x"], ["real"], to=1),
        node("Sub", ["real", "mean"], ["a"]),
        node("Div", ["a", "deviation"], ["b"]),
        node("MatMul", ["b", "w"], ["c"]),
        node("Sub", ["c", "v"], ["y"]),
    ]
    values = {
        "mean": normal(0, 4),
        "deviation": normal(1, 4) ** 2 + 1,
        "w": normal(2, 4, 3),
        "v": normal(3, 3),
    }
    file = onnx_file(nodes, values, ("n", 4), dtype=6)
    assert parameters(agree(file, {"x": np.arange(8, dtype=np.int32).reshape(2, 4)})) == ["w", "v"]


def test_running_statistics_are_statistics_also_in_a_training_export() -> None:
    names = ["scale", "bias", "mean", "var"]
    values = {n: normal(i, 3) ** 2 + 0.5 for i, n in enumerate(names)}
    training = node("BatchNormalization", ["x", *names], ["y", "m", "v"], training_mode=1)
    source = load(onnx_file([training], values, ("n", 3, 5)))
    assert [(p.name, p.kind) for p in source.parameters] == [
        ("scale", "weight"),
        ("bias", "weight"),
        ("mean", "statistic"),
        ("var", "statistic"),
    ]
    plain = onnx_file([node("BatchNormalization", ["x", *names], ["y"])], values, ("n", 3, 5))
    x = {"x": normal(9, 4, 3, 5)}
    assert np.allclose(run_source(source, x)[0], run_file(plain, x)[0], atol=1e-6)


def test_weights_behind_identity_keep_their_name() -> None:
    nodes = [
        node("Identity", ["w"], ["w2"]),
        node("MatMul", ["x", "w"], ["a"]),
        node("MatMul", ["a", "w2"], ["y"]),
    ]
    source = agree(onnx_file(nodes, {"w": normal(0, 3, 3)}, ("n", 3)), {"x": normal(1, 2, 3)})
    assert (parameters(source), operators(source)) == (["w"], ["MatMul", "MatMul"])


def test_initializers_that_are_inputs_too_and_dead_ones() -> None:
    model = onnx.load_from_string(perceptron())
    model.graph.initializer.append(numpy_helper.from_array(normal(0, 2, 2), "unused"))
    for initializer in model.graph.initializer:
        model.graph.input.append(
            helper.make_tensor_value_info(initializer.name, initializer.data_type, initializer.dims)
        )
    model.ir_version = 3
    source = agree(model.SerializeToString(), {"x": normal(1, 2, 4)})
    assert (parameters(source), source.inputs) == (["w1", "b1", "w2", "b2"], ("x",))


# --- precision ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_precisions_become_float32(dtype: Any) -> None:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    weights = {"w": normal(0, 4, 3).astype(dtype), "b": normal(1, 3).astype(dtype)}
    half = numpy_helper.from_array(np.array(0.5, dtype))
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("Add", ["a", "b"], ["c"]),
        node("Constant", [], ["half"], value=half),
        node("Mul", ["c", "half"], ["d"]),
        node("Cast", ["d"], ["e"], to=1),
        node("Cast", ["e"], ["y"], to=kind),
    ]
    model = onnx.load_from_string(onnx_file(nodes, weights, ("n", 4), dtype=kind))
    model.graph.output[0].type.tensor_type.elem_type = kind
    file = model.SerializeToString()
    source = load(file)
    x = normal(2, 5, 4)
    found = run_source(source, {"x": x})[0]
    due = run_file(file, {"x": x.astype(dtype)})[0]
    assert (found.dtype, source.types["x"].dtype) == (np.float32, TensorProto.FLOAT)
    np.testing.assert_allclose(found, due, rtol=1e-2 if dtype == np.float16 else 1e-5, atol=1e-2)
    assert "Cast" not in operators(source)


def test_bfloat16_weights_become_float32() -> None:
    model = onnx.load_from_string(perceptron())
    for initializer in model.graph.initializer:
        values = numpy_helper.to_array(initializer)
        packed = (values.view(np.uint32) >> 16).astype(np.uint16)
        initializer.CopyFrom(
            TensorProto(
                name=initializer.name,
                dims=values.shape,
                data_type=TensorProto.BFLOAT16,
                raw_data=packed.tobytes(),
            )
        )
    for info in (*model.graph.input, *model.graph.output):
        info.type.tensor_type.elem_type = TensorProto.BFLOAT16
    source, due = load(model.SerializeToString()), load(perceptron())
    for p, q in zip(source.parameters, due.parameters, strict=True):
        assert p.value.dtype == np.float32
        np.testing.assert_allclose(p.value, q.value, rtol=2**-7)


def test_quantised_models_are_refused() -> None:
    nodes = [node("DequantizeLinear", ["q", "s"], ["w"]), node("MatMul", ["x", "w"], ["y"])]
    values = {"q": np.ones((4, 3), np.int8), "s": np.array(0.1, np.float32)}
    file = onnx_file(nodes, values, ("n", 4))
    with pytest.raises(ModelError, match=r"quantised.*DequantizeLinear"):
        load(file)
    model = onnx.load_from_string(file)
    versions = [*model.opset_import]
    function = helper.make_function("own", "Weight", ["q", "s"], ["w"], [nodes[0]], versions)
    model.functions.append(function)
    model.opset_import.add(domain="own", version=1)
    model.graph.node[0].op_type, model.graph.node[0].domain = "Weight", "own"
    with pytest.raises(ModelError, match=r"quantised.*DequantizeLinear"):
        load(model.SerializeToString())


@pytest.mark.parametrize("given", [None, 0.7])
def test_attributes_of_functions_have_their_defaults(given: float | None) -> None:
    """Also those of a function that another one calls."""
    versions = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    leaky = node("LeakyRelu", ["x"], ["y"])
    leaky.attribute.add(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT)
    default = [helper.make_attribute("slope", 0.3)]
    inner = helper.make_function("own", "F", ["x"], ["y"], [leaky], versions[:1], attribute_protos=default)
    call = node("F", ["x"], ["y"], domain="own")
    outer = helper.make_function("own", "G", ["x"], ["y"], [call], versions)
    settings = {} if given is None else {"slope": given}
    nodes = [
        node("MatMul", ["x", "w"], ["h"]),
        node("F", ["h"], ["a"], domain="own", **settings),
        node("G", ["a"], ["y"], domain="own"),
    ]
    model = onnx.load_from_string(onnx_file(nodes, {"w": normal(0, 4, 3)}, ("n", 4)))
    model.functions.extend([inner, outer])
    model.opset_import.append(versions[1])
    agree(model.SerializeToString(), {"x": normal(1, 5, 4)})


# --- data in other files ------------------------------------------------------------------------------------


def outside(offset: int | None, length: int | None) -> bytes:
    model = onnx.load_from_string(perceptron())
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="w.bin")
    for key, value in (("offset", offset), ("length", length)):
        if value is not None:
            tensor.external_data.add(key=key, value=str(value))
    return model.SerializeToString()


def test_data_in_other_files_comes_from_the_caller_only() -> None:
    content = normal(0, 4, 8).tobytes()
    for offset, length, file in (
        (None, None, content),
        (8, None, b"\0" * 8 + content),
        (3, 128, b"abc" + content),
    ):
        source = load(outside(offset, length), external_data={"w.bin": file})
        assert np.array_equal(source.parameters[0].value, normal(0, 4, 8))
    for files in (None, {}, {"other.bin": content}):
        with pytest.raises(ModelError, match=r"'w1' lies in another file.*w\.bin"):
            load(outside(0, 128), external_data=files)
    for offset, length in ((1, 128), (-1, 128), (0, 127), (0, 10**30), (10**30, 128)):
        with pytest.raises(ModelError, match="reaches past"):
            load(outside(offset, length), external_data={"w.bin": content})


def within_a_function(place: str) -> bytes:
    """y = x w, where w comes from a branch of an If in a function, and lies in another file."""
    tensor = TensorProto(name="k", data_type=TensorProto.FLOAT, dims=[4, 3])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="w.bin")
    inner = node("Constant", [], ["k"], value=tensor)
    own = [tensor] if place == "initializer" else []
    if place != "Constant":
        inner = node("Identity", ["k"], ["copy"])
    result = helper.make_tensor_value_info(inner.output[0], 1, [4, 3])
    branch = helper.make_graph([inner], "branch", [], [result], initializer=own)
    truth = helper.make_tensor("c", TensorProto.BOOL, [], [True])
    body = [
        node("Constant", [], ["c"], value=truth),
        node("If", ["c"], ["w"], then_branch=branch, else_branch=branch),
        node("MatMul", ["x", "w"], ["y"]),
    ]
    versions = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    defaults = []
    if place == "default of an attribute":
        constant = node("Constant", [], ["k"])
        constant.attribute.add(name="value", ref_attr_name="table", type=onnx.AttributeProto.TENSOR)
        body.insert(0, constant)
        defaults.append(helper.make_attribute("table", tensor))
    function = helper.make_function("own", "F", ["x"], ["y"], body, versions[:1], attribute_protos=defaults)
    graph = helper.make_graph(
        [node("Gemm", ["x", "v"], ["h"]), node("F", ["h"], ["y"], domain="own")],
        "g",
        [helper.make_tensor_value_info("x", 1, ["n", 4])],
        [helper.make_tensor_value_info("y", 1, ["n", 3])],
        initializer=[numpy_helper.from_array(normal(1, 4, 4), "v")],
    )
    model = helper.make_model(graph, functions=[function], opset_imports=versions, ir_version=9)
    return model.SerializeToString()


@pytest.mark.parametrize("place", ["Constant", "initializer", "default of an attribute"])
def test_no_file_is_read_wherever_a_tensor_stands(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content = normal(0, 4, 3)
    (tmp_path / "w.bin").write_bytes(content.tobytes())
    with pytest.raises(ModelError, match="lies in another file"):
        load(within_a_function(place))
    source = load(within_a_function(place), external_data={"w.bin": content.tobytes()})
    assert any(np.array_equal(a, content) for a in source.constants.values())


# --- shapes -------------------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(-3, 3)), min_size=1, max_size=4), st.integers(1, 9)
)
def test_sizes_are_a_ring(terms: Sequence[tuple[str, int]], n: int) -> None:
    values = {name: i + 2 for i, name in enumerate("abc")}

    def number(size: Size) -> int:
        known = size.replaced({k: Size.of(v) for k, v in values.items()}).number
        assert known is not None
        return known

    total, due = Size.of(n), n
    for name, factor in terms:
        total = total * Size.of(name) + Size.of(factor)
        due = due * values[name] + factor
    assert number(total) == due
    assert number(total - Size.of("a")) == due - values["a"]
    assert (total * Size.of("b") * Size.of(n)).divided(Size.of("b") * Size.of(n)) == total
    axes = Axes()
    assert axes.size(axes.dim(total)) == total


def view(target: Sequence[Any], opset: int = 18) -> bytes:
    """x.view(...) as PyTorch writes it: numbers, and sizes asked of x by axis ("0", "1*2")."""
    nodes = [node("Conv", ["x", "k"], ["a"]), node("Shape", ["a"], ["s"])]
    values: dict[str, np.ndarray] = {"k": normal(0, 4, 2, 1, 1), "zero": ints(0)}
    parts = []
    for i, item in enumerate(target):
        if isinstance(item, int):
            values[f"p{i}"] = ints(item)
        else:
            factors = []
            for axis in item.split("*"):
                values[f"axis{axis}"] = np.array(int(axis), np.int64)
                nodes.append(node("Gather", ["s", f"axis{axis}"], [f"g{i}_{axis}"]))
                factors.append(f"g{i}_{axis}")
            last = factors[0]
            for j, factor in enumerate(factors[1:]):
                nodes.append(node("Mul", [last, factor], [f"m{i}_{j}"]))
                last = f"m{i}_{j}"
            nodes.append(node("Unsqueeze", [last, "zero"], [f"p{i}"]))
        parts.append(f"p{i}")
    nodes += [node("Concat", parts, ["t"], axis=0), node("Reshape", ["a", "t"], ["y"])]
    return onnx_file(nodes, values, ("n", 2, 3, 5), opset=opset)


@pytest.mark.parametrize(
    "target",
    [
        ("0", -1),
        ("0", "1*2", 5),
        ("0", 4, "2*3"),
        ("0*1", -1),
        (-1, "1", 15),
        ("0", "1", "2", "3"),
        ("0*1*2", 5),
        ("0", 2, 2, 15),
    ],
)
def test_shape_arithmetic_becomes_a_constant_target(target: Sequence[Any]) -> None:
    source = agree(view(target), {"x": normal(1, 4, 2, 3, 5)})
    assert operators(source) == ["Conv", "Reshape"]
    shape = source.types["y"].shape
    assert shape is not None
    assert all(isinstance(d, int) or BATCH in d for d in shape)


@settings(max_examples=examples(40), deadline=None)
@given(st.data())
def test_a_fixed_batch_is_found_in_any_reshape(data: st.DataObject) -> None:
    """Exported with a batch of b, a chain of Reshapes must act on each sample as it did."""
    b = data.draw(st.sampled_from([1, 2, 7]))
    nodes, values = [node("Mul", ["x", "w"], ["t0"])], {"w": normal(0, 12)}
    for i in range(data.draw(st.integers(1, 3))):
        sizes = data.draw(st.sampled_from([(12,), (3, 4), (2, 6), (2, 3, 2), (12, 1), (4, 3, 1)]))
        first = data.draw(st.sampled_from([b, 0] if b > 1 else [b, 0, -1]))
        target = [first, *sizes]
        if first != -1 and data.draw(st.booleans()):
            target[-1] = -1
        values[f"s{i}"] = ints(*target)
        nodes.append(node("Reshape", [f"t{i}", f"s{i}"], [f"t{i + 1}"]))
    nodes.append(node("Identity", [nodes[-1].output[0]], ["y"]))
    file = onnx_file(nodes, values, (b, 12))
    source = load(file)
    x = normal(1, 5 * b, 12)
    found = run_source(source, {"x": x})[0]
    due = np.concatenate([run_file(file, {"x": x[i : i + b]})[0] for i in range(0, len(x), b)])
    assert np.array_equal(found, due)


def test_open_axes_have_names_of_their_own() -> None:
    model = onnx.load_from_string(
        onnx_file([node("Mul", ["x", "w"], ["y"])], {"w": normal(0, 3)}, ("n", 4, 4, 3))
    )
    dims = model.graph.input[0].type.tensor_type.shape.dim
    dims[1].Clear()
    dims[2].Clear()
    shape = load(model.SerializeToString()).types["x"].shape
    assert shape is not None
    assert shape[0] == BATCH
    assert len(set(shape)) == 4
    pooled = [node("Mul", ["x", "w"], ["a"]), *(node("MaxPool", ["a"], [o], kernel_shape=[2]) for o in "bc")]
    pooled.append(node("Add", ["b", "c"], ["y"]))
    source = load(onnx_file(pooled, {"w": normal(0, 3, 1)}, ("n", 3, "length")))
    # Two equal windows over one open axis leave equal axes.
    assert source.types["b"].shape == source.types["c"].shape == source.types["y"].shape


def test_initial_states_of_an_export_with_a_fixed_batch() -> None:
    zeros = np.zeros((1, 1, 3), np.float32)
    weights = {"w": normal(0, 1, 12, 5), "r": normal(1, 1, 12, 3), "b": normal(2, 1, 24), "h": zeros}
    nodes = [
        node("Transpose", ["x"], ["a"], perm=[1, 0, 2]),
        node("LSTM", ["a", "w", "r", "b", "", "h", "c"], ["y"], hidden_size=3),
    ]
    for cell in (zeros, normal(3, 1, 1, 3)):
        file = onnx_file(nodes, {**weights, "c": cell}, (1, 4, 5))
        source = load(file)
        assert parameters(source) == ["w", "r", "b"] + (["c"] if cell.any() else [])
        x = normal(4, 6, 4, 5)
        found = run_source(source, {"x": x})[0]
        due = np.concatenate([run_file(file, {"x": x[i : i + 1]})[0] for i in range(6)], axis=2)
        np.testing.assert_allclose(found, due, atol=1e-6)


def test_a_class_token_of_an_export_with_one_sample() -> None:
    nodes = [
        node("Mul", ["x", "w"], ["a"]),
        node("Concat", ["token", "a"], ["b"], axis=1),
        node("Add", ["b", "places"], ["y"]),
    ]
    weights = {"w": normal(0, 4), "token": normal(1, 1, 1, 4), "places": normal(2, 1, 6, 4)}
    file = onnx_file(nodes, weights, (1, 5, 4))
    x = normal(3, 7, 5, 4)
    source = load(file)
    due = np.concatenate([run_file(file, {"x": x[i : i + 1]})[0] for i in range(7)])
    assert np.allclose(run_source(source, {"x": x})[0], due)
    assert parameters(source) == ["w", "token", "places"]


# --- branches and sequences ---------------------------------------------------------------------------------


def branch(name: str, op: str, weight: np.ndarray) -> onnx.GraphProto:
    inner = [node("MatMul", ["a", "v"], ["b"]), node(op, ["b"], [name])]
    result = helper.make_tensor_value_info(name, 1, None)
    return helper.make_graph(inner, name, [], [result], [numpy_helper.from_array(weight, "v")])


@pytest.mark.parametrize("channels", [1, 4])
def test_the_branch_that_a_known_condition_takes(channels: int) -> None:
    """As PyTorch exports `squeeze`: the condition asks whether an axis has one element."""
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("Shape", ["a"], ["s"]),
        node("Gather", ["s", "two"], ["size"]),
        node("Equal", ["size", "one"], ["alone"]),
        node(
            "If",
            ["alone"],
            ["y"],
            then_branch=branch("p", "Relu", normal(5, channels, 3)),
            else_branch=branch("q", "Tanh", normal(6, channels, 3)),
        ),
    ]
    values = {"w": normal(0, 5, channels), "two": np.array(2, np.int64), "one": np.array(1, np.int64)}
    source = agree(onnx_file(nodes, values, ("n", 2, 5)), {"x": normal(1, 3, 2, 5)})
    assert operators(source)[:3] == ["MatMul", "MatMul", "Relu" if channels == 1 else "Tanh"]
    assert parameters(source) == ["w", "v/1"]
    assert np.array_equal(source.parameters[1].value, normal(5 if channels == 1 else 6, channels, 3))


def test_a_branch_on_data_and_a_loop_are_refused() -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("ReduceSum", ["a"], ["t"], keepdims=0),
        node("Greater", ["t", "zero"], ["up"]),
        node(
            "If",
            ["up"],
            ["y"],
            name="fork",
            then_branch=branch("p", "Relu", normal(5, 3, 3)),
            else_branch=branch("q", "Tanh", normal(6, 3, 3)),
        ),
    ]
    values = {"w": normal(0, 5, 3), "zero": np.array(0, np.float32)}
    with pytest.raises(UnsupportedOperator, match="branches and loops") as caught:
        load(onnx_file(nodes, values, ("n", 5)))
    assert (caught.value.op_type, caught.value.node) == ("If", "fork")


def test_sequences_of_known_length_are_taken_apart() -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("SplitToSequence", ["a", "two"], ["parts"], axis=1),
        node("SequenceAt", ["parts", "one"], ["b"]),
        node("SequenceAt", ["parts", "minus"], ["c"]),
        node("SequenceConstruct", ["c", "b"], ["again"]),
        node("ConcatFromSequence", ["again"], ["y"], axis=1),
    ]
    values = {
        "w": normal(0, 3, 6),
        **{n: np.array(v, np.int64) for n, v in (("two", 2), ("one", 1), ("minus", -1))},
    }
    source = agree(onnx_file(nodes, values, ("n", 3)), {"x": normal(1, 4, 3)})
    assert operators(source) == ["MatMul", "Split", "Concat"]


# --- other domains ------------------------------------------------------------------------------------------


def fused(nodes: Sequence[onnx.NodeProto], weights: dict[str, np.ndarray], shape: Sequence[Any]) -> bytes:
    model = onnx.load_from_string(onnx_file(nodes, weights, shape))
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model.SerializeToString()


def microsoft(op: str, inputs: Sequence[str], **attributes: Any) -> onnx.NodeProto:
    return node(op, inputs, ["y"], domain="com.microsoft", **attributes)


@pytest.mark.parametrize(
    "fusion",
    [
        microsoft("Gelu", ["x"]),
        microsoft("BiasGelu", ["x", "b"]),
        microsoft("FastGelu", ["x", "b"]),
        microsoft("QuickGelu", ["x"]),
        microsoft("FusedMatMul", ["x", "w"], alpha=0.3, transB=1),
        microsoft("SkipLayerNormalization", ["x", "x", "g", "b", "b"], epsilon=1e-5),
        microsoft("SkipSimplifiedLayerNormalization", ["x", "x", "g"], epsilon=1e-5),
        node("SimplifiedLayerNormalization", ["x", "g"], ["y"]),
    ],
    ids=lambda n: n.op_type,
)
def test_operators_of_onnxruntime_are_written_out(fusion: onnx.NodeProto) -> None:
    weights = {"w": normal(0, 5, 6), "b": normal(1, 6), "g": normal(2, 6)}
    source = agree(fused([fusion], weights, ("n", 3, 6)), {"x": normal(3, 2, 3, 6)})
    assert all(n.domain == "" for n in source.nodes)


@pytest.mark.parametrize(("name", "params"), [("Relu", []), ("LeakyRelu", [0.2]), ("Clip", [-0.2, 0.3])])
def test_fused_convolutions_are_written_out(name: str, params: Sequence[float]) -> None:
    more = {"activation_params": params} if params else {}
    conv = microsoft("FusedConv", ["x", "k", "b"], activation=name, pads=[1, 1, 1, 1], **more)
    weights = {"k": normal(0, 4, 2, 3, 3), "b": normal(1, 4)}
    agree(fused([conv], weights, ("n", 2, 5, 5)), {"x": normal(2, 3, 2, 5, 5)})


def test_other_operators_of_onnxruntime_are_named() -> None:
    with pytest.raises(UnsupportedOperator) as caught:
        load(fused([microsoft("Rfft", ["x"], normalized=0, onesided=1, signal_ndim=1)], {}, ("n", 6)))
    assert (caught.value.op_type, caught.value.domain) == ("Rfft", "com.microsoft")


# --- hostile files ------------------------------------------------------------------------------------------


@settings(max_examples=examples(150), deadline=None)
@given(st.data())
def test_a_damaged_file_is_read_or_refused(data: st.DataObject) -> None:
    """Cut short or with flipped bits: a LaconicError, or a source."""
    whole = data.draw(st.sampled_from([perceptron(), view(("0", "1*2", 5)), view(("0*1", -1), 13)]))
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at] ^= 1 << data.draw(st.integers(0, 7))
    if data.draw(st.booleans()):
        del damaged[data.draw(st.integers(0, len(damaged))) :]
    with contextlib.suppress(LaconicError):
        load(bytes(damaged))


def test_a_constant_that_asks_for_too_much_memory_is_refused() -> None:
    nodes = [
        node("ConstantOfShape", ["size"], ["big"]),
        node("ReduceSum", ["big"], ["t"], keepdims=0),
        node("MatMul", ["x", "w"], ["a"]),
        node("Add", ["a", "t"], ["y"]),
    ]
    values = {"w": normal(0, 3, 2), "size": ints(2**20, 2**20)}
    with pytest.raises(ModelError, match="elements of constant"):
        load(onnx_file(nodes, values, ("n", 3)))


def test_nodes_in_any_order_and_circles() -> None:
    model = onnx.load_from_string(perceptron())
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(nodes[::-1])
    agree(model.SerializeToString(), {"x": normal(0, 2, 4)})
    model.graph.node[-1].input[0] = "c"
    with pytest.raises(ModelError, match="circle"):
        load(model.SerializeToString())


# --- what PyTorch's exporters write ------------------------------------------------------------------------


def test_constants_of_a_formula_are_no_weights_beside_initializers() -> None:
    """TorchScript's export of GroupNorm: a normalisation without scale, and the module's own behind it."""
    plain = {
        "/n/Constant_output_0": np.ones(2, np.float32),
        "/n/Constant_1_output_0": np.zeros(2, np.float32),
    }
    nodes = [
        *(node("Constant", [], [n], value=numpy_helper.from_array(a)) for n, a in plain.items()),
        node("InstanceNormalization", ["x", *plain], ["a"]),
        node("Mul", ["a", "n.weight"], ["y"]),
    ]
    file = onnx_file(nodes, {"n.weight": normal(0, 2, 1)}, ("n", 2, 4))
    assert parameters(agree(file, {"x": normal(1, 3, 2, 4)})) == ["n.weight"]


def test_constants_are_weights_where_no_initializer_is() -> None:
    constant = node("Constant", [], ["Constant_output_0"], value=numpy_helper.from_array(normal(0, 4, 3)))
    file = onnx_file([constant, node("MatMul", ["x", "Constant_output_0"], ["y"])], {}, ("n", 4))
    assert parameters(agree(file, {"x": normal(1, 3, 4)})) == ["Constant_output_0"]


def test_folded_numbers_and_plain_normalisations_are_no_weights() -> None:
    nodes = [
        node("InstanceNormalization", ["x", "val_1", "val_2"], ["a"]),
        node("Mul", ["a", "val_3"], ["b"]),
        node("InstanceNormalization", ["b", "val_4", "val_2"], ["c"]),
        node("PRelu", ["c", "val_5"], ["y"]),
    ]
    values = {
        "val_1": np.ones(2, np.float32),
        "val_2": np.zeros(2, np.float32),
        "val_3": np.array([0.5], np.float32),
        "val_4": normal(0, 2),
        "val_5": np.array([0.25], np.float32),
    }
    file = onnx_file(nodes, values, ("n", 2, 4))
    source = agree(file, {"x": normal(1, 3, 2, 4)})
    assert [p.value.tolist() for p in source.parameters] == [values[n].tolist() for n in ("val_4", "val_5")]


def test_a_weight_brought_to_the_type_of_the_data_is_a_weight() -> None:
    nodes = [node("CastLike", ["w", "x"], ["a"]), node("MatMul", ["x", "a"], ["y"])]
    file = onnx_file(nodes, {"w": normal(0, 4, 3)}, ("n", 4))
    assert parameters(agree(file, {"x": normal(1, 3, 4)})) == ["w"]


def test_scales_that_are_joined_are_no_weights() -> None:
    ends = {"ones": np.ones(2, np.float32), "twos": np.full(2, 2, np.float32)}
    nodes = [
        node("Conv", ["x", "k"], ["a"]),
        *(node("Constant", [], [n], value=numpy_helper.from_array(a)) for n, a in ends.items()),
        node("Concat", [*ends], ["scales"], axis=0),
        node("Resize", ["a", "", "scales"], ["y"], mode="linear"),
    ]
    source = agree(
        onnx_file(nodes, {"k": normal(0, 2, 1, 3, 3)}, ("n", 1, 5, 6)), {"x": normal(1, 3, 1, 5, 6)}
    )
    assert parameters(source) == ["k"]
    assert source.types["y"].shape == (BATCH, 2, 6, 8)


@given(scale=st.sampled_from([1.5, 2.0, 2.5, 3.0]), by_sizes=st.booleans(), some=st.booleans())
@settings(max_examples=examples(12), deadline=None)
def test_the_batch_is_still_the_batch_behind_a_resize(scale: float, by_sizes: bool, some: bool) -> None:
    """PyTorch joins the sizes from those of the data, as in `interpolate(x, size=...)`."""
    height, width = int(5 * scale), int(6 * scale)
    nodes, values = [node("Mul", ["x", "w"], ["a"])], {"w": normal(0, 2, 1, 1)}
    axes = {"axes": [2, 3]} if some else {}
    if by_sizes:
        values["last"] = ints(height, width)
        wanted = "last"
        if not some:
            nodes += [node("Shape", ["a"], ["s"], end=2), node("Concat", ["s", "last"], ["sizes"], axis=0)]
            wanted = "sizes"
        nodes.append(node("Resize", ["a", "", "", wanted], ["y"], mode="nearest", **axes))
    else:
        values["scales"] = np.array([scale] * 2 if some else [1, 1, scale, scale], np.float32)
        nodes.append(node("Resize", ["a", "", "scales"], ["y"], mode="nearest", **axes))
    source = agree(onnx_file(nodes, values, ("n", 2, 5, 6)), {"x": normal(1, 3, 2, 5, 6)})
    assert source.types["y"].shape == (BATCH, 2, height, width)


def test_a_slice_of_a_shape_from_the_smallest_integer() -> None:
    """So PyTorch's newer exporter takes a shape without its last axes, in attention."""
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Slice", ["s", "lowest", "end"], ["first"]),
        node("Concat", ["first", "rest"], ["target"], axis=0),
        node("Mul", ["x", "w"], ["a"]),
        node("Reshape", ["a", "target"], ["y"]),
    ]
    values = {"lowest": ints(-(2**63)), "end": ints(-2), "rest": ints(6, 2), "w": normal(0, 4)}
    source = agree(onnx_file(nodes, values, ("n", 3, 4)), {"x": normal(1, 5, 3, 4)})
    assert source.types["y"].shape == (BATCH, 6, 2)


@pytest.mark.parametrize("op", ["Round", "Floor", "Ceil", "Sign"])
def test_weights_that_matter_only_once_rounded_do_not_train(op: str) -> None:
    through = [node("MatMul", ["x", "w"], ["a"]), node(op, ["a"], ["b"])]
    weights = {"w": normal(0, 4, 3)}
    with pytest.raises(ModelError, match=f"no gradient reaches a weight from output 'b'.*{op}"):
        load(onnx_file(through, weights, ("n", 4), output="b"))
    nodes = [*through, node("MatMul", ["b", "v"], ["y"])]
    source = load(onnx_file(nodes, {**weights, "v": normal(1, 3, 2)}, ("n", 4)))
    assert {p.name: p.role for p in source.parameters} == {"w": "frozen", "v": "trainable"}
