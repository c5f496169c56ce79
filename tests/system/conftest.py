"""A site for each system test; what runs there ends with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sites import Site


@pytest.fixture
def site(tmp_path: Path, mosquitto_path: str) -> Iterator[Site]:
    """A folder and a broker's place in it."""
    made = Site(tmp_path, mosquitto_path)
    yield made
    for process in reversed(made.running):
        process.end()
