"""docs/simulator.md: its programs are whole, and print what it says."""

from __future__ import annotations

import contextlib
import io
import re
from typing import Any

from test_configuration_page import REPOSITORY

PAGE = (REPOSITORY / "docs" / "simulator.md").read_text()


def test_the_programs_print_what_the_page_says() -> None:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    # The last one needs Ray; the page calls it a fragment.
    *programs, fragment = [code for language, code in blocks if language == "python"]
    assert "Cluster" in fragment
    scope: dict[str, Any] = {}
    printed = []
    for code in programs:
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile(code, "simulator.md", "exec"), scope)
        printed.append(out.getvalue())
    assert printed == [code for language, code in blocks if not language]
    assert len(printed) == 2
