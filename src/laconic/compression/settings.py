"""What an encoder is asked to do: the settings, their presets, their form in messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from types import MappingProxyType
from typing import Literal, TypeAlias, get_args

from laconic.errors import ConfigError

Kind: TypeAlias = Literal["dense", "topk", "deadzone", "randomk", "rotated", "lossless"]

KINDS: tuple[Kind, ...] = get_args(Kind)

EXACT_BITS = 32
"""The value of `bits` that means float32, unquantised."""


@dataclass(frozen=True, slots=True)
class CodecSettings:
    """How `encode` may change an update. A decoder needs none of this: a frame describes itself.

    * `kind`: "deadzone" lets the rate controller choose (`laconic.compression.rate`): one step for the whole
      update, and for each tensor the stages with the least squared error plus price of their bits; the step
      is `step_rms` times the root mean square of the update's values, so that the more an update is
      concentrated, the fewer bytes it takes. "dense" sends every value; "topk" the `density` share with the
      largest magnitudes over all large tensors;
      "randomk" the `density` share of each large tensor, at positions that follow from a seed and are not
      sent; "rotated" every value after a random rotation (DRIVE and EDEN); "lossless" float32 bit for bit,
      entropy coded (`bits` and `stochastic` do not matter).
    * `density`: share of values kept, in (0, 1]; "topk" and "randomk" only. One bit with "topk" is sparse
      ternary compression (Sattler et al., arXiv 1903.02891, algorithm 1), with "dense" a scaled sign.
    * `step_rms`: quantiser step over RMS, positive; "deadzone" only.
    * `bits`: 1 to 8 a sent value, sign included, 1 to 4 for "rotated"; 32 for float32 ("dense", "topk" and
      "randomk"). Of no meaning to "deadzone".
    * `stochastic`: round at random, so that the expectation of what is decoded is the value ("dense",
      "randomk", "rotated", and the sent values of "topk"). Where it is not set, scales are those with the
      least squared error; use error feedback.
    * `small_tensor_values`: tensors with at most this many values share one section ("deadzone"; others
      too in a frame below 1 kB whose step was searched for, unless this is 0); with the other
      kinds each goes dense with 8 bits, or exact where that is smaller or `bits` is 32. All others share one
      section with "topk", unless they are statistics: those go like small ones.
    * `zstd_level`: 1 to 19; speed against size.
    * `low_rank`: look for the principal components of matrices; "deadzone" only.
    * `budget_bytes`: longest frame; 0 for none. "deadzone" only.
    * `max_error`: norm of what may be left out over the norm of the update, below 1; 0 for none. Only for
      "deadzone".

    Raises `ConfigError` for settings that contradict each other or leave their range.
    """

    kind: Kind = "deadzone"
    density: float = 0.01
    step_rms: float = 3.5
    bits: int = 8
    stochastic: bool = False
    small_tensor_values: int = 512
    zstd_level: int = 9
    low_rank: bool = True
    budget_bytes: int = 0
    max_error: float = 0.0

    def __post_init__(self) -> None:
        _check("kind", self.kind, ", ".join(KINDS), self.kind in KINDS)
        _check("density", self.density, "above 0, at most 1", 0 < self.density <= 1)
        _check("step_rms", self.step_rms, "0.01 to 1000", 0.01 <= self.step_rms <= 1000)
        _check("bits", self.bits, "1 to 8, or 32", self.bits == EXACT_BITS or 1 <= self.bits <= 8)
        rotated = self.kind == "rotated"
        _check("bits", self.bits, "1 to 4 for kind 'rotated'", not rotated or self.bits <= 4)
        _check("small_tensor_values", self.small_tensor_values, "0 or more", self.small_tensor_values >= 0)
        _check("zstd_level", self.zstd_level, "1 to 19", 1 <= self.zstd_level <= 19)
        _check("budget_bytes", self.budget_bytes, "0 or more", self.budget_bytes >= 0)
        _check("max_error", self.max_error, "0 to below 1", 0 <= self.max_error < 1)
        if self.kind != "deadzone" and (self.budget_bytes or self.max_error):
            raise ConfigError(
                f"codec kind {self.kind!r} with a budget or a largest error",
                value=(self.budget_bytes, self.max_error),
                remedy="use kind 'deadzone', whose step is searched for",
            )
        if self.kind == "deadzone" and (self.stochastic or self.bits == EXACT_BITS):
            raise ConfigError(
                "codec kind 'deadzone' is a deterministic quantiser",
                value=f"stochastic={self.stochastic}, bits={self.bits}",
                remedy="use kind 'topk' or 'dense', or bits from 1 to 8 without stochastic rounding",
            )

    def to_builtins(self) -> str | dict[str, object]:
        """A preset's name, or the nearest preset's name with what differs: for messages and TOML."""
        best: tuple[str, dict[str, object]] | None = None
        for name, preset in PRESETS.items():
            theirs = asdict(preset)
            differs = {k: v for k, v in asdict(self).items() if v != theirs[k]}
            if not differs:
                return name
            if best is None or len(differs) < len(best[1]):
                best = (name, differs)
        assert best is not None
        return {"preset": best[0], **best[1]}

    @classmethod
    def from_builtins(cls, value: object) -> CodecSettings:
        """The inverse of `to_builtins`; without "preset" the defaults are what is overridden.

        Raises `ConfigError` for an unknown preset, an unknown key, a wrong type or a wrong value.
        """
        if isinstance(value, str):
            return _preset(value)
        if not isinstance(value, Mapping):
            raise ConfigError("codec settings", value=value, limit="a preset's name or a table")
        overrides = dict(value)
        base = _preset(overrides.pop("preset")) if "preset" in overrides else cls()
        types: dict[str, type | tuple[type, ...]] = {f.name: type(getattr(base, f.name)) for f in fields(cls)}
        for key, given in overrides.items():
            if key not in types:
                raise ConfigError("key of the codec settings", value=key, limit=", ".join(types))
            expected = (int, float) if types[key] is float else types[key]
            # bool is an int to Python, and True bits are a mistake.
            if not isinstance(given, expected) or (isinstance(given, bool) and types[key] is not bool):
                raise ConfigError(f"codec setting {key!r}", value=given, limit=types[key])
        return replace(base, **overrides)


def _check(name: str, value: object, allowed: str, fine: bool) -> None:
    if not fine:
        raise ConfigError(f"codec setting {name!r}", value=value, limit=allowed)


def _preset(name: object) -> CodecSettings:
    if not isinstance(name, str) or name not in PRESETS:
        raise ConfigError("codec preset", value=name, limit=", ".join(PRESETS))
    return PRESETS[name]


PRESETS: Mapping[str, CodecSettings] = MappingProxyType(
    {
        "exact": CodecSettings(kind="dense", bits=EXACT_BITS),
        "lossless": CodecSettings(kind="lossless", bits=EXACT_BITS),
        "dense8": CodecSettings(kind="dense", bits=8),
        "fast": CodecSettings(kind="topk", density=0.01, bits=4, zstd_level=1, small_tensor_values=0),
        "small": CodecSettings(kind="deadzone", step_rms=3.5),
        "tiny": CodecSettings(kind="deadzone", step_rms=6.0),
    }
)
"""Settings with a name.

* "exact": float32, four bytes a value, no entropy coder: the baseline of every comparison.
* "lossless": the same values, bit for bit, in about 85 % of the bytes: for a full model.
* "dense8": at most 8 bits a value; needs no error feedback.
* "fast": one in a hundred values, the largest, with 4 bits each; one section for all tensors but measured
  ones; a gigabyte of float32 a second and more on one core, a millisecond for a model of 200,000 values. With
  error feedback only.
* "small": float32's accuracy to within half a point in whole runs of small CNNs, with few exceptions. Hardest
  is MNIST with 90 % of one class a device: a step of 3 took a 160th of FedAvg's bytes, 3.3 a 195th (89.2 %
  right), 4 a 262nd (88.4 %); FedAvg has 86.7 %. With error feedback only.
* "tiny": a 256th to a 733rd; as accurate on digits, 1 to 8 points below on MNIST. With error feedback only.

The runs: docs/choosing-a-preset.md.
"""
