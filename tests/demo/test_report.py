"""Laws of the report: it needs nothing but itself, shows everybody, believes nobody, and never changes."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import numpy as np
import pytest

from laconic.demo import figures
from laconic.demo.report import save_picture, write_report
from laconic.demo.results import Bytes, DemoResult, DeviceResult, FleetResult, RoundPoint

VOID = {"meta", "link", "br", "hr", "img", "input"}
TITLES = ["Accuracy by round", "Accuracy by megabyte on the wire", "Bytes by device", "Joules by device"]
HOSTILE = '<script>alert(1)</script>&"$x^2$"\x00\x1b\ud800\u202e'


def made_up(devices: int = 10, rounds: int = 30, *, seed: int = 0) -> DemoResult:
    """A result that nothing measured: its numbers are invented, only their shape is plausible."""
    rng = np.random.default_rng(seed)
    steps = np.arange(rounds + 1)
    noise = rng.normal(0, 0.008, (4, rounds + 1)) * (steps > 0)

    def curve(top: float, pace: float, i: int) -> list[float]:
        clean = 0.1 + (top - 0.1) * (1 - np.exp(-steps / pace))
        return [float(a) for a in np.clip(clean + noise[i] * np.exp(-steps / 20), 0, 1)]

    def fleet(name: str, accuracies: list[float], up: int, down: int, seconds: float) -> FleetResult:
        parts = rng.dirichlet(np.full(devices, 30.0), 2)
        own = [
            DeviceResult(
                name=f"device-{i:02d}",
                samples=int(rng.integers(110, 160)),
                main_class=i % 10,
                committed=rounds - (quiet := int(rng.integers(0, rounds // 2 + 1)) if up < 10**6 else 0),
                silent=quiet,
                bytes_up=int(up * parts[0, i]),
                bytes_down=int(down * parts[1, i]),
                joules_compute=float(rng.normal(11, 0.6)) * rounds / 30,
                joules_radio=(up * parts[0, i] * 3e-6 + down * parts[1, i] * 1.5e-6 + 1.2),
                charge_begin=float(rng.uniform(0.4, 1.0)),
                charge_end=0.39,
            )
            for i in range(devices)
        ]
        share = [(s / rounds) ** 0.9 for s in steps]
        points = [
            RoundPoint(
                round=int(s),
                accuracy=accuracies[s],
                loss=float(-np.log(accuracies[s])),
                updates=devices if s else 0,
                silent=0,
                bytes_up=int(up * share[s]),
                bytes_down=int(down * share[s]),
                seconds=seconds * s / rounds,
            )
            for s in steps
        ]
        up, down = sum(d.bytes_up for d in own), sum(d.bytes_down for d in own)
        return FleetResult(name, points, own, Bytes(up, down), Bytes(down, up), seconds)

    laconic = fleet("laconic", curve(0.943, 4.6, 0), 310_000, 890_000, 24.1)
    fedavg = fleet("fedavg", curve(0.946, 4.2, 1), 24_300_000, 24_900_000, 29.6)
    alone, pooled = curve(0.31, 2.0, 2), curve(0.962, 2.6, 3)
    return DemoResult(
        accuracy=laconic.accuracy,
        accuracy_fedavg=fedavg.accuracy,
        accuracy_alone=alone[-1],
        accuracy_pooled=pooled[-1],
        bytes=laconic.bytes,
        bytes_fedavg=fedavg.bytes,
        ratio=fedavg.bytes.total / laconic.bytes.total,
        joules=laconic.joules,
        joules_fedavg=fedavg.joules,
        seconds=68.4,
        rounds=rounds,
        devices=devices,
        seed=seed,
        parameters=18_410,
        held_out=360,
        broker="mosquitto 0.0 (made up)",
        settings={
            "gate": {"kind": "relative", "threshold": 0.02},
            "codec": {"stages": ["top-k", "4 bit", "entropy"], "error_feedback": True},
            "power": {"board": "rpi_4b", "radio": "wifi_2012", "battery_wh": None},
        },
        laconic=laconic,
        fedavg=fedavg,
        alone=alone,
        pooled=pooled,
        report="report.html",
        machine="made-up machine, 2 cores",
        version="0.0.0+made.up",
    )


class Reader(HTMLParser):
    """Parses a page, and refuses one whose elements do not close where they should."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)


def written(result: DemoResult, folder: Path) -> str:
    write_report(result, folder / "new" / "report.html")
    return (folder / "new" / "report.html").read_text(encoding="utf-8")


def renamed(result: DemoResult, name: str) -> DemoResult:
    """The first device of both runs gets another name."""

    def fleet(old: FleetResult) -> FleetResult:
        first = msgspec.structs.replace(old.devices[0], name=name)
        return msgspec.structs.replace(old, devices=[first, *old.devices[1:]])

    return msgspec.structs.replace(result, laconic=fleet(result.laconic), fedavg=fleet(result.fedavg))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return written(made_up(), tmp_path_factory.mktemp("report"))


def test_the_page_loads_nothing(page: str) -> None:
    reader = Reader(page)
    loading = [v for n, v in reader.attributes if n in ("src", "href", "action", "data", "srcset", "poster")]
    assert all(v.startswith("#") or v == "data:," for v in loading)
    assert not re.search(r"@import|url\((?!#)|https?:", page)
    assert reader.tags["script"] == 0


def test_the_page_is_well_formed_and_its_ids_are_unique_and_known(page: str) -> None:
    ids = Counter(v for n, v in Reader(page).attributes if n == "id")
    assert set(ids.values()) <= {1}
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', page)) <= set(ids)


def test_the_page_shows_every_figure_and_every_device(page: str) -> None:
    result, reader = made_up(), Reader(page)
    for words in (*TITLES, "Devices", "Settings", "How this was measured", "modelled"):
        assert words in (w.strip() for w in reader.words)
    assert reader.tags["figure"] == len(TITLES)
    for device in result.laconic.devices:
        # In the table, and in two figures, each in two widths.
        assert reader.words.count(device.name) == 5


@pytest.mark.parametrize(
    ("gate", "words"),
    [
        ({"gate_target_rate": 0.25}, "The gate's target was to speak in 25 % of the rounds."),
        ({"gate": {"bytes_per_day": 50_000.0}}, "The gate's target was to send 50 kB a day."),
        ({"gate_threshold": 0.8, "gate_mode": "running"}, "what was below 0.8 times its usual norm."),
        ({"gate_threshold": 0.0, "gate_mode": "running"}, ""),
    ],
)
def test_the_rate_stands_beside_what_the_gate_aimed_at(
    gate: dict[str, object], words: str, tmp_path: Path
) -> None:
    result = msgspec.structs.replace(made_up(3, 3), settings=gate)
    text = Reader(written(result, tmp_path)).text.replace("\xa0", " ")
    assert words in text
    assert ("The gate" in text) == bool(words)
    for device in result.laconic.devices:
        share = device.committed / (device.committed + device.silent)
        assert f"{100 * share:.0f} %" in text


def test_figures_say_in_words_what_they_show(page: str) -> None:
    labels = [v for n, v in Reader(page).attributes if n == "aria-label" and "chart" in v]
    assert len(labels) == 2 * len(TITLES)
    assert all(re.search(r"\d", label) for label in labels)


def test_the_headline_is_the_result(page: str) -> None:
    result = made_up()
    heading = re.sub(r"<[^>]+>", "", page[page.index("<h1>") : page.index("</h1>")]).replace("\xa0", " ")
    assert heading == (
        f"{100 * result.accuracy:.1f} % accuracy with {result.ratio:.0f}× fewer bytes"
        f" than uncompressed FedAvg ({100 * result.accuracy_fedavg:.1f} %)"
    )


@pytest.mark.parametrize(
    ("ratio", "words"),
    [
        (4.13, "4.1× fewer bytes</em> than"),
        (1.0, "as many bytes</em> as"),
        (0.5, "2.0× more bytes</em> than"),
    ],
)
def test_the_headline_does_not_flatter(ratio: float, words: str, tmp_path: Path) -> None:
    text = written(msgspec.structs.replace(made_up(2, 2), ratio=ratio), tmp_path)
    assert f"<em>{words} uncompressed FedAvg" in text


def test_what_comes_from_data_is_only_text(tmp_path: Path) -> None:
    result = msgspec.structs.replace(
        renamed(made_up(3, 3), HOSTILE),
        machine=HOSTILE,
        broker=HOSTILE,
        version=HOSTILE,
        settings={HOSTILE: HOSTILE, "board": HOSTILE},
    )
    text = written(result, tmp_path)
    assert Reader(text).tags["script"] == 0
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&amp;" in text
    assert not set(text) & {"\x00", "\x1b", "\u202e"}


@pytest.mark.parametrize(("devices", "rounds"), [(1, 1), (1, 30), (10, 1), (64, 2)])
def test_fleets_of_every_size(devices: int, rounds: int, tmp_path: Path) -> None:
    reader = Reader(written(made_up(devices, rounds), tmp_path))
    assert {d.name for d in made_up(devices, rounds).laconic.devices} <= set(reader.words)
    assert reader.tags["figure"] == len(TITLES)


def test_a_fleet_too_large_for_a_figure_is_whole_in_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "MOST_ROWS", 3)
    reader = Reader(written(made_up(5, 2), tmp_path))
    assert [reader.words.count(f"device-{i:02d}") for i in range(5)] == [5, 5, 5, 1, 1]
    assert "The first 3 of 5 devices" in reader.text


def test_a_fleet_without_energy_or_bytes(tmp_path: Path) -> None:
    result = made_up(4, 2)

    def empty(fleet: FleetResult) -> FleetResult:
        nothing = {"bytes_up": 0, "bytes_down": 0}
        return msgspec.structs.replace(
            fleet,
            devices=[
                msgspec.structs.replace(d, joules_compute=0.0, joules_radio=0.0, **nothing)
                for d in fleet.devices
            ],
            points=[msgspec.structs.replace(p, **nothing) for p in fleet.points],
            bytes=Bytes(0, 0),
        )

    result = msgspec.structs.replace(
        result,
        laconic=empty(result.laconic),
        fedavg=empty(result.fedavg),
        bytes=Bytes(0, 0),
        bytes_fedavg=Bytes(0, 0),
        ratio=0.0,
        joules=0.0,
        joules_fedavg=0.0,
    )
    text = Reader(written(result, tmp_path)).text
    assert "not modelled" in text
    assert "No joules were modelled" in text
    save_picture(result, tmp_path / "picture.png")


def test_a_device_without_its_like_in_the_baseline(tmp_path: Path) -> None:
    result = made_up(3, 3)
    fedavg = msgspec.structs.replace(result.fedavg, devices=result.fedavg.devices[1:])
    assert "device-00" in written(msgspec.structs.replace(result, fedavg=fedavg), tmp_path)


def test_the_same_result_gives_the_same_bytes(page: str, tmp_path: Path) -> None:
    assert written(made_up(), tmp_path) == page
    for name in ("a.png", "b.png"):
        save_picture(made_up(), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_a_readers_own_matplotlib_settings_change_nothing(page: str, tmp_path: Path) -> None:
    import matplotlib

    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "path", "axes.grid": False}):
        assert written(made_up(), tmp_path) == page
        assert matplotlib.rcParams["font.size"] == 30
