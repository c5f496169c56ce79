"""What the production engine reads of a virtual host: the world's battery, radio and meters."""

from __future__ import annotations

from laconic.device_sim.energy import Part
from laconic.device_sim.host import Host
from laconic.device_sim.signals import Constant, Signal
from laconic.edge_sdk.sensors import Readings


class SimSensors:
    """`laconic.edge_sdk.sensors.Sensors` of a host's process, from the moment at which it is made."""

    __slots__ = ("_compute", "_down", "_host", "_metered", "_radio", "_up")

    def __init__(self, host: Host, *, metered: Signal | None = None) -> None:
        """`metered`: above 0 while the network is paid for by the byte; None: never."""
        self._host, self._metered = host, metered or Constant(0.0)
        self._up, self._down = host.bytes_up, host.bytes_down
        self._compute = host.body.ledger[Part.COMPUTE] if host.body else 0.0
        self._radio = host.body.ledger.radio if host.body else 0.0

    def read(self, now: float) -> Readings:
        host, body = self._host, self._host.body
        if body is not None:
            body.advance(now)
        return Readings(
            charge=body.charge if body else None,
            charging=body.charging if body else True,
            metered=self._metered.at(now)[0] > 0,
            bytes_up=host.bytes_up - self._up,
            bytes_down=host.bytes_down - self._down,
            joules_compute=body.ledger[Part.COMPUTE] - self._compute if body else 0.0,
            joules_radio=body.ledger.radio - self._radio if body else 0.0,
        )

    def worked(self, seconds: float) -> None:
        """Nothing to count: the world has charged the host for the job."""
