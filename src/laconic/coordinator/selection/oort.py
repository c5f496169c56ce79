"""Oort: the devices that the model learns most from, for what it costs them.

Lai, Zhu, Madhyastha and Chowdhury, "Oort: Efficient Federated Learning via Guided Participant Selection",
OSDI 2021, algorithm 1. What differs is said in docs/selection.md.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from laconic.coordinator.selection.candidate import Candidate, Context
from laconic.coordinator.selection.settings import SelectionSettings

_UNCERTAINTY: Final = 0.1
"""Weight of not having heard of a device for long: section 4.4 of the paper."""
_CUTOFF: Final = 0.95
"""Candidates worth at least so much of the last that would be chosen have a chance: section 4.2."""


def oort(
    candidates: Sequence[Candidate], count: int, context: Context, settings: SelectionSettings
) -> list[str]:
    """`count` names: a part of them devices that were never asked, the rest those that are worth most."""
    rng = context.random()
    decayed = settings.exploration * settings.exploration_decay ** max(context.round - 1, 0)
    # Rounded at random: where a round asks one device, that is to be a new one now and then too.
    fresh = min(count, math.floor(max(settings.exploration_least, decayed) * count + float(rng.random())))
    draws = dict(zip(sorted(c.name for c in candidates), rng.random(len(candidates)).tolist(), strict=True))
    new = [c for c in candidates if not c.asked]
    known = [c for c in candidates if c.asked]
    exploited = min(len(known), count - min(fresh, len(new)))
    prices = _prices(candidates, settings)
    cheap = {c.name: 1.0 / prices[c.name] for c in new}
    worth = utilities(known, context.round, settings, prices)
    return [
        *_drawn(_worthy(worth, exploited), exploited, draws),
        *_drawn(cheap, count - exploited, draws),
    ]


def utilities(
    known: Sequence[Candidate], number: int, settings: SelectionSettings, prices: Mapping[str, float]
) -> dict[str, float]:
    """What devices are worth that have been asked before, in round `number`; 0 or more.

    Samples times loss, not above a quantile of that, in parts of it; more for whoever has not been asked for
    long; over its price.
    """
    told = [abs(c.loss) for c in known if c.loss is not None]
    # One that has not told its loss counts as others usually do: neither lost nor sought after.
    usual = statistics.median(told) if told else 1.0
    learns = {c.name: c.samples * (usual if c.loss is None else abs(c.loss)) for c in known}
    most = _quantile(learns.values(), settings.clip) or 1.0
    return {
        c.name: (
            min(learns[c.name] / most, 1.0)
            + math.sqrt(_UNCERTAINTY * math.log(max(number, 1)) / max(c.asked_round, 1))
        )
        / prices[c.name]
        for c in known
    }


def _prices(candidates: Sequence[Candidate], settings: SelectionSettings) -> dict[str, float]:
    """What each device costs: joules and bytes to their exponents, and its time if it is slow.

    In medians of the candidates, so that figures are near 1; only ratios count.
    """
    if not candidates:
        return {}
    joules = statistics.median(c.joules for c in candidates) or 1.0
    octets = statistics.median(c.bytes for c in candidates) or 1.0
    seconds = [c.seconds for c in candidates if c.seconds is not None]
    preferred = _quantile(seconds, settings.fast_share)
    found = {}
    for c in candidates:
        slow = max(1.0, c.seconds / preferred) if c.seconds is not None and preferred else 1.0
        # What costs nothing at all would be worth infinitely much.
        price = max(c.joules / joules, 1e-3) ** settings.joules_exponent
        price *= max(c.bytes / octets, 1e-3) ** settings.bytes_exponent
        found[c.name] = price * slow**settings.slow_exponent
    return found


def _worthy(worth: Mapping[str, float], count: int) -> dict[str, float]:
    """Those that are worth nearly as much as the last of the `count` best."""
    if not 0 < count <= len(worth):
        return {}
    least = _CUTOFF * sorted(worth.values(), reverse=True)[count - 1]
    return {name: value for name, value in worth.items() if value >= least}


def _drawn(weights: Mapping[str, float], count: int, draws: Mapping[str, float]) -> list[str]:
    """`count` names without replacement, each time with probability in proportion to weight.

    The largest u^(1/w), as logarithms: Efraimidis and Spirakis, "Weighted random sampling with a reservoir",
    Information Processing Letters 97 (2006).
    """

    def key(name: str) -> tuple[float, str]:
        return -math.log(max(draws[name], 1e-300)) / max(weights[name], 1e-12), name

    return sorted(weights, key=key)[:count]


def _quantile(values: Iterable[float], share: float) -> float:
    """The smallest value that at least `share` of them do not exceed; 0 for none."""
    ordered = sorted(values)
    return float(ordered[max(0, math.ceil(share * len(ordered)) - 1)]) if ordered else 0.0
