"""What a device has spent in all its lives: bytes and joules, and the bytes of today."""

from __future__ import annotations

import msgspec

from laconic.edge_sdk.policy import Limits, over_budget
from laconic.edge_sdk.records import Diary
from laconic.edge_sdk.sensors import Sensors
from laconic.protocol.messages import Telemetry

_SECONDS_PER_DAY = 86_400
_CONTROL_BYTES = 1_500
"""What a round costs besides model and update, roughly: for judging a budget before anything is spent."""


class Accounts:
    """Adds what this life's sensors tell to what earlier lives have written down."""

    def __init__(self, sensors: Sensors, born: Diary) -> None:
        """`born`: the diary that this life began with."""
        self._sensors, self._born = sensors, born

    def enter(self, diary: Diary, now: float) -> Diary:
        """The diary with the totals of now, and with today's beginning."""
        r, born = self._sensors.read(now), self._born
        bytes_up, bytes_down = born.bytes_up + r.bytes_up, born.bytes_down + r.bytes_down
        day = int(now // _SECONDS_PER_DAY)
        start = diary.day_start_bytes if day == diary.day else bytes_up + bytes_down
        return msgspec.structs.replace(
            diary,
            bytes_up=bytes_up,
            bytes_down=bytes_down,
            joules_compute=born.joules_compute + r.joules_compute,
            joules_radio=born.joules_radio + r.joules_radio,
            day=day,
            day_start_bytes=start,
        )

    def breaks_limit(self, diary: Diary, limits: Limits, more_bytes: int, now: float) -> bool:
        """Whether `more_bytes` would break the day's limit."""
        entered = self.enter(diary, now)
        used = entered.bytes_up + entered.bytes_down - entered.day_start_bytes
        return over_budget(limits, used_bytes=used, more_bytes=more_bytes + _CONTROL_BYTES)

    def telemetry(self, diary: Diary, now: float) -> Telemetry:
        """The totals as the coordinator is told them."""
        readings, entered = self._sensors.read(now), self.enter(diary, now)
        return Telemetry(
            charge=readings.charge,
            charging=readings.charging,
            metered=readings.metered,
            bytes_up=entered.bytes_up,
            bytes_down=entered.bytes_down,
            joules_compute=entered.joules_compute,
            joules_radio=entered.joules_radio,
            measured=readings.measured,
        )
