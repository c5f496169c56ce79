"""docs/rounds.md shows the round machine as it is: diagram and table are made from `rounds.TABLE`.

Run as a program, this file writes both into the page.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from laconic.coordinator import rounds
from laconic.coordinator.rounds import Phase, Plan, Round

PAGE = Path(__file__).resolve().parents[2] / "docs" / "rounds.md"
INPUTS: dict[type[rounds.Input], list[rounds.Input]] = {
    **{kind: [kind()] for kind in (rounds.Joined, rounds.Reported, rounds.Left, rounds.Resumed)},
    rounds.TimedOut: [rounds.TimedOut()],
    rounds.Present: [rounds.Present(n) for n in range(4)],
    rounds.Held: [rounds.Held(None), rounds.Held(20.0)],
    rounds.TakenBack: [rounds.TakenBack()],
    rounds.Advanced: [rounds.Advanced(False), rounds.Advanced(True), rounds.Advanced(again=True)],
}


def transitions() -> list[tuple[str, str, str, str]]:
    """(phase, input, next phase, action) that `rounds.TABLE` can bring about, found by trying small cases."""
    found = set()
    for (phase, kind), expected, reported, deadline, least, target in itertools.product(
        rounds.TABLE, range(4), range(4), (None, 0.0, 10.0), range(1, 4), range(3)
    ):
        plan = Plan(rounds=2, min_devices=2, min_reports=least, deadline_s=5.0, target_reports=target)
        for given, n in itertools.product(INPUTS[kind], (1, 2)):
            if reported > expected or (kind in (rounds.Reported, rounds.Left) and reported == expected):
                continue
            state = Round(n, phase, expected, reported, deadline)
            after, action = rounds.step(plan, state, given, 1.0)
            found.add((phase.name, kind.__name__, after.phase.name, action.value if action else ""))
    order = [p.name for p in Phase]
    names = [kind.__name__ for kind in INPUTS]
    return sorted(found, key=lambda t: (order.index(t[0]), names.index(t[1]), order.index(t[2]), t[3]))


def diagram() -> str:
    """The state diagram of a round, in mermaid."""
    lines = ["stateDiagram-v2", f"    [*] --> {Phase.WAITING.name}"]
    lines += [f"    {a} --> {b}: {what}{' / ' + do if do else ''}" for a, what, b, do in transitions()]
    return "\n".join([*lines, f"    {Phase.FINISHED.name} --> [*]"])


def table() -> str:
    """The same as a table: a row for each phase and input, and what may come of it."""
    lines = ["| in | on | to, and what is done |", "|---|---|---|"]
    for (phase, what), group in itertools.groupby(transitions(), key=lambda t: t[:2]):
        ways = "; or ".join(f"`{b}`{': ' + do if do else ''}" for _, _, b, do in group)
        lines.append(f"| `{phase}` | `{what}` | {ways} |")
    return "\n".join(lines)


DIAGRAM = re.compile(r"(?<=```mermaid\n)stateDiagram.*?(?=\n```)", re.DOTALL)
TABLE = re.compile(r"\| in \| on \|.*?(?=\n\n)", re.DOTALL)


@pytest.mark.parametrize(("pattern", "made"), [(DIAGRAM, diagram), (TABLE, table)], ids=["diagram", "table"])
def test_the_page_shows_the_machine(pattern: re.Pattern[str], made: object) -> None:
    assert callable(made)
    found = pattern.search(PAGE.read_text())
    assert found
    assert found[0] == made(), "run this file as a program"


def test_every_row_of_the_table_can_happen() -> None:
    assert {(a, what) for a, what, _, _ in transitions()} == {
        (phase.name, kind.__name__) for phase, kind in rounds.TABLE
    }


def test_every_phase_and_input_is_explained() -> None:
    explained = re.findall(r"^- `(\w+)`: ", PAGE.read_text(), re.MULTILINE)
    assert sorted(explained) == sorted([*Phase.__members__, *(kind.__name__ for kind in INPUTS)])


if __name__ == "__main__":
    text = DIAGRAM.sub(lambda m: diagram(), PAGE.read_text())
    PAGE.write_text(TABLE.sub(lambda m: table(), text))
