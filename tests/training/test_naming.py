"""Names that an exporter made up are replaced by those that the model's author knows."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest
from small_models import node, normal, onnx_file

from laconic.training.source import load


def names(nodes: list[object], weights: dict[str, object], shape: tuple[object, ...]) -> list[str]:
    source = load(onnx_file(nodes, weights, shape))  # type: ignore[arg-type]
    return [p.name for p in source.parameters]


def test_a_dense_layer_is_named_after_its_bias() -> None:
    nodes = [
        node("MatMul", ["x", "onnx::MatMul_7"], ["a"], name="/other/MatMul"),
        node("Add", ["head.0.bias", "a"], ["y"]),
    ]
    weights = {"onnx::MatMul_7": normal(0, 4, 3), "head.0.bias": normal(1, 3)}
    assert names(nodes, weights, ("batch", 4)) == ["head.0.weight", "head.0.bias"]


def test_also_if_pytorchs_newer_exporter_made_the_name_up() -> None:
    nodes = [
        node("MatMul", ["x", "val_8"], ["a"], name="node_MatMul_10"),
        node("Add", ["a", "f.bias"], ["y"]),
    ]
    assert names(nodes, {"val_8": normal(0, 4, 3), "f.bias": normal(1, 3)}, ("batch", 4)) == [
        "f.weight",
        "f.bias",
    ]


def test_or_after_the_place_of_its_node() -> None:
    nodes = [node("MatMul", ["x", "onnx::MatMul_7"], ["y"], name="/layers/layers.0/query/MatMul")]
    assert names(nodes, {"onnx::MatMul_7": normal(0, 4, 3)}, ("batch", 4)) == ["layers.0.query.weight"]


def test_a_name_that_is_taken_is_not_given_twice() -> None:
    nodes = [
        node("MatMul", ["x", "onnx::MatMul_7"], ["a"], name="/f/MatMul"),
        node("MatMul", ["a", "onnx::MatMul_8"], ["b"], name="/f/MatMul"),
        node("Mul", ["b", "f.other"], ["y"]),
    ]
    weights = {"onnx::MatMul_7": normal(0, 4, 4), "onnx::MatMul_8": normal(1, 4, 4), "f.other": normal(2, 4)}
    assert names(nodes, weights, ("batch", 4)) == ["f.weight", "onnx::MatMul_8", "f.other"]


def test_names_that_say_something_stay() -> None:
    nodes = [node("MatMul", ["x", "kernel:0"], ["y"], name="/f/MatMul")]
    assert names(nodes, {"kernel:0": normal(0, 4, 3)}, ("batch", 4)) == ["kernel:0"]


@pytest.mark.torch
@pytest.mark.parametrize("name", ["encoder", "lstm", "mobilenet"])
def test_every_weight_of_an_export_can_be_found_by_its_modules_name(name: str) -> None:
    pytest.importorskip("torch")
    import zoo

    model = zoo.ZOO[name]
    module = model.build(0)
    modules = {n for n, _ in module.named_modules() if n} | {n for n, _ in module.named_parameters()}
    for parameter in load(zoo.export(module, zoo.example(model))).parameters:
        assert any(fnmatchcase(parameter.name, f"{m}*") for m in modules), parameter.name
