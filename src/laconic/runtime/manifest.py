"""What a training bundle says about itself: the manifest's fields and their rules.

The wire form is MessagePack, one map per struct, keys as written here; unknown keys are ignored
(docs/spec/bundle.md).
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct

from laconic.errors import Malformed
from laconic.schema import Schema, TensorSpec

Role: TypeAlias = Literal["trainable", "frozen", "local"]
"""trainable: trained and sent; local: trained, never leaves the device; frozen: never changes."""

Kind: TypeAlias = Literal["weight", "statistic", "control"]
"""weight: moved by its gradient; statistic: a running mean or variance, moved by what training sees; control:
SCAFFOLD's mean gradient of a weight over the fleet, moved by what training measures."""

DType: TypeAlias = Literal["float32", "float64", "int64", "int32", "uint8", "int8", "bool"]

Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=1024)]
Dim: TypeAlias = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Dims: TypeAlias = Annotated[tuple[Dim, ...], Meta(max_length=16)]
FreeDims: TypeAlias = Annotated[tuple[Dim | None, ...], Meta(max_length=16)]
"""A shape in which an axis may be of any length (None), such as the number of time steps."""

Length: TypeAlias = Annotated[int, Meta(ge=0, le=2**40)]
Hash: TypeAlias = Annotated[bytes, Meta(min_length=32, max_length=32)]

PARTS = ("weights", "step", "epoch", "evaluation", "inference")
"""The parts of a bundle, in the order in which they lie in the file."""

CONTROL_NAMES = frozenset({"lr", "prox_mu", "target", "loss", "seed", "step"})
"""Names that the graphs use for themselves, besides those in `CONTROL_PREFIXES` and `...:new`."""

CONTROL_PREFIXES = ("opt/", "ref/", "target/", "sum/", "weight/", "control/", "correction/")


def is_reserved(name: str) -> bool:
    """Whether the graphs use `name` for themselves: no data input, output, or parameter of the source model
    may bear it."""
    return name in CONTROL_NAMES or name.startswith(CONTROL_PREFIXES) or name.endswith(":new")


class Part(Struct, frozen=True):
    """One stretch of the file after the manifest: its length in bytes and its SHA-256."""

    name: Name
    length: Length
    sha256: Hash


class DataInput(Struct, frozen=True):
    """One input of the model; `shape` is that of one sample, without the batch axis."""

    name: Name
    dtype: DType
    shape: FreeDims


class ModelOutput(Struct, frozen=True):
    """One thing that inference returns; `shape` is that of one sample, without the batch axis."""

    name: Name
    dtype: DType
    shape: FreeDims


class Parameter(Struct, frozen=True):
    """One float32 tensor of the model, named as in the source model."""

    name: Name
    shape: Dims
    role: Role
    kind: Kind

    @property
    def spec(self) -> TensorSpec:
        """Name and shape as a schema holds them."""
        return TensorSpec(self.name, self.shape, self.kind != "weight", self.kind == "control")


def control_of(weight: Parameter) -> Parameter:
    """The control variate of a weight."""
    return Parameter(f"control/{weight.name}", weight.shape, "trainable", "control")


class Target(Struct, frozen=True):
    """What a loss compares an output with: the graph input `name`, for each sample of `shape`.

    With `classes` the values are integers from 0 to `classes` - 1; without, they are real numbers.
    """

    name: Name
    dtype: DType
    shape: FreeDims
    classes: Annotated[int, Meta(ge=0, le=2**31 - 1)]


class Objective(Struct, frozen=True):
    """A loss on one output; the graphs descend the sum of all objectives' losses times their weights.

    `settings` are the numbers fixed in the graphs. A model's own scalar loss has no target.
    """

    loss: Name
    output: Name
    weight: float
    settings: dict[Name, float | tuple[float, ...]]
    target: Target | None
    metrics: tuple[Name, ...]


class OptimizerInfo(Struct, frozen=True):
    """The optimizer, its fixed settings, and its state.

    Each slot is one float32 tensor for each trained weight, of that weight's shape, zero at the start; in the
    graphs `opt/<slot>/<parameter>`. `layout` numbers what the slots mean: state of another name or layout is
    of no use. A step that `counts` has an int64 scalar `step`, zero at the start; one that is `seeded` takes
    an int64 scalar `seed`.
    """

    name: Name
    layout: Annotated[int, Meta(ge=1)]
    settings: dict[Name, float]
    slots: tuple[Name, ...]
    counts: bool
    seeded: bool


class Manifest(Struct, frozen=True):
    """All that a bundle says about itself, apart from the parts' bytes."""

    source_sha256: Hash
    inputs: Annotated[tuple[DataInput, ...], Meta(min_length=1, max_length=64)]
    outputs: Annotated[tuple[ModelOutput, ...], Meta(min_length=1, max_length=64)]
    objectives: Annotated[tuple[Objective, ...], Meta(min_length=1, max_length=64)]
    optimizer: OptimizerInfo
    proximal: bool
    parameters: Annotated[tuple[Parameter, ...], Meta(min_length=1, max_length=65536)]
    parts: Annotated[tuple[Part, ...], Meta(min_length=1, max_length=64)]

    def schema(self, *roles: Role) -> Schema:
        """The parameters with one of `roles`, in canonical order."""
        return Schema(tuple(p.spec for p in self.parameters if p.role in roles))

    @property
    def weights(self) -> tuple[Parameter, ...]:
        """The parameters that gradients move, in canonical order: each has a place in every slot."""
        return tuple(p for p in self.parameters if p.role != "frozen" and p.kind == "weight")

    @property
    def controlled(self) -> tuple[Parameter, ...]:
        """The weights that have a control variate, in canonical order: none, or all that travel."""
        scaffold = any(p.kind == "control" for p in self.parameters)
        return tuple(p for p in self.weights if scaffold and p.role == "trainable")

    @property
    def targets(self) -> tuple[Target, ...]:
        """What a sample needs besides its inputs to be trained on."""
        return tuple(o.target for o in self.objectives if o.target is not None)

    @property
    def metrics(self) -> tuple[str, ...]:
        """What the evaluation graph measures, by the names that its outputs bear."""
        return tuple(metric for objective in self.objectives for metric in objective.metrics)


def check(manifest: Manifest) -> None:
    """Hold a decoded manifest to the rules that its field types cannot say.

    Raises `Malformed`.
    """
    if tuple(p.name for p in manifest.parts[: len(PARTS)]) != PARTS:
        raise Malformed(
            "parts of the bundle", value=[p.name for p in manifest.parts[: len(PARTS)]], limit=PARTS
        )
    names = [p.name for p in manifest.parameters] + [i.name for i in manifest.inputs]
    if len(set(names)) != len(names):
        raise Malformed("two parameters or inputs of the bundle share a name")
    controls = [p for p in manifest.parameters if p.kind == "control"]
    due_controls = tuple(control_of(p) for p in manifest.controlled)
    if controls and manifest.parameters[-len(controls) :] != due_controls:
        raise Malformed(
            "control variates of the bundle",
            value=[p.name for p in controls],
            limit=[p.name for p in due_controls],
        )
    named = [p.name for p in manifest.parameters if p.kind != "control"] + [i.name for i in manifest.inputs]
    if taken := [n for n in (*named, *(o.name for o in manifest.outputs)) if is_reserved(n)]:
        raise Malformed("name of a parameter, input or output is reserved", value=taken[0])
    if not any(p.role == "trainable" and p.kind == "weight" for p in manifest.parameters):
        raise Malformed("the bundle has no trainable parameter")
    for thing, found in (
        ("slots of the optimizer", list(manifest.optimizer.slots)),
        ("outputs", [o.name for o in manifest.outputs]),
        ("targets", [t.name for t in manifest.targets]),
        ("metrics", list(manifest.metrics)),
    ):
        if len(set(found)) != len(found):
            raise Malformed(f"two {thing} share a name", value=found)
    if bad := [t.name for t in manifest.targets if t.name != "target" and not t.name.startswith("target/")]:
        raise Malformed("name of a target", value=bad[0], limit="target or target/...")
    for target in manifest.targets:
        dtype = "int64" if target.classes else "float32"
        if target.dtype != dtype:
            raise Malformed(f"dtype of target {target.name!r}", value=target.dtype, limit=dtype)
    due = 4 * sum(math.prod(p.shape) for p in manifest.parameters)
    if manifest.parts[0].length != due:
        raise Malformed("length of part 'weights'", value=manifest.parts[0].length, limit=due)
