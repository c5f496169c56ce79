"""Memory that is freed in a simulation is there for what comes next."""

from __future__ import annotations

import json
import platform
import subprocess
import sys

import pytest

# In a process of its own: how many heaps there are depends on the threads that there have been.
PROGRAM = """
import json, resource
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from laconic.device_sim.heap import kept_memory

def filled():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    # Smaller than what numpy asks huge pages for.
    buffers = [np.ones(2**20, np.uint8) for _ in range(8)]
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize() / 2**23

with kept_memory():
    found = [filled(), filled()]
    with ThreadPoolExecutor(1) as pool:
        found.append(pool.submit(filled).result())
print(json.dumps([*found, filled()]))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not glibc")
def test_what_one_thread_has_freed_another_is_given_without_new_pages() -> None:
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True, timeout=60)
    first, again, elsewhere, after = json.loads(ran.stdout)
    assert first > 0.5
    assert again < 0.1
    assert elsewhere < 0.1
    assert after > 0.5, "freed memory was not given back"
