"""Memory that is freed in a simulation is there for what comes next."""

from __future__ import annotations

import platform
import resource
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from laconic.device_sim.heap import kept_memory

SIZE, BUFFERS = 2**20, 8


def filled() -> int:
    """How many pages the system hands out for some buffers, which are then freed."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    # Smaller than what numpy asks huge pages for.
    buffers = [np.ones(SIZE, np.uint8) for _ in range(BUFFERS)]
    assert len(buffers) == BUFFERS
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not glibc")
def test_what_one_thread_has_freed_another_is_given_without_new_pages() -> None:
    pages = SIZE * BUFFERS // resource.getpagesize()
    with kept_memory():
        filled()
        assert filled() < pages / 10
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(filled).result() < pages / 10
    assert filled() > pages / 2, "freed memory was not given back"
