"""Campaigns on a real broker with kills at random moments: see `_coordinator.kills`."""

from __future__ import annotations

import pytest
from _coordinator import kills


@pytest.mark.soak
@pytest.mark.broker
def test_nothing_is_lost_and_nothing_counted_twice() -> None:
    found = kills.measure(20, first_seed=1000)
    assert found["wrong"] == []
    assert all(bar.ok for bar in kills.bars(found))
