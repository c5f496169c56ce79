"""Holds the gradients built for a model against central differences, parameter by parameter.

Two questions are asked apart. Are the formulas right? The gradient graph and the loss are computed in float64
by ONNX's reference implementation, where rounding cannot hide anything. Does the device compute them? The
same graph in float32 on onnxruntime is compared with that, element by element.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto

from laconic.errors import ModelError
from laconic.training.builder import Shape
from laconic.training.exact import evaluator
from laconic.training.graphs import gradient_model
from laconic.training.plan import Plan

Arrays = Mapping[str, NDArray[Any]]

STEPS = (1e-5, 1e-6, 1e-7, 1e-8)
"""Of the central difference, along a direction whose largest element is one. Shorter ones are tried where a
longer one fails: it may have crossed a kink, such as that of Relu; a wrong formula is wrong with all."""

FORMULA_LIMIT = 1e-6
VANISHING = 1e-3
"""Of the length of all gradients: a parameter's own, if it is shorter, is lost in float32 among terms that
cancel, as that of a bias before a normalisation is, and in float64 among the differences of losses. Its
error is then measured by this share, of which 1e-6 is still far below any mistake."""

ROUNDING_LIMIT = 1e-3
"""Float32 has 6e-8; a few hundred roundings in a row, some of them cancelling, are usual."""


@dataclass(frozen=True, slots=True)
class ParameterCheck:
    """Worst relative errors of one parameter's gradient, as shares of the gradient's length.

    `formula`: float64 against central differences, along the gradient, a random direction and the largest
    element. `rounding`: float32 on onnxruntime against float64, over all elements.
    """

    name: str
    shape: tuple[int, ...]
    formula: float
    rounding: float

    @property
    def ok(self) -> bool:
        """Whether both errors are within their limits."""
        return self.formula <= FORMULA_LIMIT and self.rounding <= ROUNDING_LIMIT


def check_gradients(
    plan: Plan, *, seed: int = 0, batch: int = 3, free_axis: int = 5, data: Arrays | None = None
) -> list[ParameterCheck]:
    """Check every trained weight of `plan` on random data of `batch` samples.

    `data` replaces random inputs by name, samples on axis 0; axes of any length get `free_axis` elements.
    Raises `ModelError` when the model cannot be run on such data.
    """
    source, names = plan.source, plan.trained
    rng = np.random.default_rng(seed)
    # Behind a factor that is zero, such as an adapter's, no gradient would be seen to be wrong.
    weights = {
        p.name: p.value.astype(np.float64) if p.value.any() else 0.1 * rng.standard_normal(p.value.shape)
        for p in source.parameters
    }
    feeds = weights | {**_random_data(plan, rng, batch, free_axis), **(data or {})}
    feeds |= {"seed": np.array(seed, np.int64), "step": np.array(0, np.int64)}
    loss = _Reference(gradient_model(source, plan.goals, names, TensorProto.DOUBLE, with_gradients=False))
    exact = _Reference(gradient_model(source, plan.goals, names, TensorProto.DOUBLE, with_gradients=True))(
        feeds
    )
    single = _on_device(
        gradient_model(source, plan.goals, names, TensorProto.FLOAT, with_gradients=True), feeds
    )
    whole = float(np.sqrt(sum(float(np.sum(g**2)) for n, g in exact.items() if n != "loss")))
    return [_check(name, feeds, exact, single, loss, rng, whole) for name in names]


def lines(results: Sequence[ParameterCheck]) -> Iterator[str]:
    """What a person reads."""
    yield f"{'worst relative error of the gradient':42} {'formula':>9} {'float32':>9}"
    for r in results:
        verdict = "" if r.ok else "  FAILED"
        yield f"  {r.name:40} {r.formula:9.1e} {r.rounding:9.1e}{verdict}"
    failed = sum(not r.ok for r in results)
    yield f"limits {FORMULA_LIMIT:.0e} and {ROUNDING_LIMIT:.0e}: " + (
        f"{failed} failed" if failed else "all met"
    )


def _check(
    name: str,
    feeds: Arrays,
    exact: Arrays,
    single: Arrays,
    loss: _Reference,
    rng: np.random.Generator,
    whole: float,
) -> ParameterCheck:
    value = feeds[name]
    gradient = exact.get(f"grad/{name}", np.zeros_like(value))
    length = max(float(np.linalg.norm(gradient)), VANISHING * whole, 1e-30)
    single_gradient = single.get(f"grad/{name}", np.zeros_like(value))
    error = float(np.linalg.norm(single_gradient.astype(np.float64) - gradient))
    rounding = error / length
    worst = 0.0
    for direction in _directions(rng, gradient):
        found = float(np.sum(gradient * direction))
        best = np.inf
        for step in STEPS:
            up, down = (loss(dict(feeds) | {name: value + s * step * direction})["loss"] for s in (1, -1))
            due = float(up - down) / (2 * step)
            best = min(best, abs(found - due) / (length * float(np.linalg.norm(direction))))
            if best <= FORMULA_LIMIT:
                break
        worst = max(worst, best)
    return ParameterCheck(name, value.shape, worst, rounding)


def _directions(rng: np.random.Generator, gradient: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    signs: NDArray[np.float64] = rng.choice([-1.0, 1.0], gradient.shape)
    if not gradient.any():
        return [signs]
    largest = np.zeros_like(gradient)
    largest.flat[int(np.argmax(np.abs(gradient)))] = 1.0
    along = gradient / max(float(np.max(np.abs(gradient))), 1e-300)
    return [along, largest, signs]


def _random_data(plan: Plan, rng: np.random.Generator, batch: int, free_axis: int) -> dict[str, NDArray[Any]]:
    found: dict[str, NDArray[Any]] = {}
    for name in plan.source.inputs:
        kind = plan.source.types[name]
        shape = _sizes(kind.shape or (), batch, free_axis)
        if kind.dtype in (TensorProto.FLOAT, TensorProto.DOUBLE):
            found[name] = rng.standard_normal(shape)
        elif kind.dtype == TensorProto.BOOL:
            found[name] = rng.random(shape) < 0.5
        else:
            # Small numbers: most likely indices into a table whose length is not known here.
            found[name] = rng.integers(0, 2, shape).astype(_DTYPES.get(kind.dtype, np.int64))
    for goal in plan.goals:
        if goal.target_type is not None:
            shape = _sizes(goal.target_type.shape, batch, free_axis)
            classes = goal.target_type.classes
            found[goal.target] = rng.integers(0, classes, shape) if classes else rng.random(shape)
    return found


def _sizes(shape: Shape, batch: int, free_axis: int) -> tuple[int, ...]:
    return tuple(
        d if isinstance(d, int) else batch if axis == 0 else free_axis for axis, d in enumerate(shape)
    )


_DTYPES: Mapping[int, Any] = {
    TensorProto.INT32: np.int32,
    TensorProto.UINT8: np.uint8,
    TensorProto.INT8: np.int8,
}


class _Reference:
    """A graph on the reference implementation, fed with those of the given arrays that it takes."""

    def __init__(self, graph: bytes) -> None:
        self._evaluator = evaluator(graph)

    def __call__(self, feeds: Arrays) -> dict[str, NDArray[Any]]:
        taken = {n: feeds[n] for n in self._evaluator.input_names if n in feeds}
        try:
            results = self._evaluator.run(None, taken)
        except Exception as e:  # the reference raises whatever numpy does
            raise ModelError("the reference implementation could not run the model", value=str(e)) from e
        return dict(zip(self._evaluator.output_names, (np.asarray(r) for r in results), strict=True))


def _on_device(graph: bytes, feeds: Arrays) -> dict[str, NDArray[Any]]:
    try:
        session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
        taken = {i.name: feeds[i.name] for i in session.get_inputs()}
        single = {n: a.astype(np.float32) if a.dtype == np.float64 else a for n, a in taken.items()}
        names = [o.name for o in session.get_outputs()]
        return dict(zip(names, session.run(names, single), strict=True))
    except Exception as e:  # onnxruntime's exceptions share no base below Exception
        raise ModelError("onnxruntime could not run the gradients", value=str(e)) from e
