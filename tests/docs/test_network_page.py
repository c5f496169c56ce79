"""docs/network.md: what pings cost is what the profiles and the link say, and its configuration loads."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from laconic.edge_sdk.daemon import DeviceConfig
from laconic.edge_sdk.life import standing_bytes
from laconic.edge_sdk.power import radio_costs, radio_named
from laconic.transport import mqtt
from laconic.transport.link import PING_SHARE
from laconic.transport.mqtt import Address

PAGE = (Path(__file__).parents[2] / "docs" / "network.md").read_text()
DAY_S = 86_400
KEEP_ALIVE_S = (60, 300, 900, 1800)
HEADERS_BYTES = 3 * 52
"""IPv4 (RFC 791) and TCP with timestamps (RFC 9293, RFC 7323): the ping, its answer, an acknowledgement."""


def table() -> dict[str, list[str]]:
    rows = re.findall(r"^\| (.+?) \|(.+)\|$", PAGE, re.MULTILINE)
    return {name.strip("`"): [c.strip() for c in rest.split("|")] for name, rest in rows}


@pytest.mark.parametrize("radio", ["wifi_2012", "wifi_phone_2020", "lte_2021", "lte_2012"])
def test_joules_a_day_are_pings_times_bursts(radio: str) -> None:
    burst = radio_costs(radio_named(radio)).burst_j
    said, *joules = table()[radio]
    assert float(said) == pytest.approx(burst, abs=6e-3)
    due = [burst * DAY_S / (s * PING_SHARE) for s in KEEP_ALIVE_S]
    assert [float(j) for j in joules] == pytest.approx(due, rel=0.01, abs=0.5)


def test_pings_and_bytes() -> None:
    pings = [DAY_S / (s * PING_SHARE) for s in KEEP_ALIVE_S]
    each = standing_bytes(Address("h", tls=True))
    assert table()["pings a day"] == ["", *(f"{p:.0f}" for p in pings)]
    assert table()["kB a day at the socket, TLS"] == ["", *(f"{p * each / 1e3:.0f}" for p in pings)]
    assert table()["kB a day at IP, TLS"] == [
        "",
        *(f"{p * (each + HEADERS_BYTES) / 1e3:.0f}" for p in pings),
    ]


def test_waits_are_those_of_the_link() -> None:
    assert f"after {mqtt._BACK_OFF_FIRST_S} s, 1 s, 2 s, and so on to {mqtt._BACK_OFF_MOST_S:.0f} s" in PAGE
    assert f"An attempt ends after {mqtt._CONNECT_S:.0f} s" in PAGE


def test_the_configuration_loads() -> None:
    text = re.search(r"```toml\n(.+?)```", PAGE, re.DOTALL)
    assert text
    config = msgspec.convert({"name": "d", "bundle": "b", **tomllib.loads(text[1])}, DeviceConfig)
    assert config.broker.keep_alive_s == 900
