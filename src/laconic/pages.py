"""HTML pages that need nothing but themselves, with the style and colours that all of them have."""

from __future__ import annotations

import html
from collections.abc import Sequence
from importlib.resources import files
from typing import Final

from laconic.drawing import PALETTE
from laconic.quantities import legible

# The page is to load nothing; a browser that reads this refuses to, even if a name in the data tried.
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def page(title: str, sections: Sequence[str]) -> str:
    """A page of sections that are HTML already."""
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            '<link rel="icon" href="data:,">',
            f"<title>{escape(title)}</title>",
            f"<style>\n{_style()}</style>",
            "</head>",
            "<body>",
            "<main>",
            *sections,
            "</main>",
            "</body>",
            "</html>",
            "",
        ]
    )


def escape(words: str) -> str:
    """Text that stays text, whatever it says."""
    return html.escape(legible(words))


def element(name: str, words: str) -> str:
    """An HTML element that holds only text."""
    return f"<{name}>{escape(words)}</{name}>"


def _style() -> str:
    light, dark = ("".join(f"--{n}:{c[i]};" for n, c in PALETTE.items()) for i in (0, 1))
    rules = (files("laconic") / "pages.css").read_text(encoding="utf-8")
    roots = f":root{{color-scheme:light dark;{light}}}\n@media (prefers-color-scheme:dark){{:root{{{dark}}}}}"
    return f"{roots}\n{rules}"
