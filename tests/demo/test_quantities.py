"""Numbers as people read them, by example."""

from __future__ import annotations

import pytest

from laconic.quantities import (
    format_bytes,
    format_charge,
    format_count,
    format_hours,
    format_joules,
    format_seconds,
    format_times,
    legible,
    plural,
)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (format_bytes(0), "0 B"),
        (format_bytes(640), "640 B"),
        (format_bytes(999), "999 B"),
        (format_bytes(1000), "1 kB"),
        (format_bytes(1234), "1.2 kB"),
        (format_bytes(9_960), "10 kB"),
        (format_bytes(999_600), "1.0 MB"),
        (format_bytes(48_800_000), "49 MB"),
        (format_joules(0), "0 J"),
        (format_joules(0.08), "80 mJ"),
        (format_joules(12.4), "12 J"),
        (format_joules(3400), "3.4 kJ"),
        (format_hours(0.00651), "23 s"),
        (format_hours(0.034), "2 min"),
        (format_hours(1.99), "119 min"),
        (format_hours(13.24), "13.2 h"),
        (format_hours(71.96), "3.0 d"),
        (format_seconds(7.24), "7.2 s"),
        (format_seconds(68.4), "68 s"),
        (format_seconds(125), "2 min 5 s"),
        (format_times(4.13), "4.1×"),
        (format_times(41.3), "41×"),
        (format_count(1382), "1382"),
        (format_count(18_410), "18 410"),
        (format_charge(1.0, 0.97), "100 % → 97 %"),
        (format_charge(0.8, 0.7996), "80.00 % → 79.96 %"),
        (format_charge(0.8, 0.8), "80 % → 80 %"),
        (plural(1, "round"), "1 round"),
        (plural(2, "round"), "2 rounds"),
        (legible("a\x00b\u202ec é"), "a�b�c é"),
    ],
)
def test_as_people_read_it(written: str, expected: str) -> None:
    assert written.replace("\xa0", " ") == expected
