"""The page of the bundle format says what the code does: names, keys, tables, and code that runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from laconic.runtime import Bundle, Trainer
from laconic.runtime import manifest as described
from laconic.runtime.bundle import FORMAT, MAGIC
from laconic.training import prepare
from laconic.training.losses import LOSSES, cross_entropy
from laconic.training.optimizers import OPTIMIZERS

PAGE = (Path(__file__).parents[2] / "docs" / "spec" / "bundle.md").read_text()

STRUCTS = {
    "input": described.DataInput,
    "output": described.ModelOutput,
    "objective": described.Objective,
    "target": described.Target,
    "optimizer": described.OptimizerInfo,
    "parameter": described.Parameter,
    "part": described.Part,
}


def section(title: str) -> str:
    """The text under a heading of any level, up to the next."""
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#+ |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def rows(text: str) -> list[list[str]]:
    """The cells of a section's tables, without their heads."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    heads = {i for i, row in enumerate(cells) if set("".join(row)) <= set("-")}
    return [row for i, row in enumerate(cells) if i not in heads and i + 1 not in heads]


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def _model(**arguments: Any) -> Bundle:
    """Every oddity at once: roles, statistics, dropout, two inputs, two objectives, a free axis."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> Any:
        return rng.standard_normal(shape).astype(np.float32)

    weights = {
        "w": normal(4, 3),
        "scale": normal(3),
        "shift": normal(3),
        "mean": normal(3),
        "var": np.abs(normal(3)),
        "v": normal(2, 3),
        "u": normal(3, 5),
        "ratio": np.array(0.3, np.float32),
        "axes": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("ReduceMean", ["x", "axes"], ["p"], keepdims=0),
        helper.make_node("MatMul", ["p", "w"], ["a"]),
        helper.make_node("BatchNormalization", ["a", "scale", "shift", "mean", "var"], ["b"]),
        helper.make_node("Dropout", ["b", "ratio"], ["c"]),
        helper.make_node("MatMul", ["k", "v"], ["d"]),
        helper.make_node("Add", ["c", "d"], ["y"]),
        helper.make_node("MatMul", ["y", "u"], ["z"]),
    ]
    graph = helper.make_graph(
        nodes,
        "odd",
        [
            helper.make_tensor_value_info("x", 1, ["batch", "time", 4]),
            helper.make_tensor_value_info("k", 1, ["batch", 2]),
        ],
        [
            helper.make_tensor_value_info("y", 1, ["batch", 3]),
            helper.make_tensor_value_info("z", 1, ["batch", 5]),
        ],
        initializer=[numpy_helper.from_array(a, n) for n, a in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return Bundle.read(prepare(model.SerializeToString(), **arguments))


@pytest.fixture(scope="module")
def odd() -> Bundle:
    return _model(
        loss={"y": "cross_entropy", "z": ("mse", 0.5)},
        optimizer="adam",
        proximal=True,
        clip_norm=1.0,
        local=["u"],
        frozen=["v"],
    )


def test_the_numbers_at_the_start_are_those_of_the_code() -> None:
    table = rows(section("The file"))
    assert MAGIC.decode() in table[0][2]
    assert f"`{FORMAT}`" in table[1][2]
    assert PAGE.startswith(f"# Training bundle, format {FORMAT}\n")


def test_every_key_of_the_manifest_is_on_the_page_in_order() -> None:
    text = section("The manifest")
    assert [quoted(row[0])[0] for row in rows(text)] == list(described.Manifest.__struct_fields__)
    entries = dict(re.findall(r"^- \*\*(\w+)\*\*: (.*?)(?=^- |\n\n)", text, re.MULTILINE | re.DOTALL))
    assert entries.keys() == STRUCTS.keys()
    for name, struct in STRUCTS.items():
        named = [q for q in quoted(entries[name]) if q in struct.__struct_fields__]
        assert list(dict.fromkeys(named)) == list(struct.__struct_fields__), name
    assert set(get_args(described.DType)) == set(quoted(entries["input"])[2].split())
    for literal in (described.Role, described.Kind):
        assert set(get_args(literal)) <= set(quoted(entries["parameter"]))


def test_reserved_names_and_parts_are_those_of_the_code() -> None:
    sentence = re.search(r"No\nparameter.*?`:new`\.|No parameter.*?`:new`\.", PAGE, re.DOTALL)
    assert sentence
    names = quoted(sentence[0])
    assert {n for n in names if not n.endswith("/") and n != ":new"} == described.CONTROL_NAMES
    assert {n for n in names if n.endswith("/")} == set(described.CONTROL_PREFIXES)
    assert tuple(quoted(row[0])[0] for row in rows(section("The parts"))) == described.PARTS


def test_every_loss_is_on_the_page_with_its_settings_and_metrics() -> None:
    table = {quoted(row[0])[0]: row for row in rows(section("Losses"))}
    assert table.keys() == LOSSES.keys()
    file = prepare_dense
    for name, row in table.items():
        if name == "model_output":
            continue
        bundle = file(
            cross_entropy(label_smoothing=0.1, class_weights=(1, 2, 3), dense=True, class_axis=1)
            if name == "cross_entropy"
            else name
        )
        (objective,) = bundle.manifest.objectives
        assert objective.loss == name
        assert set(objective.settings) == {q for q in quoted(row[2]) if q.isidentifier()}
        assert list(objective.metrics) == ["loss", *quoted(row[3])[:1]]


def prepare_dense(loss: Any, **arguments: Any) -> Bundle:
    weight = numpy_helper.from_array(np.eye(4, 3, dtype=np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "dense",
        [helper.make_tensor_value_info("x", 1, ["batch", 4])],
        [helper.make_tensor_value_info("y", 1, ["batch", 3])],
        initializer=[weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return Bundle.read(prepare(model.SerializeToString(), loss=loss, **arguments))


def test_every_optimizer_is_on_the_page_with_its_layout() -> None:
    table = {quoted(row[0])[0]: row for row in rows(section("Optimizers"))}
    assert table.keys() == OPTIMIZERS.keys()
    for name, row in table.items():
        info = prepare_dense("mse", optimizer=name).manifest.optimizer
        assert row[0] == f"`{name}`, {info.layout}"
        assert quoted(row[1]) == list(info.slots)
        listed = quoted(row[3]) if row[3] != "as `adam`" else quoted(table["adam"][3])
        assert listed == list(info.settings)


def test_the_graphs_take_and_give_what_the_tables_say(odd: Bundle) -> None:
    manifest = odd.manifest
    trained = [p for p in manifest.parameters if p.role != "frozen"]
    frozen = [p.name for p in manifest.parameters if p.role == "frozen"]
    assert {p.kind for p in trained} == {"weight", "statistic"}
    slots = [f"opt/{s}/{p.name}" for p in manifest.weights for s in manifest.optimizer.slots]
    state = [*(p.name for p in trained), *slots, "step"]
    data = [*(i.name for i in manifest.inputs), "target/y", "target/z"]
    pulled = [f"ref/{p.name}" for p in manifest.weights if p.role == "trainable"]
    moving = [p.name for p in trained]
    metrics = ["loss/y", "accuracy/y", "loss/z", "mean_absolute_error/z"]
    due = {
        "step": ([*state, *data, "lr", "prox_mu", *pulled, "seed"], [f"{n}:new" for n in state]),
        "evaluation": ([*moving, *data], [f"{part}/{m}" for m in metrics for part in ("sum", "weight")]),
        "inference": ([*moving, *(i.name for i in manifest.inputs)], ["y", "z"]),
    }
    due["step"][1].append("loss")
    due["epoch"] = due["step"]
    shapes: dict[str, dict[str, list[Any]]] = {}
    for part, (inputs, outputs) in due.items():
        model = onnx.load_from_string(odd.parts[part])
        assert [i.name for i in model.graph.input] == inputs, part
        assert [o.name for o in model.graph.output] == outputs, part
        outside = [i for i in model.graph.initializer if i.data_location == TensorProto.EXTERNAL]
        assert {i.name for i in outside} == set(frozen), part
        for initializer in outside:
            entry = {e.key: e.value for e in initializer.external_data}
            start, length = int(entry["offset"]), int(entry["length"])
            assert entry["location"] == "weights"
            held = odd.parts["weights"][start : start + length]
            assert held == odd.frozen[initializer.name].astype("<f4").tobytes()
        assert (model.ir_version, [o.version for o in model.opset_import]) == (8, [18])
        shapes[part] = {
            v.name: [d.dim_value or d.dim_param for d in v.type.tensor_type.shape.dim]
            for v in (*model.graph.input, *model.graph.output)
        }
    for name, shape in shapes["step"].items():
        many = name in data or name == "loss"
        assert shapes["epoch"][name] == (["steps", *shape] if many else shape), name
    assert all(shapes["step"][n][0] == "batch" for n in data)
    # The table of the page names each kind of input once, in this order.
    listed = [re.sub(r"<\w+>", "*", q) for row in rows(section("step")) for q in quoted(row[0])]
    assert listed == [
        *(
            "*",
            "opt/*/*",
            "step",
            "*",
            "target",
            "target/*",
            "lr",
            "prox_mu",
            "ref/*",
            "correction/*",
            "seed",
        ),
        *("*:new", "opt/*/*:new", "step:new", "loss"),
    ]


def test_a_device_can_be_written_from_the_page_alone(odd: Bundle) -> None:
    scope: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        exec(block, scope)
    manifest, parts, weights = scope["read_bundle"](_file(odd))
    rng = np.random.default_rng(1)
    x = rng.standard_normal((10, 6, 4)).astype(np.float32)
    k, z = (rng.standard_normal((10, n)).astype(np.float32) for n in (2, 5))
    y = np.arange(10) % 3
    batches = [
        {"x": x[r], "k": k[r], "target/y": y[r], "target/z": z[r]}
        for r in (slice(0, 4), slice(4, 8), slice(8, 10))
    ]
    state, losses = scope["train"](manifest, parts, weights, batches, 0.01, seed=7, mu=0.3)
    run = Trainer(odd).start_stream(
        odd.initial,
        [({"x": x, "k": k}, {"y": y, "z": z})],
        batch_size=4,
        learning_rate=0.01,
        seed=7,
        proximal_mu=0.3,
    )
    for _ in run:
        pass
    due = run.result()
    assert np.allclose(losses, due.losses, rtol=1e-5)
    assert np.allclose(odd.schema.flatten(state), due.weights, atol=1e-6)
    assert np.allclose(odd.local_schema.flatten(state), due.local, atol=1e-6)
    assert int(state["step"]) == due.optimizer.step == 3


def test_a_device_with_control_variates_can_be_written_from_the_page_alone() -> None:
    scope: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        exec(block, scope)
    bundle = prepare_dense("mse", scaffold=True)
    manifest, parts, weights = scope["read_bundle"](_file(bundle))
    assert [p["name"] for p in manifest["parameters"]] == ["w", "control/w"]
    rng = np.random.default_rng(2)
    x, y, shared, own = (rng.standard_normal(s).astype(np.float32) for s in ((9, 4), (9, 3), (4, 3), (4, 3)))
    batches = [{"x": x[r], "target": y[r]} for r in (slice(0, 5), slice(5, 9))]
    weights = weights | {"control/w": shared}
    state, _ = scope["train"](manifest, parts, weights, batches, 0.1, own={"control/w": own})
    start = bundle.schema.flatten(weights)
    due = Trainer(bundle).start_stream(
        start, [(x, y)], batch_size=5, learning_rate=0.1, seed=0, control=own.ravel()
    )
    assert [progress.samples for progress in due] == [5, 9]
    assert np.allclose(state["w"], bundle.schema.unflatten(due.result().weights)["w"], atol=1e-6)
    # Its own control variate, as the page has it.
    after = own - shared + (weights["w"] - state["w"]) / (2 * 0.1)
    assert np.allclose(due.result().control, after.ravel(), atol=1e-5)
    assert np.allclose(
        (due.result().weights - start)[bundle.schema.controls], (after - own).ravel(), atol=1e-5
    )


def _file(bundle: Bundle) -> bytes:
    from laconic.runtime import pack

    return pack(msgspec.structs.replace(bundle.manifest, parts=()), bundle.parts)
