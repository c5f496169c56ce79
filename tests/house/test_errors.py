"""An error's sentence: what was found may be hostile and is cut off, what is allowed can be read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic.errors import ConfigError, LaconicError
from laconic.profiles import profiles, radio


@given(st.text(max_size=3000), st.text(max_size=3000))
def test_nothing_fills_a_log(value: str, limit: str) -> None:
    error = LaconicError("thing", value=value, limit=limit, remedy="remedy")
    shown = value if len(value) <= 120 else value[:117] + "..."
    allowed = limit if len(limit) <= 1000 else limit[:997] + "..."
    assert str(error) == f"thing, found {shown}, allowed {allowed}; remedy"
    assert (error.value, error.limit) == (value, limit)


def test_all_that_may_be_chosen_is_shown() -> None:
    with pytest.raises(ConfigError) as refused:
        radio("morse")
    assert all(name in str(refused.value) for name in profiles().radios)
