"""What a device has spent in all its lives, and in the present day and month."""

from __future__ import annotations

import msgspec

from laconic.budget.spending import Totals
from laconic.edge_sdk.records import Diary
from laconic.edge_sdk.sensors import Sensors
from laconic.protocol.messages import Telemetry


class Accounts:
    """Adds what this life's sensors tell to what earlier lives have written down."""

    def __init__(self, sensors: Sensors, born: Diary, zone: str = "") -> None:
        """`born`: the diary that this life began with; `zone`: where the device's days begin."""
        self._sensors, self._born, self._zone = sensors, born, zone
        self._metered = False

    def enter(self, diary: Diary, now: float) -> Diary:
        """The diary with the totals of now, and what is new in them counted to today.

        What came between two readings counts as metered if either of them says so, and to the day of the
        later: never too little.
        """
        r, born = self._sensors.read(now), self._born
        more = Totals(
            up=born.bytes_up + r.bytes_up - diary.bytes_up,
            down=born.bytes_down + r.bytes_down - diary.bytes_down,
            compute=born.joules_compute + r.joules_compute - diary.joules_compute,
            radio=born.joules_radio + r.joules_radio - diary.joules_radio,
        )
        if r.metered or self._metered:
            more = Totals(more.up, more.down, more.up, more.down, more.compute, more.radio)
        self._metered = r.metered
        return msgspec.structs.replace(
            diary,
            bytes_up=diary.bytes_up + more.up,
            bytes_down=diary.bytes_down + more.down,
            metered_up=diary.metered_up + more.metered_up,
            metered_down=diary.metered_down + more.metered_down,
            joules_compute=born.joules_compute + r.joules_compute,
            joules_radio=born.joules_radio + r.joules_radio,
            since=diary.since or now,
            spent=diary.spent.add(more, now, self._zone),
        )

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
            metered_up=entered.metered_up,
            metered_down=entered.metered_down,
            since=entered.since,
        )


def totals_of(diary: Diary) -> Totals:
    """What the diary says was spent in the life of its disk."""
    return Totals(
        diary.bytes_up,
        diary.bytes_down,
        diary.metered_up,
        diary.metered_down,
        diary.joules_compute,
        diary.joules_radio,
        diary.since,
    )
