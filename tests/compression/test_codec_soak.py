"""A million mutated frames: typed errors only, bounded memory."""

from __future__ import annotations

import resource

import numpy as np
import pytest
from codec_cases import LIMIT_BYTES, resealed
from test_codec_hostile import PREFIX, golden, mutated

from laconic.compression import decode, inspect
from laconic.errors import WireError

PARTS = 20
TRIES = 1_000_000 // PARTS
GROWTH_KIB = 32 << 10
"""Of the process, over all tries: a leak of 40 bytes a frame would show."""


@pytest.mark.soak
@pytest.mark.parametrize("part", range(PARTS))
def test_a_million_mutated_frames_raise_wire_errors_only(part):
    rng, cases = np.random.default_rng(1000 + part), golden()
    refused, before = 0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for i in range(TRIES):
        frame, schema = cases[i % len(cases)]
        cut = PREFIX if i % 8 else 0
        bad = resealed(frame[:cut] + mutated(frame[cut:-4], rng) + frame[-4:])
        try:
            out = decode(bad, schema, limit_bytes=LIMIT_BYTES)
        except WireError:
            refused += 1
        else:
            assert np.isfinite(out).all()
        try:
            inspect(bad)
        except WireError:
            refused += 1
    assert refused > TRIES * 0.5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < GROWTH_KIB
