"""Joules: what one packet costs against what was published, and conservation in scenarios of all kinds."""

from __future__ import annotations

from typing import Any

from _result import Bar, at_most

from _sim.chatter import Chatter, Listener
from laconic.device_sim.body import Body, build, cell
from laconic.device_sim.computing import Failures, Speed
from laconic.device_sim.energy import Part
from laconic.device_sim.medium import Medium
from laconic.device_sim.radio import Radio, compiled
from laconic.device_sim.signals import DAY_S, HOUR_S, Constant, Daily, Nightly, Sessions, Signal, Solar
from laconic.device_sim.wire import Tls, Wire
from laconic.device_sim.world import Connection, World
from laconic.profiles import board, radio

PACKET_BYTES = 1500
HOSTS = 40
DAYS = 3.0
_EVENING = (0.1,) * 7 + (0.6,) * 10 + (1.6,) * 6 + (0.1,)


def measure() -> dict[str, Any]:
    """Published one-packet figures, and the worst imbalance of any host, by scenario."""
    return {
        "one_packet_j": {name: one_packet(name) for name in ("lte_2012", "umts_2012", "wifi_2012")},
        "imbalance": {name: worst(name) for name in SCENARIOS},
        "hosts": HOSTS,
        "days": DAYS,
    }


def bars(found: dict[str, Any]) -> list[Bar]:
    """Within 2 % of what was published; within 1e-9 of what went in."""
    packets = [
        at_most(
            f"energy, one packet over {name}: off the {published} J published by",
            abs(joules / published - 1),
            0.02,
        )
        for name, (joules, published) in found["one_packet_j"].items()
    ]
    return packets + [
        at_most(f"energy, {name}: not accounted for, relative, the worst host", off, 1e-9)
        for name, off in found["imbalance"].items()
    ]


def one_packet(name: str) -> tuple[float, float]:
    """Joules of a radio for one packet down, promotion and tail included; and those published."""
    power, published = compiled(radio(name)), radio(name).one_packet_j
    assert published
    r = Radio(power)
    begin = r.ready(10.0)
    r.transfer(begin, begin + PACKET_BYTES / power.down_bytes_per_s, down_bytes=PACKET_BYTES)
    return sum(r.joules(0.0, 100.0)[1:]), published.value


def worst(scenario: str) -> float:
    """The largest imbalance of a host in a scenario of production-like traffic."""
    board_name, radio_name, charger, wire, extra = SCENARIOS[scenario]
    profile = board(board_name)
    mah = profile.battery_mah.value if profile.battery_mah else 3000.0
    kind, power = build(profile, radio(radio_name), battery=cell(mah)), compiled(radio(radio_name))
    medium = Medium(power.up_bytes_per_s, power.down_bytes_per_s) if extra.get("shared") else None
    world = World(seed=11, tracing=False)
    world.add("ear", Listener)
    for i in range(HOSTS):
        world.add(
            f"d{i}",
            lambda i=i: Chatter(f"d{i}", 1000.0 + 7 * i, 20_000),
            connection=Connection(
                0.05,
                power.up_bytes_per_s,
                power.down_bytes_per_s,
                jitter_s=0.1,
                loss=extra.get("loss", 0.0),
                wire=wire,
                medium=medium,
            ),
            speed=Speed(30.0),
            body=Body(kind, charge=0.2 + 0.8 * i / HOSTS, charger=_moved(charger, i), user=Daily(_EVENING)),
            presence=Sessions(i, 0.4) if extra.get("sessions") else None,
            failures=Failures(drop_out=0.08, crash=0.02) if extra.get("fails") else None,
        )
    world.run(DAYS * DAY_S)
    world.settle()
    bodies = [b for i in range(HOSTS) if (b := world.host(f"d{i}").body)]
    assert all(b.ledger[Part.ACTIVE] > 0 for b in bodies)
    return max(b.imbalance() for b in bodies)


def _moved(charger: Signal, i: int) -> Signal:
    match charger:
        case Nightly(value):
            return Nightly(value, i)
        case Solar(peak):
            return Solar(peak, i)
    return charger


SCENARIOS: dict[str, tuple[str, str, Signal, Wire | None, dict[str, Any]]] = {
    "phones on Wi-Fi, charged at night": (
        "phone_mid",
        "wifi_phone_2020",
        Nightly(10.0, 0),
        Wire(Tls.MUTUAL),
        {"sessions": True, "fails": True},
    ),
    "phones on LTE that run empty": (
        "phone_low",
        "lte_2012",
        Nightly(3.0, 0, 0.0, 2 * HOUR_S),
        Wire(),
        {"fails": True},
    ),
    "boards on a panel, a bad 3G link": (
        "rpi_zero2w",
        "umts_2012",
        Solar(6.0, 0),
        Wire(Tls.RESUMED, 300.0),
        {"loss": 0.05},
    ),
    "boards that share a cell": ("rpi_4b", "lte_2021", Constant(5.0), Wire(Tls.SERVER), {"shared": True}),
}
