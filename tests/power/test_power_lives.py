"""A device that loses its power again and again: nothing damaged, lost, counted twice or unpaid for."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.cc, pytest.mark.broker]


def live(losses: int, seed: int) -> None:
    from _sdk import power

    found = power.measure(losses, seed)
    assert found["wrong"] == []
    assert found["committed"] == found["settled"] > 0
    assert [bar.name for bar in power.bars(found) if not bar.ok] == []


@pytest.mark.soak
def test_forty_losses_of_power() -> None:
    live(40, seed=1)


def test_a_loss_of_power() -> None:
    """The same, as far as there is time for it in the fast suite."""
    from _sdk import power

    assert power.measure(1, seed=3)["wrong"] == []
