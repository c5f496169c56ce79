"""Pages with worked examples: what they print is what they say."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("page", ["training.md", "trainer.md", "data.md"])
def test_the_examples_print_what_the_page_says(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (DOCS / page).read_text()
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    scope: dict[str, Any] = {"__name__": page}
    printed: list[str] = []
    for language, code in blocks:
        if language == "python":
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile(code, page, "exec"), scope)
            printed += [out.getvalue()] if out.getvalue() else []
    # The picture of the pipeline prints nothing.
    shown = [code for language, code in blocks if not language and "──" not in code]
    assert printed == shown
    assert printed
