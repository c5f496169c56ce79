"""The profiles' loader takes what is right and refuses everything else, by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import resources
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic import profiles as module
from laconic.errors import ConfigError
from laconic.profiles import Origin, parse, profiles, quantities, worst
from often import examples

RAW = resources.files("laconic").joinpath("profiles.json").read_bytes()


def changed(change: Callable[[dict[str, Any]], object]) -> bytes:
    table = json.loads(RAW)
    change(table)
    return json.dumps(table).encode()


def lte(t: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = t["radios"]["lte_2012"]
    return found


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.update(unknown=1), "unknown"),
        (lambda t: lte(t).update(gamma=lte(t)["alpha_up"]), "gamma"),
        (lambda t: lte(t).pop("beta_mw"), "beta_mw"),
        (lambda t: lte(t).update(model="magic"), "magic"),
        (lambda t: lte(t)["beta_mw"].update(value="1288"), "beta_mw"),
        (lambda t: lte(t)["beta_mw"].update(value=None), "beta_mw"),
        (lambda t: lte(t)["beta_mw"].update(value=-1), "beta_mw"),
        (lambda t: lte(t)["beta_mw"].update(unit="W"), "unit of radios/lte_2012/beta_mw"),
        (lambda t: lte(t)["beta_mw"].update(source="hearsay"), "hearsay"),
        (lambda t: lte(t)["beta_mw"].update(verification="guess"), "guess"),
        (lambda t: lte(t)["up_mbps"].update(value=0), "up_mbps"),
        (lambda t: t["boards"]["rpi_4b"].update(cores=0), "rpi_4b"),
        (lambda t: t["boards"]["rpi_4b"]["load_w"].update(value=1), "rpi_4b"),
        (lambda t: t.update(schema=1), "schema"),
    ],
)
def test_a_wrong_file_is_refused_by_name(change: Callable[[dict[str, Any]], object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse(changed(change))


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(ConfigError):
        parse(RAW.replace(b"1288.04", b"1e999"))


@settings(max_examples=examples(60))
@given(st.data())
def test_a_damaged_file_is_refused_or_read(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(RAW) - 1))
    damaged = RAW[:at] + data.draw(st.binary(max_size=4)) + RAW[at + data.draw(st.integers(1, 40)) :]
    try:
        found = parse(damaged)
    except ConfigError:
        return
    assert quantities(found)


def test_a_huge_file_is_refused_unread() -> None:
    with pytest.raises(ConfigError, match="size"):
        parse(b" " * (2 << 20))


def test_a_name_without_a_profile_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match="rpi_4b"):
        module.board("rpi_9")
    with pytest.raises(ConfigError, match="lte_2012"):
        module.radio("6g")


def test_a_sum_is_known_no_better_than_its_worst_part() -> None:
    assert worst(Origin.MEASURED, Origin.ASSUMED, Origin.DERIVED) is Origin.ASSUMED
    assert worst() is Origin.MEASURED


def test_every_board_and_radio_can_be_used() -> None:
    for name, board in profiles().boards.items():
        assert board.core_w > 0, name
    for name, radio in profiles().radios.items():
        assert radio.idle.mean_w >= 0, name
        assert all(s.time_s.value > 0 for s in radio.tail), name
