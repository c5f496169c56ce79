"""A run's page: whole, alone, the same every time, and right about what it shows."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from tiny_scenario import tiny

from laconic.cli import main
from laconic.device_sim import Result, run
from laconic.device_sim.report import choosing, costs, curves, figures, labels, learning, timeline
from laconic.device_sim.report.curves import Curve
from laconic.device_sim.report.run_page import run_page
from laconic.device_sim.report.sweep_page import groups, sweep_page
from laconic.device_sim.scenario import storing
from laconic.device_sim.scenario.results import StepRow
from laconic.device_sim.scenario.stepping import MOST_ROUNDS, Steps
from laconic.device_sim.scenario.sweep import Run
from laconic.quantities import format_bytes, format_joules, format_percent


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
    html = run_page(played())
    whole(html)
    assert html == run_page(played())
    for title in (
        "Accuracy by work",
        "Batteries",
        "Where energy went",
        "Who took part",
        "Round 1",
        "Round 2",
    ):
        assert f"<h2>{title}</h2>" in html
    html = html.replace("<wbr>", "")
    assert 'scope="row">coordinator.gate.threshold</th><td>0.3' in html
    assert "coordinator.history" not in html
    assert 'scope="row">devices.phone.battery.mah</th><td>60' in html
    assert 'scope="row">devices.pi.board</th><td>rpi_4b' in html
    for key in ("data.own_class", "devices.pi.cores", "devices.phone.battery.begin_hour.", "model.hidden.0"):
        assert f'scope="row">{key}</th>' not in html


def test_a_hostile_name_stays_text() -> None:
    bad = "<script>alert(1)</script>"
    result = played()
    named = {**result.settings, "name": bad, bad: bad}
    totals = msgspec.structs.replace(result.totals, failures={bad: 2})
    hostile = msgspec.structs.replace(result, settings=named, digest=bad, totals=totals)
    html = run_page(hostile, f"{bad}=1,seed=0")
    assert bad not in html
    assert "Work that came to nothing 2 times: &lt;script&gt;" in html
    assert bad not in sweep_page([Run(f"{bad}={i}", Path(), hostile) for i in range(2)], "report.html")


def test_a_fleet_without_batteries_rounds_or_steps_has_a_page() -> None:
    result = run(tiny(end__rounds=1, devices__phone__count=0))
    html = run_page(result)
    assert "Every device is on mains." in html
    assert "<h2>Batteries</h2>" not in html
    whole(run_page(msgspec.structs.replace(result, rounds=[], classes=[], steps=[])))


def test_a_round_is_stretches_of_time() -> None:
    steps = [(1, "a", "training"), (3, "a", "sending"), (4, "a", "committed"), (2, "b", "skipped")]
    spans = timeline.spans([StepRow(1, float(t), who, what) for t, who, what in steps])
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


@pytest.mark.parametrize("key", ["end.accuracy", "coordinator.schedule.until_accuracy"])
def test_a_page_says_that_a_goal_was_reached_wherever_it_stands(key: str) -> None:
    assert "Ended by its rounds" in run_page(run(tiny(end__rounds=1)))
    result = run(tiny(end__rounds=50).replaced({key: 0.05}))
    assert result.totals.rounds < 50
    assert "Ended by its goal" in run_page(result)


def test_a_run_without_versions_says_so_in_the_place_of_curves() -> None:
    closed = {"start": "22:00", "end": "23:00"}
    result = run(tiny(coordinator__schedule=closed, end__hours=2, baselines__pooled=True))
    assert not result.totals.rounds
    assert not result.totals.committed
    html = run_page(result)
    whole(html)
    assert "No version was made in 2.0\xa0h: no round was opened." in html
    tried = msgspec.structs.replace(result, totals=msgspec.structs.replace(result.totals, opened=3))
    assert "No version was made in 2.0\xa0h: none of 3 rounds made one." in run_page(tried)
    # However many were closed.
    held = msgspec.structs.replace(result.totals, opened=3, rounds=3)
    assert "No version was made" in run_page(msgspec.structs.replace(result, totals=held))
    assert result.baselines[-1].accuracy is not None
    assert f"pooled <b>{format_percent(result.baselines[-1].accuracy)}</b>" in html
    assert "<dd>–</dd><dd>0 updates</dd>" in html
    assert "No update was committed." in html
    for title in ("Accuracy by", "best 1", ">NaN", "1e-1"):
        assert title not in html
    page = sweep_page([Run(f"data.samples={i}", Path(), result) for i in (0, 1)], "report.html")
    whole(page)
    assert "No version was made." in page
    assert "Which settings" not in page
    assert "Accuracy by" not in page


def test_batteries_are_drawn_to_the_end_of_a_run_whatever_versions_it_made() -> None:
    result = played()
    phones = [d for d in result.devices if d.kind == "phone"]
    end = sum(d.battery_end_j / (d.battery_j or 0.0) for d in phones) / len(phones)
    begin = sum(d.battery_start_j / (d.battery_j or 0.0) for d in phones) / len(phones)
    for rows in (result.classes, []):
        axes = Figure().add_subplot()
        figures.batteries(msgspec.structs.replace(result, classes=rows))(axes)
        (line,) = axes.get_lines()
        x, y = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
        assert (x[0], y[0]) == (0.0, pytest.approx(begin))
        assert (x[-1], y[-1]) == (pytest.approx(result.totals.hours), pytest.approx(end))


@functools.cache
def compared(seed: int = 0) -> Result:
    """With everything that a page may have."""
    model = {"built_in": "mlp", "hidden": [6], "local": ["dense2.*"]}
    baselines = {"alone": True, "pooled": True}
    more = {"record__losses": True, "data__own_held_out": 0.25, "end__rounds": 3}
    return run(tiny(model=model, baselines=baselines, coordinator__gate__threshold=0.0, **more), seed=seed)


def test_a_page_shows_baselines_scores_losses_and_the_round_that_is_asked_for() -> None:
    result = compared()
    html = run_page(result, number=2)
    whole(html)
    pooled = result.baselines[-1]
    assert pooled.accuracy is not None
    assert f"pooled <b>{format_percent(pooled.accuracy)}</b>" in html
    for title in ("Scores by device", "Loss within rounds 1 to 3", "Loss by round", "Round 2"):
        assert f"<h2>{title}</h2>" in html
    assert "<h2>Round 1</h2>" not in html
    assert timeline.shown(result) == [1, 2, 3]
    assert timeline.shown(result, 99) == [3]
    better = sum((s.federated_accuracy or 0) > (s.alone_accuracy or 0) for s in result.scores)
    assert f"for {better} of {len(result.scores)}" in html


def test_where_layers_are_devices_own_the_headline_is_a_newcomers_beside_the_mean_of_their_scores() -> None:
    result = compared()
    tiles = run_page(result).partition('<dl class="tiles">')[2].partition("</dl>")[0]
    own = [s.federated_accuracy or 0.0 for s in result.scores]
    assert "<dt>A newcomer&#x27;s accuracy, held-out examples</dt>" in tiles
    assert "<dd>its own layers are untrained</dd>" in tiles
    assert f"mean of {len(own)} devices on their own examples: {format_percent(sum(own) / len(own))}" in tiles
    assert "newcomer" not in run_page(played())
    swept = sweep_page([Run(f"seed={s}", Path(), compared(s)) for s in (0, 1)], "report.html")
    assert 'scope="col">Accuracy of a newcomer</th>' in swept


def test_scores_that_are_no_numbers_are_compared_with_nothing() -> None:
    result = compared()
    # Of a regression, whose losses may be infinite.
    scores = [msgspec.structs.replace(s, federated_accuracy=None, alone_accuracy=None) for s in result.scores]
    scores[0] = msgspec.structs.replace(scores[0], federated_loss=None)
    html = learning.scores(msgspec.structs.replace(result, scores=scores))
    assert f"of {len(scores) - 1}" in html


def test_a_model_that_has_diverged_leaves_the_axis_to_the_others() -> None:
    figure = Figure()
    axes = figure.add_subplot()
    for ends in ((5.0, 1.0, 0.9), (5.0, 1e7, 1e12)):
        curves.line(axes, [curves.Point(x, y, y, y) for x, y in enumerate(ends)], "laconic", "-", "")
    curves.losses_axis(axes)
    bottom, top = axes.get_ylim()
    assert bottom < 0.9
    assert 5.0 < top < 1e3
    assert all(drawn.get_clip_on() for drawn in axes.lines)


def test_a_regressions_page_shows_losses_in_the_place_of_accuracies() -> None:
    result = compared()
    rounds = [msgspec.structs.replace(r, accuracy=None) for r in result.rounds]
    html = learning.qualities(msgspec.structs.replace(result, rounds=rounds))
    assert "<h2>Loss by bytes</h2>" in html
    assert "<h2>Accuracy" not in html


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 300), st.integers(1, 4))
def test_few_rounds_are_kept_of_many_the_first_and_the_last_among_them(count: int, devices: int) -> None:
    steps = Steps()
    for number in range(1, count + 1):
        steps.open(number, 10.0 * number)
        for device in range(devices):
            steps.add(10.0 * number + device, str(device), "training")
        steps.close()
        # What a device says when the round is closed belongs to it still.
        steps.add(10.0 * number + 9, "0", "committed")
    kept = sorted({row.round for row in steps.rows})
    assert kept[0] == 1
    assert kept[-1] == count
    assert min(count, MOST_ROUNDS // 2) <= len(kept) <= MOST_ROUNDS + 1
    for number in kept:
        rows = [row for row in steps.rows if row.round == number]
        assert [row.seconds for row in rows] == [*map(float, range(devices)), 9.0]


def test_a_sweep_over_seeds_has_means_and_ranges() -> None:
    runs = [
        Run(f"seed={s},data.division={d}", Path(), msgspec.structs.replace(compared(s), digest=d))
        for d in ("uniform", "own_class")
        for s in (0, 1)
    ]
    html = sweep_page(runs, "report.html")
    whole(html)
    (uniform, own_class) = groups(runs)
    assert [(c.label, len(c.runs)) for c in (uniform, own_class)] == [
        ("data.division=uniform", 2),
        ("data.division=own_class", 2),
    ]
    joules = [r.totals.work_j for r in uniform.runs]
    assert f"<td>{format_joules(sum(joules) / 2)}<br>" in html
    assert html.count("<h2>Runs</h2>") == 1
    own = [[row.alone_accuracy or 0.0 for row in compared(s).scores] for s in (0, 1)]
    means = [sum(values) / len(values) for values in own]
    assert 'scope="col">Own: alone</th>' in html
    assert f"<td>{format_percent(sum(means) / 2)}<br>" in html


def test_joules_in_keys_are_of_one_device_as_bars_are() -> None:
    result = run(tiny(end__rounds=1, devices__phone__count=0))
    html = run_page(result)
    for title, parts in (("Where energy went", figures.PARTS), ("What work became", figures.OUTCOMES)):
        card = html.partition(f"<h2>{title}</h2>")[2].partition("</figure>")[0]
        axes = Figure().add_subplot()
        figures.stacked(result, parts)(axes)
        bars = {
            c.get_label(): c.patches[0].get_width() for c in axes.containers if isinstance(c, BarContainer)
        }
        shown = dict(re.findall(r"</svg>([^<]+) <b>([^<]+)</b>", card))
        assert shown
        for words, joules in shown.items():
            assert joules == format_joules(bars.get(words, 0.0))
        assert "Joules of one device" in card
    assert "Dead: off at the end" in html


@pytest.mark.parametrize("phones", [0, 3])
@pytest.mark.parametrize("committed", [0, 7])
def test_every_row_of_the_page_is_full(phones: int, committed: int) -> None:
    result = run(tiny(end__rounds=1, devices__phone__count=phones))
    totals = msgspec.structs.replace(result.totals, committed=committed)
    html = run_page(msgspec.structs.replace(result, totals=totals))
    whole(html)
    rows = html.split('<div class="pair">')[1:]
    assert len(rows) >= 4
    for row in rows:
        assert len(re.findall('<figure class="card">.*?</figure>', row, re.DOTALL)) == 2
    for wide in re.findall('<figure class="card alone">.*?</figure>', html, re.DOTALL):
        assert wide.count('<div class="wide whole"><svg') == wide.count('<div class="narrow whole"><svg')
        if "Who took part" not in wide:
            assert wide.count('<div class="wide whole"><svg') == 1


def test_names_break_between_words_alone() -> None:
    swept = [Run(f"coordinator.gate.threshold={i},data.alpha=1", Path(), played()) for i in range(2)]
    html = sweep_page(swept, "report.html").partition("</style>")[2]
    assert html.count('<span class="name">gate.threshold=0</span>') == 2
    assert "anywhere" not in html
    assert "coordinator.<wbr>gate.<wbr>threshold" in run_page(played())


def test_names_of_runs_are_short_and_whole() -> None:
    swept = [
        "coordinator.gate.threshold=0.0,seed=0,end.rounds=2",
        "coordinator.gate.threshold=0.1,seed=0,end.rounds=2",
    ]
    assert labels.short(swept) == (["gate.threshold=0.0", "gate.threshold=0.1"], ["seed=0", "end.rounds=2"])
    assert labels.short(["a.b.c=1,d.b.c=1", "a.b.c=1,d.b.c=2"]) == (["d.b.c=1", "d.b.c=2"], ["a.b.c=1"])
    assert labels.short([""]) == ([""], [])
    assert labels.short(["a.b.c=1"]) == (["b.c=1"], [])


def costing(accuracies: list[float], bytes_up: int) -> Result:
    """A run whose versions have these accuracies, an hour and so many bytes apart."""
    first = played().rounds[0]
    rows = [
        msgspec.structs.replace(
            first, round=i, version=i, accuracy=a, hours=float(i), bytes_up=i * bytes_up, bytes_down=0
        )
        for i, a in enumerate(accuracies)
    ]
    totals = msgspec.structs.replace(
        played().totals, accuracy=accuracies[-1], best_accuracy=max(accuracies), devices=10
    )
    return msgspec.structs.replace(played(), rounds=rows, totals=totals)


def test_a_sweep_says_which_settings_are_as_good_as_the_best_and_which_of_them_is_cheapest() -> None:
    dear = [costing([0.1, 0.80, 0.90], 1000), costing([0.1, 0.85, 0.88], 1000)]
    cheap = [costing([0.1, 0.60, 0.885, 0.889], 100)] * 2
    bad = [costing([0.1, 0.2, 0.3], 1)] * 2
    settings = [Curve("dear", dear), Curve("cheap", cheap), Curve("bad", bad)]
    found = choosing.choices(settings)
    assert found is not None
    assert [row.as_good for row in found.rows] == [True, True, False]
    assert found.goal == 0.88
    assert found.best.label == "dear"
    assert found.spread
    (dear_price, cheap_price, nothing) = (row.price for row in found.rows)
    assert dear_price is not None
    assert dear_price[:3] == (2.0, 2.0, 200.0)
    assert cheap_price is not None
    assert cheap_price[:3] == (2.0, 2.0, 20.0)
    assert nothing is None
    thrifty = found.least(lambda p: p.bytes_each)
    assert thrifty is not None
    assert thrifty.label == "cheap"
    assert choosing.choices(settings[:1]) is None
    runs = [
        Run(f"seed={i},coordinator.rounds.share={c.label}", Path(), r)
        for c in settings
        for i, r in enumerate(c.runs)
    ]
    html = sweep_page(runs, "report.html")
    assert "2 of 3 settings are as good as the best" in html
    assert "the fewest bytes: “rounds.share=cheap”" in html
    assert "One seed" not in html
    assert "One seed" in sweep_page(runs[::2], "report.html")


@pytest.mark.parametrize("cost", curves.COSTS, ids=lambda cost: cost.title)
def test_a_mean_over_seeds_ends_at_the_mean_of_their_ends_though_one_was_silent(cost: curves.Cost) -> None:
    loud = costing([0.1, 0.5, 0.6, 0.7], 1000)
    silent = costing([0.1, 0.3], 1000)
    axes = Figure().add_subplot()
    curves.quality(cost, [Curve("both", [loud, silent])])(axes)
    (line,) = axes.get_lines()
    x, y = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
    assert y.tolist() == pytest.approx([0.1, 0.4, 0.45, 0.5])
    assert (np.diff(x) >= 0).all()
    if cost.label == "Round":
        assert x.tolist() == [0, 1, 2, 3]
    if cost.label == "All devices, up plus down":
        assert x[-1] == (3000 + 1000) / 2
    band = axes.collections[0].get_paths()[0].get_extents()
    assert (band.y0, band.y1) == pytest.approx((0.1, 0.7))


def test_bytes_that_are_far_apart_have_a_logarithmic_axis() -> None:
    def drawn(least: int) -> Axes:
        axes = Figure(figsize=(7, 4)).add_subplot()
        settings = [Curve("dear", [costing([0.1, 0.5, 0.9], 1_000_000)])]
        settings.append(Curve("cheap", [costing([0.1, 0.5, 0.9], least)]))
        curves.quality(curves.COSTS[2], settings)(axes)
        return axes

    assert drawn(100_000).get_xscale() == "linear"
    axes = drawn(10_000)
    assert axes.get_xscale() == "log"
    left, right = np.log(axes.get_xlim())
    for line in axes.get_lines():
        x = np.log(np.asarray(line.get_xdata()))
        assert left <= x[0] < x[-1] <= right
        assert x[-1] - x[0] > 0.1 * (right - left)
    axes = Figure().add_subplot()
    curves.quality(
        curves.COSTS[0], [Curve("a", [costing([0.1] * 50, 1)]), Curve("b", [costing([0.1] * 2, 1)])]
    )(axes)
    assert axes.get_xscale() == "linear"


def test_losses_are_the_better_the_smaller_they_are() -> None:
    def losing(loss: float) -> Result:
        r = costing([0.0, 0.0], 1)
        rows = [
            msgspec.structs.replace(x, accuracy=None, loss=y)
            for x, y in zip(r.rounds, (9.0, loss), strict=True)
        ]
        totals = msgspec.structs.replace(r.totals, accuracy=None, best_accuracy=None, loss=loss)
        return msgspec.structs.replace(r, rounds=rows, totals=totals)

    found = choosing.choices(
        [Curve("a", [losing(2.0)]), Curve("b", [losing(1.0)]), Curve("c", [losing(1.009)])]
    )
    assert found is not None
    assert [row.as_good for row in found.rows] == [False, True, True]
    assert found.goal == 1.009


def test_a_page_says_what_a_device_pays_in_a_round_and_of_a_long_run_in_a_day() -> None:
    result = played()
    short = costs.table(result)
    assert "Bytes a round" in short
    assert "Bytes a day" not in short
    long = msgspec.structs.replace(result, totals=msgspec.structs.replace(result.totals, hours=48.0))
    html = costs.table(long)
    phones = [d for d in result.devices if d.kind == "phone"]
    bill = sum(d.ip_bytes_up + d.ip_bytes_down for d in phones) / len(phones) / 2 * 30
    assert f"<td>{format_bytes(bill)}</td>" in html
    assert "<td>mains</td>" in html
    assert "On the bill: all that went up and down" in html
    assert "On the bill" not in short
    assert html in run_page(long)


@pytest.mark.parametrize(("up", "down"), [(1_000_000, 10), (10, 1_000_000)])
def test_the_longest_bar_fits_whether_it_is_up_or_down(up: int, down: int) -> None:
    devices = [msgspec.structs.replace(d, bytes_up=up, bytes_down=down) for d in played().devices]
    axes = Figure().add_subplot()
    figures.bytes_by_class(msgspec.structs.replace(played(), devices=devices))(axes)
    assert axes.get_xlim()[1] == pytest.approx(1_200_000)
