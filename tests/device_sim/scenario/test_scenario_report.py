"""A run's page: whole, alone, the same every time, and right about what it shows."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest
from tiny_scenario import tiny

from laconic.cli import main
from laconic.device_sim import Result, run
from laconic.device_sim.scenario import figures, report, storing
from laconic.device_sim.scenario.results import StepRow


@functools.cache
def played() -> Result:
    return run(tiny(end__rounds=2))


def whole(html: str) -> None:
    """The page loads nothing, every id is there once, and every figure is well formed."""
    assert not re.findall(r'(?:src|href)="(?!#|data:|[\w=.,+-]+/report\.html")', html)
    assert "://" not in re.sub(r'xmlns(:\w+)?="[^"]+"', "", html)
    ids = re.findall(r' id="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    for svg in re.findall(r"<svg.+?</svg>", html, re.DOTALL):
        ElementTree.fromstring(svg.replace("xlink:", ""))


def test_a_page_is_whole_and_always_the_same() -> None:
    html = report.run_page(played())
    whole(html)
    assert html == report.run_page(played())
    for title in ("Accuracy by work", "Batteries", "Where energy went", "Who took part", "The last round"):
        assert f"<h2>{title}</h2>" in html
    assert 'scope="row">coordinator.gate.threshold</th><td>0.3' in html
    assert "coordinator.history" not in html


def test_a_hostile_name_stays_text() -> None:
    bad = "<script>alert(1)</script>"
    result = played()
    settings = {**result.settings, "name": bad}
    html = report.run_page(msgspec.structs.replace(result, settings=settings, digest=bad))
    assert bad not in html


def test_a_fleet_without_batteries_rounds_or_steps_has_a_page() -> None:
    result = run(tiny(end__rounds=1, devices__phone__count=0))
    assert "Every device is on mains." in report.run_page(result)
    whole(report.run_page(msgspec.structs.replace(result, rounds=[], classes=[], steps=[])))


def test_a_round_is_stretches_of_time() -> None:
    steps = [(1, "a", "training"), (3, "a", "sending"), (4, "a", "committed"), (2, "b", "skipped")]
    rows = [StepRow(float(t), who, what) for t, who, what in steps]
    spans = figures.round_spans(msgspec.structs.replace(played(), steps=rows))
    assert spans["a"] == ([("fetch", 0.0, 1.0), ("train", 1.0, 3.0), ("send", 3.0, 4.0)], (4.0, ""))
    assert spans["b"] == ([], (2.0, "o"))


def test_the_command_writes_pages_and_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    storing.write(played(), tmp_path / "seed=1")
    index = {"runs": [{"label": "seed=1", "digest": ""}]}
    (tmp_path / "sweep.json").write_bytes(msgspec.json.encode(index))
    assert main(["sim", "report", str(tmp_path)]) == 0
    assert str(tmp_path / "report.html") in capsys.readouterr().out
    for picture in ("accuracy.png", "seed=1/accuracy.png", "seed=1/energy.png"):
        assert (tmp_path / picture).read_bytes()[:4] == b"\x89PNG"
    html = (tmp_path / "report.html").read_text()
    whole(html)
    assert 'href="seed=1/report.html"' in html
    assert (tmp_path / "seed=1" / "report.html").exists()
