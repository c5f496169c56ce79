"""Laws of the trainer: arguments are checked, nothing is touched, sessions are shared and made late."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from laconic.errors import ConfigError, ModelError, NonFinite
from laconic.runtime import Bundle, Trainer
from laconic.runtime.chunks import training_chunks
from laconic.runtime.optimizer_state import OptimizerState
from laconic.runtime.pace import Pace
from laconic.runtime.session import open_session
from laconic.training import prepare
from laconic.training.models import digits_cnn
from laconic.training.source.scopes import rename

X = np.random.default_rng(1).standard_normal((30, 4)).astype(np.float32)
Y = np.arange(30) % 3
SETTINGS: dict[str, Any] = {"epochs": 2, "batch_size": 8, "learning_rate": 0.1, "seed": 0}


@pytest.mark.parametrize(
    ("x", "y", "thing"),
    [
        (X.astype(np.float64), Y, "dtype of input 'x'"),
        (X[:, :3], Y, "shape of input 'x'"),
        (X[:0], Y[:0], "empty"),
        (X.tolist(), Y, "type of input 'x'"),
        ({"x": X, 1: X}, Y, "names of the inputs"),
        (X, {"y": Y, 1: Y}, "targets"),
        (X[0, 0], Y, "type of input 'x'"),
        ({"z": X}, Y, "names of the inputs"),
        (X, Y[:29], "shape of the targets"),
        (X, Y.astype(np.float32), "dtype of the targets"),
        (X, Y.tolist(), "type of the targets"),
        (X, Y + 1, "label out of range"),
        (X, Y - 1, "label out of range"),
    ],
)
def test_data_of_the_wrong_kind_is_named(bundle: Bundle, x: Any, y: Any, thing: str) -> None:
    for call in (
        lambda: Trainer(bundle).train(bundle.initial, x, y, **SETTINGS),
        lambda: Trainer(bundle).evaluate(bundle.initial, x, y),
    ):
        with pytest.raises(ConfigError, match=thing):
            call()


@pytest.mark.parametrize(
    ("change", "thing"),
    [
        ({"epochs": 0}, "number of epochs"),
        ({"batch_size": 0}, "batch size"),
        ({"batch_size": 2.5}, "batch size"),
        ({"learning_rate": -1.0}, "learning rate"),
        ({"learning_rate": float("nan")}, "learning rate"),
        ({"learning_rate": 1e39}, "learning rate"),
        ({"learning_rate": "fast"}, "learning rate"),
        ({"learning_rate": None}, "learning rate"),
        ({"learning_rate": np.array([0.1, 0.2])}, "learning rate"),
        ({"proximal_mu": "a"}, "proximal"),
        ({"seed": -1}, "seed"),
        ({"seed": 1.0}, "seed"),
        ({"proximal_mu": 1.0}, "proximal"),
    ],
)
def test_settings_out_of_range_are_named(bundle: Bundle, change: dict[str, Any], thing: str) -> None:
    with pytest.raises(ConfigError, match=thing):
        Trainer(bundle).train(bundle.initial, X, Y, **(SETTINGS | change))


def test_weights_of_the_wrong_kind_are_named(bundle: Bundle) -> None:
    trainer = Trainer(bundle)
    with pytest.raises(ModelError, match="shape of the flat vector"):
        trainer.train(bundle.initial[:-1], X, Y, **SETTINGS)
    with pytest.raises(ModelError, match="dtype of the weights"):
        trainer.predict(bundle.initial.astype(np.float64), X)  # type: ignore[arg-type]
    with pytest.raises(NonFinite, match="weights"):
        trainer.evaluate(np.full(67, np.nan, np.float32), X, Y)
    with pytest.raises(ConfigError, match="threads"):
        Trainer(bundle, threads=0)
    with pytest.raises(ConfigError, match="form"):
        Trainer(bundle, form="loop")  # type: ignore[arg-type]


@pytest.mark.parametrize("step", [-1, 2**63, 1.5, None])
def test_an_optimizer_state_of_the_wrong_kind_is_named(bundle: Bundle, step: Any) -> None:
    with pytest.raises(ModelError, match="step of the optimizer state"):
        Trainer(bundle).train(bundle.initial, X, Y, optimizer=OptimizerState({}, step), **SETTINGS)


def test_slots_that_are_no_arrays_are_named(bundle: Bundle) -> None:
    info = msgspec.structs.replace(bundle.manifest.optimizer, slots=("m",))
    other = replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, optimizer=info))
    with pytest.raises(ModelError, match="slot 'm' of the optimizer state"):
        OptimizerState({"m": [0.0] * 67}).check(other)  # type: ignore[dict-item]


@pytest.mark.parametrize("group", [X, (X,), (X, Y, Y), None])
def test_a_group_that_is_no_pair_is_named(bundle: Bundle, group: Any) -> None:
    settings = {k: v for k, v in SETTINGS.items() if k != "epochs"}
    with pytest.raises(ConfigError, match="group of the stream"):
        list(Trainer(bundle).start_stream(bundle.initial, [group], **settings))


def test_a_damaged_graph_is_refused_in_silence(bundle: Bundle, capfd: pytest.CaptureFixture[str]) -> None:
    """onnxruntime would try again, with lines on standard output, where a program may write JSON."""
    graph = bundle.parts["step"].replace(b"Gemm", b"G\xffmm")
    damaged = replace(bundle, parts={**bundle.parts, "step": graph})
    with pytest.raises(ModelError, match="refuses the step graph"):
        Trainer(damaged, form="step").train(bundle.initial, X, Y, **SETTINGS)
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.int64, np.uint64])
def test_labels_may_be_of_any_integer_type(bundle: Bundle, dtype: type[np.integer[Any]]) -> None:
    due = Trainer(bundle).train(bundle.initial, X, Y, **SETTINGS).weights
    assert np.array_equal(Trainer(bundle).train(bundle.initial, X, Y.astype(dtype), **SETTINGS).weights, due)


def test_arguments_are_not_written_to_and_may_be_strided(bundle: Bundle) -> None:
    weights = bundle.initial.copy()
    wide = np.zeros((60, 8), np.float32)
    wide[::2, ::2] = X
    strided = wide[::2, ::2]
    result = Trainer(bundle).train(weights, strided, Y, **SETTINGS)
    assert np.array_equal(weights, bundle.initial)
    assert np.array_equal(strided, X)
    assert np.array_equal(result.weights, Trainer(bundle).train(weights, X, Y, **SETTINGS).weights)
    assert not np.shares_memory(result.weights, weights)
    named = Trainer(bundle).train(weights, {"x": X}, Y, **SETTINGS)
    assert np.array_equal(named.weights, result.weights)
    assert Trainer(bundle).predict(weights, strided).shape == (30, 3)


def test_predictions_do_not_depend_on_the_batch_size(bundle: Bundle) -> None:
    due = Trainer(bundle).predict(bundle.initial, X)
    for size in (1, 7, 30, 31):
        assert np.allclose(Trainer(bundle).predict(bundle.initial, X, batch_size=size), due, atol=1e-6)


def test_sessions_are_made_when_they_are_needed(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    real = sys.modules["laconic.runtime.trainer"].open_session  # type: ignore[attr-defined]

    def counting(graph: bytes, *, name: str, **options: Any) -> Any:
        opened.append(name)
        return real(graph, name=name, **options)

    monkeypatch.setattr("laconic.runtime.trainer.open_session", counting)
    trainer = Trainer(bundle)
    assert opened == []
    trainer.evaluate(bundle.initial, X, Y)
    trainer.evaluate(bundle.initial, X, Y)
    assert opened == ["evaluation"]
    trainer.train(bundle.initial, X, Y, **SETTINGS)
    trainer.train(bundle.initial, X, Y, **SETTINGS)
    assert opened == ["evaluation", "epoch"]


def test_one_trainer_serves_several_threads(bundle: Bundle) -> None:
    trainer = Trainer(bundle)

    def run(seed: int) -> NDArray[np.float32]:
        return trainer.train(bundle.initial, X, Y, **(SETTINGS | {"seed": seed, "epochs": 20})).weights

    alone = [run(seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(run, range(8)))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


def test_training_can_be_stopped(bundle: Bundle) -> None:
    asked: list[int] = []

    def after_three() -> bool:
        asked.append(1)
        return len(asked) > 3

    trainer = Trainer(bundle, chunk_bytes=1)
    result = trainer.train(bundle.initial, X, Y, **SETTINGS, should_stop=after_three)
    assert (result.steps, result.samples) == (3, 24)
    assert not np.array_equal(result.weights, bundle.initial)
    never = trainer.train(bundle.initial, X, Y, **SETTINGS, should_stop=lambda: True)
    assert (never.steps, never.samples, len(never.losses)) == (0, 0, 0)
    assert np.array_equal(never.weights, bundle.initial)


def test_a_large_set_is_never_copied_whole() -> None:
    large = np.zeros((10_000, 1000), np.float32)
    data = {"x": large, "target": np.zeros(10_000, np.int64)}
    pace = Pace(1.0, 16)
    pace.steps = 64
    sizes = [
        sum(a.nbytes for a in chunk.feeds.values())
        for chunk in training_chunks(data, [np.arange(10_000)], 16, 1_000_000, pace)
    ]
    assert max(sizes) <= 1_050_000
    assert len(sizes) == 42


def test_a_graph_that_onnxruntime_refuses_is_named(bundle: Bundle) -> None:
    broken = Bundle(bundle.manifest, {**bundle.parts, "inference": b"\x08\x08nonsense"}, bundle.hash)
    with pytest.raises(ModelError, match="inference graph"):
        Trainer(broken).predict(bundle.initial, X)


def test_a_graph_that_does_not_fit_its_manifest_is_named(bundle: Bundle) -> None:
    other = msgspec.structs.replace(bundle.manifest.outputs[0], name="other")
    manifest = msgspec.structs.replace(bundle.manifest, outputs=(other,))
    with pytest.raises(ModelError, match="could not run"):
        Trainer(Bundle(manifest, bundle.parts, bundle.hash)).predict(bundle.initial, X)


_GRAPHS: list[tuple[str, Callable[[Trainer, Bundle], object]]] = [
    ("step", lambda t, b: t.train(b.initial, X, Y, **SETTINGS)),
    ("epoch", lambda t, b: t.train(b.initial, X, Y, **SETTINGS)),
    ("evaluation", lambda t, b: t.evaluate(b.initial, X, Y)),
    ("inference", lambda t, b: t.predict(b.initial, X)),
]


@pytest.mark.parametrize(("graph", "use"), _GRAPHS)
@pytest.mark.parametrize(("place", "index"), [("input", 0), ("input", -1), ("output", 0), ("output", -1)])
def test_a_graph_of_other_types_than_the_manifest_says_is_named(
    bundle: Bundle, graph: str, use: Callable[[Trainer, Bundle], object], place: str, index: int
) -> None:
    """Whatever a tensor of the graph is turned into: the message has its name, its dtype and what is due."""
    model = onnx.load_from_string(bundle.parts[graph])
    tensor = getattr(model.graph, place)[index]
    name, due = tensor.name, tensor.type.tensor_type.elem_type
    other = onnx.TensorProto.DOUBLE
    # The graph goes on with the old type within, so that onnxruntime takes it.
    cast = onnx.helper.make_node(
        "Cast",
        [name if place == "input" else "inner"],
        ["inner" if place == "input" else name],
        to=due if place == "input" else other,
    )
    for node in model.graph.node:
        rename(node, {name: "inner"})
    model.graph.node.insert(0 if place == "input" else len(model.graph.node), cast)
    tensor.type.tensor_type.elem_type = other
    parts = {**bundle.parts, graph: model.SerializeToString()}
    broken = Bundle(bundle.manifest, parts, bundle.hash)
    trainer = Trainer(broken, form="step" if graph == "step" else "epoch")
    dtype = onnx.helper.tensor_dtype_to_np_dtype(due)
    wanted = f"dtype of '{name}' in the {graph} graph, found float64, allowed {dtype}, as the manifest says"
    with pytest.raises(ModelError, match=re.escape(wanted)):
        use(trainer, broken)


def test_the_runtime_needs_no_onnx() -> None:
    code = (
        "import sys; sys.modules['onnx'] = None; import laconic.runtime; "
        "print(sorted(m for m in sys.modules if m.split('.')[0] in ('onnx', 'google', 'laconic')))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "laconic.runtime.trainer" in loaded
    assert "laconic.training" not in loaded
    assert "google" not in loaded


def test_a_graph_reads_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frozen weight comes from the bundle; a file of that name in the way is not looked at."""
    bundle = Bundle.read(prepare(digits_cnn(), frozen=["conv1.*"]))
    x = np.ones((2, 1, 8, 8), np.float32)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").write_bytes(b"\0" * len(bundle.parts["weights"]))
    due = Trainer(bundle).predict(bundle.initial, x)
    (tmp_path / "weights").unlink()
    assert np.array_equal(Trainer(bundle).predict(bundle.initial, x), due)
    assert due.any()
    (tmp_path / "weights").write_bytes(b"\0" * len(bundle.parts["weights"]))
    with pytest.raises(ModelError, match="refuses the inference graph"):
        open_session(bundle.parts["inference"], name="inference", threads=1)
