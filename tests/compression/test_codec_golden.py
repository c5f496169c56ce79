"""Frames of every release decode for ever, bit for bit."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from spec_decoder import Frame, Number, frequencies
from spec_grid import gap_prior, level_prior

from laconic import errors
from laconic.compression import SectionInfo, decode, inspect
from laconic.compression.coders import CODERS
from laconic.compression.positions import POSITIONS
from laconic.compression.quantisers import QUANTISERS
from laconic.compression.transforms import TRANSFORMS
from laconic.schema import Schema, TensorSpec

FOLDER = Path(__file__).parent / "golden"
PAGE = (Path(__file__).parents[2] / "docs" / "spec" / "update-frame.md").read_text()
CODED = ("codes", "signs", "levels", "positions", "planes")
"""Parameters that are names of coders."""

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


def blocks_of_the_page() -> list[bytes]:
    """The frames under "Examples"."""
    text = PAGE.split("## Examples")[1].split("```")[1::2]
    return [bytes.fromhex("".join(re.split(r"\s{2,}", line)[0] for line in t.splitlines())) for t in text]


EXAMPLES = [
    (Schema((TensorSpec("w", (4,)),)), [0, 0, -1.5, 0]),
    (
        Schema((TensorSpec("b", (1,)), TensorSpec("w", (4, 6)), TensorSpec("c", (2,)))),
        [0.5, *(0, 0, 1, 0, 0, 0), *(0, -2, 0, 0, 0, 0), *[0] * 6, *(0, 0, 1, 0, 0, 0), 1, -1],
    ),
]


def test_the_examples_of_the_specification():
    frames = blocks_of_the_page()
    assert len(frames) == len(EXAMPLES)
    for frame, (schema, values) in zip(frames, EXAMPLES, strict=True):
        assert decode(frame, schema, limit_bytes=4 * schema.size).tolist() == values
        assert Frame(frame).vector([t.size for t in schema.tensors]) == values
        assert inspect(frame).version == 2
        for word in frame[:3], frame[5:13], frame[-4:]:
            assert word.hex(" ").upper() in PAGE


def test_the_steps_of_the_worked_example_are_those_of_the_body():
    number = Number(bytes.fromhex("3e54"))
    assert f"`code` = 0x{number.code:X}." in PAGE
    text = re.sub(r"\s+", " ", PAGE.split("## Examples")[1])
    priors = gap_prior(6)
    assert ", ".join(map(str, priors[4])) in text
    background = sum(map(sum, priors)) // 12 // 128
    assert f"`background` {background}." in text
    levels = level_prior(2, 3)
    for symbols, prior, weight in (
        ([0, 1, 3], priors[4], background),
        ([0, 1, 0], levels, sum(levels) // 128),
    ):
        f = frequencies([0] * len(prior), prior, weight)
        assert ", ".join(map(str, f)) in text
        assert [number.symbol(f) for _ in symbols] == symbols
        assert f"0x{number.range:X}" in PAGE
        assert f"0x{number.code:X}" in PAGE
    number.end()


def test_the_page_lists_every_number_and_no_other():
    table = PAGE.split("## Numbers")[1].split("## Examples")[0]
    rows = {
        int(n, 16): (k, s) for n, k, s in re.findall(r"^\| `(\w\w)` \| ([\w ]+) \| (.+) \|$", table, re.M)
    }
    assert rows == {
        s.number: (r.kind, s.name) for r in (TRANSFORMS, QUANTISERS, POSITIONS, CODERS) for s in r
    }


def sections() -> list[SectionInfo]:
    """Of all golden frames."""
    frames = [inspect((FOLDER / f"{name}.frame").read_bytes()) for name in NAMES]
    assert {f.version for f in frames} == {1, 2}
    return [section for frame in frames for section in frame.sections]


def test_golden_frames_use_every_stage():
    used = {name for s in sections() for name in s.stages}
    assert used == {s.name for registry in (TRANSFORMS, QUANTISERS, POSITIONS) for s in registry}
    words = [str(v) for s in sections() for k, v in s.params.items() if k in CODED]
    assert {w for word in words for w in word.split(", ") if w} == {c.name for c in CODERS}


def test_golden_frames_use_every_way_of_a_stage():
    every = sections()
    assert any(len(s.tensors) > 1 for s in every)
    grids = [dict(s.params) for s in every if s.stages == ("grid",)]
    assert {min(g["sign_classes"], 2) for g in grids} == {0, 1, 2}
    assert {(g["row_classes"] > 1, g["column_classes"] > 1) for g in grids} >= {(False, False), (True, True)}
    assert {1, 255} <= {g["rungs"] for g in grids}
    assert {1} < {g["rows"] for g in grids}
    assert {s.stages[1] for s in every if s.stages[0] == "low rank"} == {
        *("zero", "sparse", "grid", "multiples"),
    }
    multiples = [dict(s.params) for s in every if s.stages == ("multiples",)]
    assert {min(m["sign_classes"], 2) for m in multiples} == {0, 1, 2}
    assert {(m["row_classes"] > 1, m["column_classes"] > 1) for m in multiples} >= {
        (False, False),
        (True, True),
    }
    assert max(m["tokens"] for m in multiples) == 35
    rotated = [dict(s.params) for s in every if "rotated" in s.stages]
    assert {(r["bits"], r["rounds"]) for r in rotated} == {(b, r) for b in (1, 2, 3, 4) for r in (1, 2)}
    assert {s.params["bits"] for s in every if "uniform" in s.stages} >= {1, 2, 4, 8}


@pytest.mark.parametrize("path", sorted((FOLDER / "refused").glob("*.json")), ids=lambda p: p.stem)
def test_a_refused_golden_frame_is_refused_in_its_way(path):
    text = json.loads(path.read_text())
    schema = Schema(tuple(TensorSpec(n, tuple(shape)) for n, shape in text["schema"]))
    with pytest.raises(getattr(errors, text["error"])):
        decode(bytes.fromhex(text["frame_hex"]), schema, limit_bytes=4 * schema.size)
