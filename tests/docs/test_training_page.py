"""The page on training graphs: its example runs, and prints what it says."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text()


def test_the_example_prints_what_the_page_says() -> None:
    scope: dict[str, Any] = {}
    printed: list[str] = []
    for code in re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(code, scope)
        if out.getvalue():
            printed.append(out.getvalue())
    shown = re.findall(r"^```\n(\[.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert printed == shown
    assert len(shown) == 2
