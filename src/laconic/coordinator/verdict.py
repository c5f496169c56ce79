"""Whether a version is worse than it may be: by held-out data, or by the devices' reports against noise."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from laconic.coordinator.advance import Score
from laconic.coordinator.evaluation import Evaluation, Report
from laconic.errors import ConfigError

_LEAST_UNPAIRED = 8
"""The normal approximation of the rank-sum test holds for samples of so many and more (Mann and Whitney, "On
a Test of Whether One of Two Random Variables is Stochastically Larger than the Other", 1947, section 4)."""


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """When a version is worse than it may be, and how new ones are tried. Without a margin none is judged.

    Raises `ConfigError` for a value out of range, or values that contradict each other.
    """

    margin_loss: float | None = None
    """A version may have so much more loss than the one it is compared with."""
    margin_accuracy: float | None = None
    """A version may have so much less accuracy."""
    compare_with: Literal["best", "parent"] = "best"
    window: int = 8
    """The best of so many versions before it."""
    patience: int = 1
    """So many versions in a row must be worse before anything is done."""
    min_reports: int = 5
    """Least number of devices whose reports may condemn a version."""
    significance: float = 0.05
    """Largest probability that chance alone makes reports look so bad."""
    canary_share: float = 0.0
    """The part of the fleet that tries a new version before the rest; 0 for no trial."""
    canary_reports: int = 5
    """Least number of devices that must have tried it."""
    canary_deadline_s: float = 600.0

    def __post_init__(self) -> None:
        for name, least, most in _RANGES:
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise ConfigError(f"models.{name}", value=value, limit=f"{least} to {most}")
        if self.compare_with not in ("best", "parent"):
            raise ConfigError("models.compare_with", value=self.compare_with, limit="best or parent")
        needed = math.ceil(-math.log2(self.significance) - 1e-9)
        if self.min_reports < needed:
            raise ConfigError(
                "models.min_reports",
                value=self.min_reports,
                limit=f"at least {needed} at significance {self.significance}",
                remedy="fewer reports can never be told from chance",
            )
        if self.canary_share and not self.judges:
            raise ConfigError(
                "models.canary_share",
                value=self.canary_share,
                limit="0 without a margin",
                remedy="set models.margin_loss or models.margin_accuracy: a trial needs a judge",
            )

    @property
    def judges(self) -> bool:
        """Whether versions are judged at all."""
        return self.margin_loss is not None or self.margin_accuracy is not None

    @property
    def tries(self) -> bool:
        """Whether a part of the fleet tries new versions first."""
        return self.canary_share > 0.0


_RANGES = (
    ("margin_loss", 0.0, 1e15),
    ("margin_accuracy", 0.0, 1.0),
    ("window", 1, 1000),
    ("patience", 1, 1000),
    ("min_reports", 1, 10**6),
    ("significance", 1e-9, 0.5),
    ("canary_share", 0.0, 1.0),
    ("canary_reports", 1, 10**6),
    ("canary_deadline_s", 0.1, 1e7),
)


def check_judge(settings: ModelSettings, *, held_out: bool, local: int) -> None:
    """Raises `ConfigError` where held-out data would judge versions without what belongs to them.

    `local`: how many weights stay on the devices. The coordinator has but their initial values, with which a
    version that serves every device well may look worse than the one before it.
    """
    if settings.judges and held_out and local:
        raise ConfigError(
            f"models.margin_loss or models.margin_accuracy, on held-out data without {local:,} local weights",
            remedy="leave held_out out: devices judge with weights of their own; or leave out the margins",
        )


def worse_by_score(settings: ModelSettings, new: Score, reference: Score) -> str:
    """How `new` is worse than `reference` by more than a margin, in words; "" if it is not.

    The same data for both: there is no noise of sampling in the difference. A loss that is no number is worse
    than any.
    """
    if settings.margin_loss is not None and math.isfinite(reference.loss):
        over = new.loss - reference.loss
        if not over <= settings.margin_loss:
            return f"loss {new.loss:.6g} on held-out data, {reference.loss:.6g} before"
    margin, now, before = settings.margin_accuracy, new.accuracy, reference.accuracy
    if margin is None or now is None or before is None or before - now <= margin:
        return ""
    return f"accuracy {now:.6g} on held-out data, {before:.6g} before"


def better(settings: ModelSettings, one: tuple[float | None, float | None]) -> tuple[float, float]:
    """A key by which versions are ordered, the best last, from loss and accuracy.

    By the metric that has a margin; by accuracy where both have one.
    """
    loss, accuracy = one
    by_loss = -math.inf if loss is None or math.isnan(loss) else -loss
    by_accuracy = -math.inf if accuracy is None else accuracy
    return (by_loss, by_accuracy) if settings.margin_accuracy is None else (by_accuracy, by_loss)


def worse_by_reports(settings: ModelSettings, new: Evaluation, reference: Evaluation) -> str:
    """How the devices find `new` worse than `reference` by more than a margin, in words; "" if they do not.

    Devices that have measured both are compared with themselves: more of them than chance allows must find
    the new version worse by more than the margin (sign test, one-sided; Dixon and Mood, "The Statistical
    Sign Test", JASA 41, 1946). It weighs each device by its sign alone, so that a few that lie, however
    boldly, decide nothing that the others do not. Where too few have measured both, the two samples are
    compared by ranks (Mann and Whitney, 1947), shifted by the margin.
    """
    if settings.margin_loss is not None:
        pairs = _Pairs.of(new, reference, lambda r: r.loss)
        if pairs.shows(settings, settings.margin_loss):
            return f"loss higher by more than {settings.margin_loss:g} on {pairs.text(settings.margin_loss)}"
    if settings.margin_accuracy is not None:
        pairs = _Pairs.of(new, reference, lambda r: None if r.accuracy is None else -r.accuracy)
        if pairs.shows(settings, settings.margin_accuracy):
            margin = settings.margin_accuracy
            return f"accuracy lower by more than {margin:g} on {pairs.text(margin)}"
    return ""


@dataclass(frozen=True, slots=True)
class _Pairs:
    """One metric, where more is worse: both samples, and the differences of devices that are in both."""

    new: Sequence[float]
    old: Sequence[float]
    differences: Sequence[float]

    @classmethod
    def of(cls, new: Evaluation, old: Evaluation, metric: Callable[[Report], float | None]) -> _Pairs:
        before = {r.device: value for r in old.reports if (value := metric(r)) is not None}
        after = {r.device: value for r in new.reports if (value := metric(r)) is not None}
        both = [after[name] - before[name] for name in after if name in before]
        return cls(sorted(after.values()), sorted(before.values()), both)

    def shows(self, settings: ModelSettings, margin: float) -> bool:
        if len(self.differences) >= settings.min_reports:
            count = sum(d > margin for d in self.differences)
            return sign_test(count, len(self.differences)) <= settings.significance
        if min(len(self.new), len(self.old)) < max(settings.min_reports, _LEAST_UNPAIRED):
            return False
        return rank_sum_test([x - margin for x in self.new], self.old) <= settings.significance

    def text(self, margin: float) -> str:
        if self.differences:
            return f"{sum(d > margin for d in self.differences)} of {len(self.differences)} devices"
        return f"{len(self.new)} devices against {len(self.old)} others"


def sign_test(count: int, of: int) -> float:
    """Probability that a fair coin thrown `of` times shows `count` heads or more."""
    return math.fsum(math.comb(of, k) / 2**of for k in range(count, of + 1))


def rank_sum_test(new: Sequence[float], old: Sequence[float]) -> float:
    """Probability that chance alone puts `new` so far above `old`: one-sided, normal approximation with
    continuity correction. Ties count half; the variance is that without ties, which is the larger one."""
    ordered = sorted(old)
    u = sum((bisect_left(ordered, x) + bisect_right(ordered, x)) / 2 for x in new)
    n, m = len(new), len(old)
    deviation = math.sqrt(n * m * (n + m + 1) / 12)
    return 0.5 * math.erfc((u - n * m / 2 - 0.5) / deviation / math.sqrt(2))
