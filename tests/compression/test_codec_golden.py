"""Frames of every release decode for ever, bit for bit."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from spec_decoder import Frame

from laconic.compression import decode, inspect
from laconic.compression.positions import POSITIONS
from laconic.compression.quantisers import QUANTISERS
from laconic.compression.transforms import TRANSFORMS
from laconic.schema import Schema, TensorSpec

FOLDER = Path(__file__).parent / "golden"
NAMES = sorted(p.stem for p in FOLDER.glob("*.frame"))


@pytest.mark.parametrize("name", NAMES)
def test_golden_frame_decodes_to_the_same_bits(name):
    text = json.loads((FOLDER / f"{name}.json").read_text())
    schema = Schema(tuple(TensorSpec(n, tuple(shape)) for n, shape in text["schema"]))
    frame = (FOLDER / f"{name}.frame").read_bytes()
    assert schema.digest.hex() == text["schema_digest_hex"]
    decoded = decode(frame, schema, limit_bytes=4 * schema.size)
    assert decoded.astype("<f4").tobytes().hex() == text["expected_float32_little_endian_hex"]
    assert [list(t.stages) for t in inspect(frame).sections] == text["stages"]
    assert np.isfinite(decoded).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_decoder_written_from_the_specification_agrees(name):
    text = json.loads((FOLDER / f"{name}.json").read_text())
    sizes = [TensorSpec(n, tuple(shape)).size for n, shape in text["schema"]]
    values = Frame((FOLDER / f"{name}.frame").read_bytes()).vector(sizes)
    assert np.array(values, "<f4").tobytes().hex() == text["expected_float32_little_endian_hex"]


def test_the_example_of_the_specification():
    page = (Path(__file__).parents[2] / "docs" / "spec" / "update-frame.md").read_text()
    lines = page.split("## Example")[1].split("```")[1].splitlines()
    frame = bytes.fromhex("".join(re.split(r"\s{2,}", line)[0] for line in lines))
    decoded = decode(frame, Schema((TensorSpec("w", (4,)),)), limit_bytes=16)
    assert decoded.tolist() == [0, 0, -1.5, 0]


def test_golden_frames_use_every_stage():
    used = set()
    for name in NAMES:
        for tensor in inspect((FOLDER / f"{name}.frame").read_bytes()).sections:
            used |= set(tensor.stages)
    assert used == {s.name for registry in (TRANSFORMS, QUANTISERS, POSITIONS) for s in registry}
