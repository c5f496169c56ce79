"""Laws of `laconic prepare` as a command: every mistake is one line and an exit code, JSON is one object."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_models import node, normal, onnx_file, perceptron

from laconic.cli import main


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A file with a perceptron: 4 features, 3 classes."""
    path = tmp_path / "model.onnx"
    path.write_bytes(perceptron())
    return path


def said(capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, Any], str]:
    """The one object on standard output, and the text on standard error."""
    out, err = capsys.readouterr()
    return json.loads(out), err


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ("--loss cross_entropy class_axis=1.5", "class_axis in --loss cross_entropy, found 1.5"),
        ("--loss cross_entropy class_weights=a", "found a, allowed numbers with commas"),
        ("--loss cross_entropy label_smoothing=1,2", "found 1,2, allowed a number"),
        ("--loss cross_entropy dense=3", "dense in --loss cross_entropy, found 3, allowed true or false"),
        ("--loss cross_entropy nonsense=1", "setting in --loss cross_entropy, found nonsense"),
        ("--loss cross_entropy weight=1,2", "weight in --loss, found 1,2"),
        ("--loss mse delta=1", "setting in --loss mse, found delta"),
        ("--loss mse --loss y:mae", "two losses on output, found y"),
        ("--optimizer momentum nesterov=7", "nesterov in --optimizer momentum, found 7"),
        ("--optimizer momentum beta=1,2", "beta in --optimizer momentum, found 1,2"),
        ("--optimizer adam nonsense=1", "setting in --optimizer adam, found nonsense"),
        ("--lora rank=2.5 *", "rank in --lora, found 2.5, allowed a whole number"),
        ("--lora rank=nan *", "rank in --lora, found nan"),
        ("--lora rank=1,2 *", "rank in --lora, found 1,2"),
        ("--lora rank=true *", "rank in --lora, found true"),
        ("--lora seed=-1 w1", "seed of the adapters, found -1"),
        ("--explain --batch 1000000000000", "--batch, found 1000000000000"),
        ("--explain --frozen *", "no parameter is left that trains"),
        ("--batch ten", "argument --batch: invalid int value: 'ten'; see `laconic prepare --help`"),
        ("--nonsense 3", "unrecognized arguments: --nonsense 3; see `laconic prepare --help`"),
        ("--loss", "argument --loss: expected at least one argument; see `laconic prepare --help`"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_it(
    model: Path, options: str, wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output = str(model.parent / "x")
    assert main(["prepare", str(model), "-o", output, "--json", *options.split()]) == 2
    found, err = said(capsys)
    assert found["error"] == "ConfigError"
    assert wrong in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(
    ("line", "helpful"),
    [
        ("", "laconic"),
        ("nonsense", "laconic"),
        ("--nonsense", "laconic"),
        ("prepare", "laconic prepare"),
        ("prepare model.onnx --o x", "laconic prepare"),
        ("demo --devices many", "laconic demo"),
        ("demo one\nmore", "laconic demo"),
        ("device", "laconic device"),
        ("coordinator --config", "laconic coordinator"),
    ],
)
def test_a_command_line_that_is_not_understood_is_one_line_with_the_way_out(
    line: str, helpful: str, as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = line.split(" ") if line else []
    assert main([*arguments, "--json"] if as_json else arguments) == 2
    out, err = capsys.readouterr()
    assert err.startswith("laconic: ConfigError: ")
    assert err.endswith(f"; see `{helpful} --help`\n")
    assert err.count("\n") == 1
    due = {"error": "ConfigError", "message": err.removeprefix("laconic: ConfigError: ").rstrip()}
    assert (json.loads(out) == due) if as_json else (out == "")


def test_help_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["prepare", "--help"])
    assert left.value.code == 0
    assert "--trainable" in capsys.readouterr().out


def test_the_settings_that_exist_are_named(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", str(model), "--check", "--optimizer", "momentum", "beta1=1"]) == 2
    assert "allowed ['beta', 'nesterov', 'weight_decay']" in capsys.readouterr().err


def test_one_class_weight_is_a_list_of_one(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", str(model), "--check", "--loss", "cross_entropy", "class_weights=1"]) == 2
    assert "number of class weights, found 1, allowed 3" in capsys.readouterr().err


@pytest.mark.parametrize("where", ["missing/x.bundle", "."])
def test_a_bundle_that_cannot_be_written_is_named(
    model: Path, where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = model.parent / where
    assert main(["prepare", str(model), "-o", str(path), "--json"]) == 2
    found, _ = said(capsys)
    assert str(path) in found["message"]


def test_json_is_one_object_with_all_that_was_asked(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = model.parent / "x.bundle"
    assert main(["prepare", str(model), "-o", str(output), "--explain", "--check", "--json"]) == 0
    found, err = said(capsys)
    assert err == ""
    assert found["explained"]["forward"] == {"MatMul": 1, "Add": 1, "Relu": 1, "Gemm": 1}
    assert all(count > 0 for count in found["explained"]["backward"].values())
    assert all(row["ok"] for row in found["check"])
    assert found["bytes"] == output.stat().st_size


def test_a_gradient_that_vanishes_does_not_fail_the_check(tmp_path: Path) -> None:
    """Of a bias before a normalisation nothing is left but rounding."""
    nodes = [
        node("Conv", ["x", "k", "b"], ["a"], pads=[1, 1, 1, 1]),
        node("InstanceNormalization", ["a", "scale", "offset"], ["n"]),
        node("Relu", ["n"], ["r"]),
        node("Flatten", ["r"], ["f"]),
        node("Gemm", ["f", "w"], ["y"]),
    ]
    weights = {
        "k": normal(0, 8, 3, 3, 3),
        "b": 10 * normal(1, 8),
        "scale": 1 + 0.1 * normal(2, 8),
        "offset": normal(3, 8),
        "w": normal(4, 512, 3),
    }
    path = tmp_path / "model.onnx"
    path.write_bytes(onnx_file(nodes, weights, ("n", 3, 8, 8)))
    assert main(["prepare", str(path), "--check"]) == 0


def test_zeros_of_a_default_kind_are_checked_in_float64(tmp_path: Path) -> None:
    """ConstantOfShape says nothing about its kind where that is float32: the first state of a loop."""
    nodes = [
        node("Shape", ["x"], ["n"], end=1),
        node("Concat", ["n", "width"], ["shape"], axis=0),
        node("ConstantOfShape", ["shape"], ["zeros"]),
        node("Gemm", ["zeros", "u", "b"], ["h"]),
        node("Gemm", ["x", "w", "h"], ["y"]),
    ]
    values = {"width": np.array([3]), "u": normal(0, 3, 3), "b": normal(1, 3), "w": normal(2, 4, 3)}
    path = tmp_path / "model.onnx"
    path.write_bytes(onnx_file(nodes, values, ("n", 4)))
    assert main(["prepare", str(path), "--check"]) == 0
