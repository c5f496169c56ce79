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

Kind: TypeAlias = Literal["weight", "statistic"]
"""weight: moved by its gradient; statistic: a running mean or variance, moved by the data that training sees."""

DType: TypeAlias = Literal["float32", "float64", "int64", "int32", "uint8", "int8", "bool"]

Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=1024)]
Dim: TypeAlias = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Dims: TypeAlias = Annotated[tuple[Dim, ...], Meta(max_length=16)]
Length: TypeAlias = Annotated[int, Meta(ge=0, le=2**40)]
Hash: TypeAlias = Annotated[bytes, Meta(min_length=32, max_length=32)]

PARTS = ("weights", "step", "epoch", "evaluation", "inference")
"""The parts of a bundle, in the order in which they lie in the file."""

CONTROL_NAMES = frozenset({"lr", "prox_mu", "mask", "labels", "loss", "loss_sum", "correct", "count"})
"""Names that the graphs use for themselves, besides `opt/...`, `ref/...` and `...:new`."""


def is_reserved(name: str) -> bool:
    """Whether the graphs use `name` for themselves: no parameter, data input or output may bear it."""
    return name in CONTROL_NAMES or name.startswith(("opt/", "ref/")) or name.endswith(":new")


class Part(Struct, frozen=True):
    """One stretch of the file after the manifest: its length in bytes and its SHA-256."""

    name: Name
    length: Length
    sha256: Hash


class DataInput(Struct, frozen=True):
    """One input of the model; `shape` is that of one sample, without the batch axis."""

    name: Name
    dtype: DType
    shape: Dims


class ModelOutput(Struct, frozen=True):
    """What inference returns: `shape` is that of one sample, without the batch axis."""

    name: Name
    shape: Dims


class Parameter(Struct, frozen=True):
    """One float32 tensor of the model, named as in the source model."""

    name: Name
    shape: Dims
    role: Role

    @property
    def spec(self) -> TensorSpec:
        """Name and shape as a schema holds them."""
        return TensorSpec(self.name, self.shape)


class LossInfo(Struct, frozen=True):
    """The loss and what its labels may be: integers from 0 to `classes` - 1, one for each sample."""

    name: Name
    classes: Dim


class OptimizerInfo(Struct, frozen=True):
    """The optimizer, its fixed settings, and its state.

    Each slot is one float32 tensor for each trained parameter, of that parameter's shape, zero at the start;
    in the graphs `opt/<slot>/<parameter>`.
    """

    name: Name
    settings: dict[Name, float]
    slots: tuple[Name, ...]


class Manifest(Struct, frozen=True):
    """All that a bundle says about itself, apart from the parts' bytes."""

    source_sha256: Hash
    inputs: Annotated[tuple[DataInput, ...], Meta(min_length=1, max_length=64)]
    output: ModelOutput
    loss: LossInfo
    optimizer: OptimizerInfo
    proximal: bool
    parameters: Annotated[tuple[Parameter, ...], Meta(min_length=1, max_length=65536)]
    parts: Annotated[tuple[Part, ...], Meta(min_length=1, max_length=64)]

    def schema(self, *roles: Role) -> Schema:
        """The parameters with one of `roles`, in canonical order."""
        return Schema(tuple(p.spec for p in self.parameters if p.role in roles))


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
    if taken := [n for n in (*names, manifest.output.name) if is_reserved(n)]:
        raise Malformed("name of a parameter, input or output is reserved", value=taken[0])
    if not any(p.role == "trainable" for p in manifest.parameters):
        raise Malformed("the bundle has no trainable parameter")
    if len(set(manifest.optimizer.slots)) != len(manifest.optimizer.slots):
        raise Malformed("two slots of the optimizer share a name", value=manifest.optimizer.slots)
    due = 4 * sum(math.prod(p.shape) for p in manifest.parameters)
    if manifest.parts[0].length != due:
        raise Malformed("length of part 'weights'", value=manifest.parts[0].length, limit=due)
