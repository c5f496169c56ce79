"""Nobody waits for ever: whoever has waited too long is asked first; and how evenly devices were asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from laconic.coordinator.selection.candidate import Candidate


def overdue(
    candidates: Sequence[Candidate], most_rounds_waiting: int, draws: Mapping[str, float]
) -> list[str]:
    """The names of those who have waited `most_rounds_waiting` rounds or more, the longest first.

    With these in front no device is passed over in more than W + (n - 1) // k rounds in a row for which it
    could have been asked, where W is `most_rounds_waiting`, k the number of devices that a round asks, n that
    of the fleet; and in no more than W while no more than k have waited so long. For a device that is passed
    over when it has waited too long sees k others asked that have waited as long or longer: those go behind
    it, and nobody overtakes it.
    """
    late = [c for c in candidates if c.waited >= most_rounds_waiting]
    return [c.name for c in sorted(late, key=lambda c: (-c.waited, draws[c.name], c.name))]


def jain(counts: Iterable[int]) -> float:
    """Jain's index of fairness: (sum x)^2 / (n sum x^2), from 1/n (one has all) to 1 (all have the same).

    1 where nobody has anything. Jain, Chiu and Hawe, "A Quantitative Measure of Fairness and Discrimination
    for Resource Allocation in Shared Computer Systems", DEC-TR-301, 1984.
    """
    given = list(counts)
    squares = sum(x * x for x in given)
    return sum(given) ** 2 / (len(given) * squares) if squares else 1.0
