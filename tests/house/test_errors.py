"""An error's sentence: what was found may be hostile and is cut off, what is allowed can be read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic.device_sim import Scenario
from laconic.errors import ConfigError, LaconicError
from laconic.profiles import profiles


@given(st.text(max_size=3000), st.text(max_size=3000))
def test_nothing_fills_a_log(value: str, limit: str) -> None:
    error = LaconicError("thing", value=value, limit=limit, remedy="remedy")
    shown = value if len(value) <= 120 else value[:117] + "..."
    allowed = limit if len(limit) <= 1000 else limit[:997] + "..."
    assert str(error) == f"thing, found {shown}, allowed {allowed}; remedy"
    assert (error.value, error.limit) == (value, limit)


def test_all_that_may_be_chosen_is_shown() -> None:
    device = {"name": "d", "count": 1, "radio": "morse", "speed": {"sample_s": 0.1}}
    with pytest.raises(ConfigError) as refused:
        Scenario.of({"name": "n", "model": {"built_in": "softmax"}, "devices": [device]})
    assert all(radio in str(refused.value) for radio in profiles().radios)
