"""The processes and the site of the system tests, for devices that meet a real coordinator."""

from __future__ import annotations

import sys
from pathlib import Path

SYSTEM = Path(__file__).resolve().parents[1] / "system"
if str(SYSTEM) not in sys.path:
    sys.path.insert(0, str(SYSTEM))
