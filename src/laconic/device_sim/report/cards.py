"""The parts that pages of runs are made of: cards with figures, tables, keys."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from laconic import drawing
from laconic.device_sim.report import figures
from laconic.drawing import Draw
from laconic.pages import element, escape

_HALF: Final = 520
_WHOLE: Final = 1080
_HIGH: Final = 320
_MANY: Final = 10
"""Columns from which on they stand closer."""


def card(
    title: str, says: str, keys: Iterable[tuple[str, str, str]], drawn: str, *, alone: bool = False
) -> str:
    """A figure with its title and legend; `keys`: colour, words, value."""
    legend = "".join(
        f"<li>{_block_key(colour)}{escape(words)}{f' <b>{escape(value)}</b>' if value else ''}</li>"
        for colour, words, value in keys
    )
    return (
        f'<figure class="card{" alone" if alone else ""}">{element("h2", title)}'
        + (f'<p class="says">{escape(says)}</p>' if says else "")
        + (f'<ul class="legend">{legend}</ul>' if legend else "")
        + f"{drawn}</figure>"
    )


def pairs(*cards: str) -> str:
    """Cards, two and two side by side; nothing without any."""
    there = [c for c in cards if c]
    rows = [there[i : i + 2] for i in range(0, len(there), 2)]
    return "".join(f'<div class="pair">{"".join(row)}</div>' for row in rows)


def svg(draw: Draw, name: str, label: str, *, height: int = _HIGH) -> str:
    """A drawing as it stands in a card that has half of the page."""
    return drawing.svg(draw, name=name, label=label, width=_HALF, height=height)


def wide_svg(draw: Draw, name: str, label: str, *, height: int) -> str:
    """A drawing as it stands in a card alone: on a phone another one with larger words."""
    both = {"wide": (name, _WHOLE), "narrow": (f"{name}-narrow", _HALF)}
    drawn = [
        (which, drawing.svg(draw, name=id_, label=label, width=width, height=height))
        for which, (id_, width) in both.items()
    ]
    return "".join(f'<div class="{which} whole">{words}</div>' for which, words in drawn)


def table(title: str, says: str, head: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]]) -> str:
    """`rows`: the first cell as HTML, the others as text, of which a second line is small."""
    many = ' class="many"' if len(head) > _MANY else ""
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(map(_cell, cells))}</tr>' for first, cells in rows
    )
    return (
        f'<section class="card alone">{element("h2", title)}<p class="says">{escape(says)}</p>'
        '<div class="scroll" tabindex="0" role="region" aria-label="' + escape(title) + f'"><table{many}>'
        "<thead><tr>" + "".join(f'<th scope="col">{escape(w)}</th>' for w in head) + "</tr></thead>"
        f"<tbody>{body}</tbody></table></div></section>"
    )


def _cell(text: str) -> str:
    first, _, second = text.partition("\n")
    small = f'<br><small style="color:var(--muted)">{escape(second)}</small>' if second else ""
    return f"<td>{escape(first)}{small}</td>"


def _block_key(colour: str) -> str:
    return (
        '<svg width="14" height="14" aria-hidden="true">'
        f'<rect width="14" height="14" rx="3" fill="var(--{colour})"/></svg>'
    )


def line_key(i: int) -> str:
    """The i-th line's colour and dashes."""
    colour, dashes = figures.line_style(i)
    pattern = " ".join(f"{2.2 * d:g}" for d in dashes[1]) if isinstance(dashes, tuple) else "none"
    return (
        '<svg width="30" height="10" aria-hidden="true"><path d="M0 5H30" fill="none"'
        f' style="stroke:var(--{colour});stroke-width:2.4;stroke-dasharray:{pattern}"/></svg>'
    )
