"""Differentiates the node models of onnx's own backend tests, and says what became of each.

A case is a model of one operator (now and then of a few) with recorded inputs and outputs. Every input of
real numbers is taken for a weight. The forward pass must give the recorded outputs, and the gradients of a
random combination of the outputs must agree with central differences in float64.
"""

from __future__ import annotations

import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from laconic.errors import LaconicError
from laconic.training.assemble import assemble, live_nodes, model, uses
from laconic.training.backward import gradients
from laconic.training.builder import GraphBuilder, TensorType
from laconic.training.exact import evaluator
from laconic.training.forward import lay
from laconic.training.source.opening import opened
from laconic.training.source.reading import Reading
from laconic.training.source.translation import translator
from laconic.training.widening import widened_nodes

BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
PAGE = Path(__file__).parents[2] / "docs" / "operators.md"
STEPS = (1e-4, 1e-6)
LIMIT = 2e-4
_QUIET = ort.SessionOptions()
_QUIET.log_severity_level = 4

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Verdict:
    """What became of one case: `passed`, `none` (nothing to differentiate), `refused` or `failed`, and
    why."""

    case: str
    operator: str
    status: str
    why: str = ""


@cache
def cases() -> tuple[Any, ...]:
    """All node cases of the installed onnx."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        # A function's body is a case of its own, of the operators that it is made of.
        found = [c for c in collect_testcases(None) if "_expanded" not in c.name]
    return tuple(found)


def operator(case: Any) -> str:
    """The operator that a case is about."""
    node = case.model.graph.node[0] if len(case.model.graph.node) == 1 else case.model.graph.node[-1]
    return f"{node.domain}::{node.op_type}" if node.domain else str(node.op_type)


def judge(case: Any) -> Verdict:
    """Read, differentiate and check one case."""
    name, kind = str(case.name), operator(case)
    inputs, outputs = _data(case)
    settings = {i for n in case.model.graph.node for i in n.input[_DATA.get(n.op_type, 9) :]}
    reals = {n: a for n, a in inputs.items() if a.dtype.kind == "f" and n not in settings}
    if not any(a.dtype.kind == "f" for a in outputs.values()):
        return Verdict(name, kind, "none", "its outputs are not real numbers")
    if not reals:
        return Verdict(name, kind, "none", "its inputs are not real numbers")
    if any(a.dtype.kind in "OSU" for a in (*inputs.values(), *outputs.values())):
        return Verdict(name, kind, "none", "text")
    if why := _OWN_FORM.get(kind) if "training" in name else None:
        return Verdict(name, kind, "none", why)
    try:
        reading = _read(case.model, inputs, reals)
        verdict = _checked(name, kind, reading, reals, outputs)
        if verdict.status == "failed" and "gradient" in verdict.why:
            # Recorded inputs like to lie on kinks and ties: once more a little beside them.
            rng = np.random.default_rng(1)
            moved = {
                n: a * (1 + 0.02 * rng.random(a.shape)) + 0.01 * rng.random(a.shape) for n, a in reals.items()
            }
            verdict = _checked(name, kind, reading, moved, outputs, recorded=False)
        return verdict
    except LaconicError as e:
        return Verdict(name, kind, "refused", str(e))


_DATA = {"Resize": 1, "Upsample": 1, "OneHot": 0, "Range": 0, "MelWeightMatrix": 0}
"""How many inputs hold data, where those behind say how and are no weights."""

_RANDOM = {
    "RandomUniform",
    "RandomUniformLike",
    "RandomNormal",
    "RandomNormalLike",
    "Bernoulli",
    "Multinomial",
}

_OWN_FORM = {
    "BatchNormalization": "in training mode: Laconic trains with a form of its own",
    "Dropout": "in training mode: Laconic draws masks of its own",
}


def _data(case: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    given, due = case.data_sets[0]
    names = [i.name for i in case.model.graph.input]
    results = [o.name for o in case.model.graph.output]
    arrays = [
        np.asarray(a) if not isinstance(a, list) and a is not None else np.array("", object) for a in given
    ]
    wanted = [
        np.asarray(a) if not isinstance(a, list) and a is not None else np.array("", object) for a in due
    ]
    return dict(zip(names, arrays, strict=False)), dict(zip(results, wanted, strict=False))


def _read(proto: ModelProto, inputs: Arrays, reals: Arrays) -> Reading:
    file = opened(proto.SerializeToString())
    r = Reading(translator(file.versions), [*inputs, *file.initializers], None)
    r.outputs = {o.name for o in file.graph.output}
    for name, value in reals.items():
        r.weights[name] = value.astype(np.float32)
        r.varying.add(name)
        r.declare(name, TensorType(TensorProto.FLOAT, value.shape))
    for name, array in {**inputs, **file.initializers}.items():
        if name not in reals:
            r.enter(name, array)
    for node in file.graph.node:
        r.read(node, file.versions[""])
    return r


def _checked(
    name: str, kind: str, r: Reading, reals: Arrays, due: Arrays, *, recorded: bool = True
) -> Verdict:
    rng = np.random.default_rng(0)
    if any(n.op_type in _RANDOM for n in r.nodes):
        return Verdict(name, kind, "none", "its outputs are random")
    if not any(a.size for a in reals.values()):
        return Verdict(name, kind, "none", "its inputs have no elements")
    results = [n for n, a in due.items() if a.dtype.kind == "f" and n in r.types]
    if kind == "LayerNormalization":
        # Its mean and deviation have no gradient rule: nobody trains on them.
        results = results[:1]
    nodes = live_nodes(r.nodes, results)
    values = {n: a.astype(np.float64) for n, a in reals.items()}
    read = {i for n in nodes for i in uses(n)} | set(results)
    single = _graph(r, nodes, results, [n for n in reals if n in read], TensorProto.FLOAT)
    double = _graph(r, nodes, results, (), TensorProto.DOUBLE)
    exact = evaluator(double)
    feeds = {n: values[n] for n in exact.input_names}

    def forward(at: Arrays) -> dict[str, NDArray[np.float64]]:
        return dict(zip(exact.output_names, (np.asarray(a) for a in exact.run(None, dict(at))), strict=True))

    first = forward(feeds)
    for n in results:
        found = first[f"y/{n}"]
        if recorded and found.shape != due[n].shape:
            return Verdict(name, kind, "failed", f"forward pass gives another shape of {n}")
        if recorded and not np.allclose(found, due[n], rtol=1e-2, atol=1e-3, equal_nan=True):
            return Verdict(name, kind, "failed", f"forward pass gives another {n}")
    if not all(np.isfinite(a).all() for a in (*first.values(), *values.values())):
        return Verdict(name, kind, "none", "values that are not finite")
    dys = {n: rng.standard_normal(due[n].shape) for n in results}
    if not single:
        return Verdict(name, kind, "none", "no gradient flows through it")
    if any(r.types[n].shape != due[n].shape for n in results):
        return Verdict(name, kind, "none", "onnx infers another shape than it records")
    try:
        plain = _run(_graph(r, nodes, results, (), TensorProto.FLOAT), values)
    except Exception:  # onnxruntime's exceptions share no base below Exception
        return Verdict(name, kind, "none", "onnxruntime cannot run it on a CPU")
    for n, expected in first.items():
        same = plain[n].shape == expected.shape
        if not same or not np.allclose(plain[n], expected, rtol=1e-2, atol=1e-3, equal_nan=True):
            return Verdict(name, kind, "none", "onnxruntime's own result is another than onnx's")
    found = _run(single, {**feeds, **{f"dy/{n}": a for n, a in dys.items()}})
    for label, gradient in found.items():
        if not np.isfinite(gradient).all():
            return Verdict(name, kind, "failed", f"gradient of {label[2:]} is not finite")
        error = _error(label[2:], gradient.astype(np.float64), feeds, dys, forward, rng)
        if not error <= LIMIT:
            return Verdict(name, kind, "failed", f"gradient of {label[2:]} off by {error:.1e}")
    return Verdict(name, kind, "passed")


def _run(graph: bytes, feeds: Arrays) -> dict[str, NDArray[Any]]:
    session = ort.InferenceSession(graph, _QUIET, providers=["CPUExecutionProvider"])
    taken = {i.name: feeds[i.name].astype(np.float32) for i in session.get_inputs()}
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, taken), strict=True))


def _error(
    name: str,
    gradient: NDArray[np.float64],
    feeds: Arrays,
    dys: Arrays,
    forward: Any,
    rng: np.random.Generator,
) -> float:
    if not gradient.size:
        return 0.0
    worst = 0.0
    single = np.zeros_like(gradient)
    single.flat[int(rng.integers(gradient.size))] = 1.0
    for direction in (rng.choice([-1.0, 1.0], gradient.shape), single):
        found = float(np.sum(gradient * direction))
        best = np.inf
        for step in STEPS:
            up, down = (forward({**feeds, name: feeds[name] + s * step * direction}) for s in (1, -1))
            slope = sum(float(np.sum((up[f"y/{n}"] - down[f"y/{n}"]) * dy)) for n, dy in dys.items()) / (
                2 * step
            )
            scale = max(1.0, float(np.sum(np.abs(gradient * direction))))
            best = min(best, abs(found - slope) / scale)
        worst = max(worst, best)
    return worst


def _graph(
    r: Reading, nodes: Sequence[Any], results: Sequence[str], wanted: Sequence[str], real: int
) -> bytes:
    """The forward pass in `real`, or with `wanted` the gradients by the rules."""
    dtype = np.float64 if real == TensorProto.DOUBLE else np.float32
    types = {
        n: TensorType(real if t.dtype == TensorProto.FLOAT else t.dtype, t.shape) for n, t in r.types.items()
    }
    settings = {i for n in nodes if n.op_type == "Resize" for i in n.input[1:3]}
    constants = {
        n: a.astype(dtype) if a.dtype.kind == "f" and n not in settings else a for n, a in r.constants.items()
    }
    nodes = widened_nodes(nodes, real)
    g = GraphBuilder((), types, constants, real=real)
    saved = lay(g, nodes)
    used = {i for node in g.nodes for i in node.input}
    inputs = [n for n in r.weights if n in used or n in results]
    if not wanted:
        outputs = {f"y/{n}": (n, types[n]) for n in results}
        return model(assemble(g, "forward", inputs, outputs))
    seeds = {n: g.declare(f"dy/{n}", real, types[n].shape or ()) for n in results}
    found = gradients(g, nodes, seeds, wanted, saved)
    outputs = {f"d/{n}": (t, TensorType(real, types[n].shape)) for n, t in found.items()}
    read = {i for n in live_nodes(g.nodes, list(found.values())) for i in uses(n)} | set(found.values())
    if not read & {*inputs, *seeds.values()}:
        return b""
    return model(assemble(g, "gradient", [*inputs, *seeds.values()], outputs))


def page(verdicts: Sequence[Verdict]) -> str:
    """The table of docs/operators.md."""
    rows: dict[str, Counter[str]] = defaultdict(Counter)
    why: dict[str, set[str]] = defaultdict(set)
    for v in verdicts:
        rows[v.operator][v.status] += 1
        if v.status != "passed":
            why[f"{v.operator}/{v.status}"].add(v.why)
    lines = ["| operator | pass | no gradient | refused | why |", "|---|---|---|---|---|"]
    for name in sorted(rows, key=str.lower):
        counts = [rows[name][status] or "" for status in ("passed", "none", "refused")]
        reasons = why[f"{name}/refused"] or ([] if rows[name]["passed"] else why[f"{name}/none"])
        # The shortest stands for all: the others name other nodes.
        reason = min(reasons, key=lambda text: (len(text), text)).replace("|", "/") if reasons else ""
        lines.append(f"| {name} | {' | '.join(map(str, counts))} | {reason} |")
    return "\n".join([f"onnx {onnx.__version__}, {len(verdicts):,} cases.", "", *lines])


def progress(found: Sequence[Any]) -> Iterator[Verdict]:
    for case in found:
        try:
            yield judge(case)
        except Exception as e:
            yield Verdict(str(case.name), operator(case), "failed", f"{type(e).__name__}: {e}"[:200])


if __name__ == "__main__":
    wanted = sys.argv[1:]
    chosen = [c for c in cases() if not wanted or any(w in str(c.name) for w in wanted)]
    everything = list(progress(chosen))
    print(Counter(v.status for v in everything))
    for v in everything:
        if v.status == "failed":
            print("FAILED", v.case, v.why[:150])
    if not wanted:
        before, _, after = PAGE.read_text().partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n{page(everything)}\n{END}{after.partition(END)[2]}")
