"""What a device says of itself to the whole fleet, retained: that it is here, or that it is gone."""

from __future__ import annotations

from laconic.edge_sdk.sensors import Readings
from laconic.edge_sdk.settings import DeviceSettings
from laconic.node import Effect, Send, Will
from laconic.protocol import topics
from laconic.protocol.messages import State, encode


def birth(settings: DeviceSettings, samples: int, readings: Readings) -> Effect:
    """The device is here, with so many samples to train on."""
    state = State(
        online=True,
        cohort=settings.cohort,
        samples=samples,
        charge=readings.charge,
        charging=readings.charging,
        metered=readings.metered,
        software=settings.software,
        zone=settings.zone,
    )
    return Send(topics.state(settings.name), encode(state), retain=True)


def will(settings: DeviceSettings) -> Will:
    """What the broker is to say when the connection breaks."""
    return Will(topics.state(settings.name), encode(State(online=False, cohort=settings.cohort)))
