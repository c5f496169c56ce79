"""Which rule makes one update of many, how many hostile devices it stands, what it may take of memory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final, Literal, TypeAlias, get_args

from laconic.errors import ConfigError

RuleName: TypeAlias = Literal[
    "mean", "norm_bound", "median", "trimmed_mean", "krum", "multi_krum", "geometric_median"
]
RULES: Final[tuple[RuleName, ...]] = get_args(RuleName)

PAIRWISE: Final = ("krum", "multi_krum", "geometric_median")
"""Rules that compare each update with each."""

LEAST_REPORTS: Final = 3
"""Reports without which no rule can tell who is alone."""

_MATRICES: Final = 6
"""Square matrices of float64 with a row for each update that are held at once, at the most."""
_MOST_PASSES: Final = 64
"""How often an update is decoded at the most, for as many blocks."""


@dataclass(frozen=True, slots=True)
class AggregationSettings:
    """How a round's updates become one.

    * `rule`: "mean" weighs each update by its samples; every other counts a device once, since a device says
      itself how many samples it has.
    * `mixing`: replace each update by the mean of its nearest first (see the module `mixing`).
    * `malicious_share`: part of a round's devices that may be hostile, below one half.
    * `bucket_size`: average so many updates, chosen at random, before anything else; 1 for none.
    * `norm_limit`: of "norm_bound": the longest update; 0 for `norm_multiple` times the round's median.
    * `memory_bytes`: what the rule may hold at once, beyond the model.
    * `absurd_multiple`: an update so many times longer than usual is refused; 0 for none.

    Raises `ConfigError` for settings that contradict each other or leave their range.
    """

    rule: RuleName = "mean"
    mixing: bool = False
    malicious_share: float = 0.2
    bucket_size: int = 1
    norm_limit: float = 0.0
    norm_multiple: float = 1.0
    memory_bytes: int = 512 * 2**20
    absurd_multiple: float = 100.0

    def __post_init__(self) -> None:
        _check("rule", self.rule, ", ".join(RULES), self.rule in RULES)
        _check("malicious_share", self.malicious_share, "0 to 0.49", 0 <= self.malicious_share <= 0.49)
        _check("bucket_size", self.bucket_size, "1 or more", self.bucket_size >= 1)
        _check("norm_limit", self.norm_limit, "0 to 1e15", 0 <= self.norm_limit <= 1e15)
        _check("norm_multiple", self.norm_multiple, "0.01 to 1e6", 0.01 <= self.norm_multiple <= 1e6)
        _check("memory_bytes", self.memory_bytes, "2^20 or more", self.memory_bytes >= 2**20)
        fine = self.absurd_multiple == 0 or 2 <= self.absurd_multiple <= 1e9
        _check("absurd_multiple", self.absurd_multiple, "0, or 2 to 1e9", fine)
        # A bucket with one hostile update is a hostile row.
        if self.bucket_size > 1 and self.bucket_size * self.malicious_share >= 0.5:
            raise ConfigError(
                "aggregation.bucket_size times malicious_share",
                value=self.bucket_size * self.malicious_share,
                limit="below 0.5",
                remedy="use smaller buckets: each hostile update spoils one",
            )

    @property
    def streams(self) -> bool:
        """Whether each update can be added when it comes, and forgotten."""
        alone = not self.mixing and self.bucket_size == 1
        return alone and (self.rule == "mean" or self.clips)

    @property
    def clips(self) -> bool:
        """Whether a stated norm is the longest that an update may have."""
        return self.rule == "norm_bound" and self.norm_limit > 0

    @property
    def weighted(self) -> bool:
        """Whether a device's number of samples counts."""
        return self.rule == "mean" and self.streams

    @property
    def pairwise(self) -> bool:
        """Whether a table of all pairs of updates is needed."""
        return self.mixing or self.rule in PAIRWISE or self.bucket_size > 1

    def tolerated(self, rows: int) -> int:
        """How many of `rows` updates may be hostile: the share, rounded up, but never half of them."""
        wanted = math.ceil(self.malicious_share * rows * self.bucket_size - 1e-9)
        return max(0, min(wanted, (rows - 1) // 2))

    @property
    def _cell_bytes(self) -> int:
        """For each value of a block: float32, and what is sorted; with a mixture of rows, float64 of both."""
        return 40 if self.pairwise else 16

    def _block_bytes(self, updates: int) -> int:
        """What is left for a block when the tables of pairs have theirs, and decoded updates a quarter."""
        return self.memory_bytes * 3 // 4 - (8 * _MATRICES * updates * updates if self.pairwise else 0)

    def width(self, updates: int, silent: int, size: int) -> int:
        """How many values of each row are held at once; `size` is how many an update has."""
        cells = self._block_bytes(updates) // (self._cell_bytes * (updates + silent))
        return max(1, min(size, cells))

    def most_updates(self, size: int) -> int | None:
        """How many updates of `size` values fit into `memory_bytes`; None for no limit of this rule's own.

        The tables of pairs fit into half of it, and no update is decoded more often than 64 times.
        """
        if self.streams or (self.rule == "norm_bound" and not self.pairwise):
            return None
        # n cells of each value, in 64 blocks: n x size x cell <= 64 x (what is left beside n x n pairs).
        b, c = self._cell_bytes * size, _MOST_PASSES * self._block_bytes(0)
        if not self.pairwise:
            return c // b
        a = _MOST_PASSES * 8 * _MATRICES
        most = (math.isqrt(b * b + 4 * a * c) - b) // (2 * a)
        return min(most, math.isqrt(self.memory_bytes // (16 * _MATRICES)))


def _check(name: str, value: object, allowed: str, fine: bool) -> None:
    if not fine:
        raise ConfigError(f"aggregation setting {name!r}", value=value, limit=allowed)


PLAIN: Final = AggregationSettings()
"""The mean, weighted by samples."""


def checked(settings: AggregationSettings, *, size: int, min_reports: int) -> AggregationSettings:
    """`settings`, if rounds of `min_reports` reports on models of `size` values can be aggregated so.

    Raises `ConfigError` where a rule would protect nothing, or would not fit into its memory.
    """
    if settings.rule == "mean" and settings.streams:
        return settings
    if min_reports < LEAST_REPORTS:
        raise ConfigError(
            f"rounds.min_reports with aggregation rule {settings.rule!r}",
            value=min_reports,
            limit=f"{LEAST_REPORTS} or more",
            remedy="among fewer reports no rule can tell a hostile one",
        )
    most = settings.most_updates(size)
    if most is not None and most < min_reports:
        raise ConfigError(
            f"updates of {size} values that aggregation.memory_mb holds",
            value=most,
            limit=f"rounds.min_reports = {min_reports} or more",
            remedy="give the rule more memory, or use rule 'norm_bound', which needs none",
        )
    return settings


PRESETS: Final[Mapping[str, AggregationSettings]] = MappingProxyType(
    {"robust": AggregationSettings("trimmed_mean", mixing=True)}
)
"""Settings with a name, chosen by the table in docs/aggregation.md."""


def named(name: str) -> AggregationSettings:
    """The settings of a preset, or of a rule by itself. Raises `ConfigError` for neither."""
    if name in PRESETS:
        return PRESETS[name]
    if name in RULES:
        return replace(PLAIN, rule=name)
    raise ConfigError("aggregation.rule", value=name, limit=", ".join([*PRESETS, *RULES]))
