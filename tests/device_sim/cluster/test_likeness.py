"""A machine that might compute other bits is refused, by what is other about it."""

from __future__ import annotations

import pytest

from laconic import __version__
from laconic.device_sim.cluster.likeness import PROCESSOR, REFUSED, check, likeness
from laconic.errors import ConfigError


def test_a_machine_is_like_itself_and_tells_its_versions() -> None:
    here = likeness()()
    assert here["laconic"] == __version__
    assert set(here) == {*REFUSED, PROCESSOR}
    assert "none" not in here.values()
    check(here, likeness()(), "itself")


@pytest.mark.parametrize("key", REFUSED)
def test_whatever_is_other_is_named_with_both_values(key: str) -> None:
    here = likeness()()
    with pytest.raises(ConfigError) as refused:
        check(here, {**here, key: "other"}, "node 7")
    assert (refused.value.value, refused.value.limit) == ("other", here[key])
    assert "node 7" in str(refused.value)
    with pytest.raises(ConfigError):
        check(here, {k: v for k, v in here.items() if k != key}, "node 7")


def test_another_processor_is_not_refused() -> None:
    here = likeness()()
    check(here, {**here, PROCESSOR: "other"}, "node 7")
