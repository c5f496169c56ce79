"""What the coordinator knows of each device: presence, battery, bytes, joules, contributions, bookings."""

from laconic.coordinator.ledger.bookings import Answer
from laconic.coordinator.ledger.ledger import Ledger, online
from laconic.coordinator.ledger.records import Booking, DeviceRecord

__all__ = ["Answer", "Booking", "DeviceRecord", "Ledger", "online"]
