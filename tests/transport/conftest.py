"""A broker of the test's own, and links that do not wait long."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from mosquitto import Mosquitto

from laconic.transport import mqtt


@pytest.fixture
def broker(mosquitto_path: str, tmp_path: Path) -> Iterator[Mosquitto]:
    """A running mosquitto."""
    made = Mosquitto(mosquitto_path, tmp_path)
    made.start()
    yield made
    made.kill()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Links try again sooner than a device in the field would."""
    monkeypatch.setattr(mqtt, "_BACK_OFF_FIRST_S", 0.05)
