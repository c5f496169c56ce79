"""docs/profiles.md is made from `laconic.profiles`, figure by figure.

Run as a program, this file writes the page.
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from laconic.profiles import Origin, Profiles, Quantity, Verification, profiles, quantities

PAGE = Path(__file__).resolve().parents[2] / "docs" / "profiles.md"
HEAD = """# Profiles: published power and bandwidth

Every constant of the simulator's world, from `src/laconic/profiles.json`. This page is made from that file
(`python tests/docs/test_profiles_page.py`); how the figures are used is in [simulator.md](simulator.md).
A figure is as good as the last column but one says:

"""


def page() -> str:
    """The page as it should be."""
    p = profiles()
    parts = [HEAD, _levels(p)]
    for title, table in (("Boards", p.boards), ("Radios", p.radios)):
        for name, entry in table.items():
            parts.append(f"\n## {title[:-1]} `{name}`: {entry.what}\n\n{_rows(quantities(entry))}")
    for title, rest in (("Batteries", p.battery), ("Bytes on the wire", p.wire), ("Fleets", p.population)):
        parts.append(f"\n## {title}\n\n{_rows(quantities(rest))}")
    parts.append("\n## Sources\n\n")
    parts += [f"- `{name}`: {text}\n" for name, text in p.sources.items()]
    return "".join(parts)


def _levels(p: Profiles) -> str:
    count = {v: sum(q.verification is v for _, q in quantities(p)) for v in Verification}
    lines = ["| verification | counts as | figures | what it means |", "|---|---|---|---|"]
    lines += [f"| {v.value} | {v.origin.value} | {count[v]} | {v.said} |" for v in Verification]
    return "\n".join(lines) + "\n"


def _rows(found: list[tuple[str, Quantity]]) -> str:
    lines = ["| figure | value | unit | source | verification | note |", "|---|---|---|---|---|---|"]
    for where, q in found:
        unit = "" if q.unit == "1" else q.unit
        lines.append(
            f"| {where} | {q.value:g} | {unit} | {q.source} | {q.verification.value} | {q.note} |".replace(
                "|  |", "| |"
            )
        )
    return "\n".join(lines) + "\n"


def test_the_page_shows_the_profiles() -> None:
    assert PAGE.read_text() == page(), "run this file as a program"


def test_every_source_is_used_and_every_figure_has_one() -> None:
    p = profiles()
    assert {q.source for _, q in quantities(p)} == set(p.sources)


def test_what_is_assumed_says_what_was_taken_instead() -> None:
    for where, q in quantities(profiles()):
        if q.origin is Origin.ASSUMED and q.source == "conv" and not where.startswith("population"):
            assert q.note or where.startswith("battery"), where


def test_figures_stand_under_their_tables_once() -> None:
    places = sorted(where for where, _ in quantities(profiles()))
    assert all(len(list(group)) == 1 for _, group in groupby(places))


if __name__ == "__main__":
    PAGE.write_text(page())
