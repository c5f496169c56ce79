"""Lets training give way to whatever else a device does."""

from __future__ import annotations

import os
import sys
import threading

NICENESS = 10
"""A tenth of a busy core. A thread that got less would hold up the rest of its program: whenever it is
suspended while it has the interpreter's lock, all wait for its next turn. With two busy programs on two cores
the longest wait was 0.2 s at 10, 0.7 s at 19, 2.9 s as SCHED_IDLE, and 0.1 s without any."""


def lower_priority() -> bool:
    """Make the calling thread `NICENESS` nice, if it is not nicer already, and with it the threads that it
    starts, such as those of the sessions that it opens; whether that is so then.

    For the initializer of an executor that trains: there is no way back without privileges. On Linux, where
    niceness belongs to a thread (setpriority(2), section Notes); elsewhere nothing is done, as it belongs to
    the whole process.
    """
    if sys.platform != "linux":
        return False
    thread = threading.get_native_id()
    try:
        os.setpriority(os.PRIO_PROCESS, thread, max(NICENESS, os.getpriority(os.PRIO_PROCESS, thread)))
    except OSError:
        # A sandbox that forbids it: training is not less right for being less polite.
        return False
    return True
