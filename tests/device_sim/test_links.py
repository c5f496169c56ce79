"""Laws of links, shared media, bytes on the wire, and traces."""

from __future__ import annotations

from functools import partial
from math import inf
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.device_sim import chance
from laconic.device_sim.computing import Failures, speed_by_batch, speed_by_flops
from laconic.device_sim.links import Connection, Lane
from laconic.device_sim.medium import Share
from laconic.device_sim.signals import Constant, Recorded
from laconic.device_sim.traces import bandwidth
from laconic.device_sim.wire import Tls, Wire, on_ip
from laconic.errors import ConfigError
from laconic.node import Will
from laconic.profiles import board, profiles
from laconic.transport import packets

topics = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=60)
PLAIN = Wire(Tls.NONE)


@settings(max_examples=60)
@given(topics, st.integers(0, 20_000), st.integers(0, 1))
def test_a_message_weighs_what_its_packets_do(topic: str, size: int, qos: int) -> None:
    packet = packets.publish(topic, bytes(size), retain=False, identifier=qos and 7)
    answer = packets.acknowledge(7) if qos else b""
    assert PLAIN.publish(topic, size, qos=qos) == (len(packet), len(answer))


@settings(max_examples=60)
@given(st.lists(topics, min_size=1, max_size=5), st.binary(max_size=300))
def test_all_other_packets_weigh_what_they_do(filters: list[str], payload: bytes) -> None:
    assert PLAIN.subscribe(filters).forth == len(packets.subscribe(filters, 1))
    assert PLAIN.unsubscribe(filters).forth == len(packets.unsubscribe(filters, 1))
    will = Will(filters[0], payload)
    connect = packets.connect("d1", clean=True, keep_alive_s=60, username="u", password="pw", will=will)
    assert PLAIN.connect("d1", will, username="u", password=2) == (len(connect), 4)
    assert PLAIN.ping() == (len(packets.PING), 2)


@pytest.mark.parametrize(("size", "sealed"), [(0, 0), (1, 23), (16_384, 16_406), (16_385, 16_429)])
def test_a_record_adds_what_tls_says(size: int, sealed: int) -> None:
    assert Wire(Tls.MUTUAL).sealed(size) == sealed


def test_bytes_on_ip_are_what_a_carrier_bills() -> None:
    up, acks = on_ip(10_000_000)
    assert up / 10_000_000 - 1 == pytest.approx(profiles().wire.ip_tcp_header_bytes.value / 1448, rel=1e-3)
    assert 0.01 < acks / 10_000_000 < 0.02
    assert on_ip(1) == (53, 52)
    assert on_ip(0) == (0, 0)


def test_a_ping_more_often_than_every_five_seconds_is_refused() -> None:
    with pytest.raises(ConfigError):
        Wire(keep_alive_s=1.0)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(1, 10**6), st.floats(0, 5)), max_size=20),
    st.floats(0, 1),
    st.floats(0, 0.5),
)
def test_no_message_overtakes_another(sent: list[tuple[int, float]], jitter: float, loss: float) -> None:
    lane, c, t, last = Lane(3), Connection(jitter_s=jitter, loss=loss), 0.0, 0.0
    for size, wait in sent:
        passage = lane.carry(c, size, t, c.up_bytes_per_s, None)
        assert passage.arrives >= max(last, passage.passed + c.latency_s)
        assert passage.passed >= t + size / c.up_bytes_per_s * (1 - 1e-12)
        last, t = passage.arrives, passage.passed + wait


@pytest.mark.parametrize("loss", [0.01, 0.1, 0.5])
def test_as_much_is_lost_as_was_said_however_it_is_cut(loss: float) -> None:
    c = Connection(loss=loss)
    for size, count in ((1448, 20_000), (1448 * 500, 40)):
        lane = Lane(chance.key(1, size))
        again = sum(lane.carry(c, size, 0.0, 1e9, None).again for _ in range(count))
        # A copy may be lost too: p/(1 - p) of what is sent.
        assert again / (size * count) == pytest.approx(loss / (1 - loss), rel=0.15)


@settings(max_examples=60)
@given(st.floats(0, 100), st.integers(1, 10**6))
def test_a_transfer_over_a_trace_takes_as_long_as_its_bytes_need(begin: float, size: int) -> None:
    trace = Recorded((0.0, 3.0, 4.0), (1e4, 0.0, 5e4), 10.0)
    passed = Lane(0).carry(Connection(), size, begin, 1.0, trace).passed
    t, carried = begin, 0.0
    while t < passed:
        rate, until = trace.at(t)
        carried += rate * (min(until, passed) - t)
        t = until
    assert carried == pytest.approx(size, rel=1e-6)


@pytest.mark.parametrize(
    "wrong",
    [
        {"loss": 1.0},
        {"loss": float("nan")},
        {"jitter_s": -1.0},
        {"latency_s": inf},
        {"up_bytes_per_s": 0.0},
        {"down_trace": Constant(0.0)},
    ],
)
def test_a_link_that_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        Connection(**wrong)  # type: ignore[arg-type]


# --- shared media


def shared(arrivals: list[tuple[float, str, float]], capacity: float) -> list[tuple[float, str]]:
    """When each transfer ends, driven as the world does."""
    share, now = Share(capacity), 0.0
    ended: list[tuple[float, str]] = []
    coming = sorted(arrivals)
    names: list[str] = []
    while coming or share.next_at() < inf:
        due = share.next_at()
        if coming and coming[0][0] < due:
            now, who, size = coming.pop(0)
            share.enter(who, size, partial(names.append, who), now)
        else:
            now = due
            share.finish(now)
            ended += [(now, who) for who in names]
            names.clear()
    return ended


def fluid(arrivals: list[tuple[float, str, float]], capacity: float) -> list[tuple[float, str]]:
    """The same by following every rate."""
    coming, queues, ended, t = sorted(arrivals), {}, [], 0.0  # type: ignore[var-annotated]
    while coming or queues:
        n = len(queues)
        ends = {who: t + q[0] * n / capacity for who, q in queues.items()}
        first = min(ends.values(), default=inf)
        upto = min(first, coming[0][0] if coming else inf)
        for q in queues.values():
            q[0] -= (upto - t) * capacity / n
        t = upto
        if coming and coming[0][0] <= t and first > t:
            _, who, size = coming.pop(0)
            queues.setdefault(who, []).append(size)
            continue
        who = min(ends, key=lambda w: ends[w])
        ended.append((t, who))
        queues[who].pop(0)
        if not queues[who]:
            del queues[who]
    return ended


@settings(max_examples=80)
@given(
    st.lists(
        st.tuples(st.integers(0, 100).map(float), st.sampled_from("abcd"), st.integers(1, 1000).map(float)),
        max_size=12,
    ),
)
def test_a_medium_divides_its_capacity_equally(arrivals: list[tuple[float, str, float]]) -> None:
    ours, other = shared(arrivals, 50.0), fluid(arrivals, 50.0)
    assert sorted(who for _, who in ours) == sorted(who for _, who in other)
    assert [t for t, _ in ours] == pytest.approx([t for t, _ in other], rel=1e-9, abs=1e-9)


def test_whoever_leaves_a_medium_leaves_its_share_to_the_others() -> None:
    share, ended = Share(10.0), []
    share.enter("a", 100.0, lambda: ended.append("a"), 0.0)
    share.enter("b", 100.0, lambda: ended.append("b"), 0.0)
    share.enter("b", 100.0, lambda: ended.append("b"), 1.0)
    share.leave("b", 10.0)
    assert share.next_at() == pytest.approx(15.0)
    share.finish(share.next_at())
    assert ended == ["a"]
    assert share.next_at() == inf


# --- traces


@pytest.mark.data
@pytest.mark.parametrize(("folder", "count", "mbps"), [("cooked_3gp", 80, 1.32), ("traces_oboe", 428, 2.83)])
def test_the_recorded_traces_are_read(
    shared_data: Path, tmp_path: Path, folder: str, count: int, mbps: float
) -> None:
    import tarfile

    with tarfile.open(shared_data / "traces" / "bandwidth_3g_oboe.tar.xz") as tar:
        tar.extractall(tmp_path, filter="data")
    traces = [bandwidth(path) for path in sorted((tmp_path / folder).iterdir())]
    assert len(traces) == count
    mean = sum(t.mean for t in traces) / count / 125_000
    assert mean == pytest.approx(mbps, rel=0.02)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0 1\n1 x\n", "line 2"),
        ("0 1\n1\n", "line 2"),
        ("0 1\n0 1\n", "line 2"),
        ("0 1\n1 nan\n", "line 2"),
        ("0 1\n1 -2\n", "line 2"),
        ("0 0\n1 0\n", "rate above 0"),
        ("0 1\n", "two lines"),
        ("", "two lines"),
        ("\x00\xff", "line 1"),
    ],
)
def test_a_trace_that_is_none_is_refused_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "t").write_text(text)
    with pytest.raises(ConfigError, match=said):
        bandwidth(tmp_path / "t")


@settings(max_examples=60)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_trace_or_refused(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    path = tmp_path_factory.mktemp("trace") / "t"
    path.write_bytes(raw)
    try:
        trace = bandwidth(path)
    except ConfigError:
        return
    assert 0 < trace.most < inf


# --- computing


def test_a_board_computes_as_fast_as_its_rating() -> None:
    pi = board("rpi_4b")
    assert speed_by_flops(pi, 11.889e9).sample_s == pytest.approx(4.0), "one core of four"
    assert speed_by_flops(pi, 11.889e9, cores=4, efficiency=0.5).sample_s == pytest.approx(2.0)
    assert speed_by_batch(board("phone_low"), "femnist_cnn_10", 10).sample_s == pytest.approx(0.1642)
    for wrong in (
        lambda: speed_by_flops(board("rpi_zero2w"), 1e9),
        lambda: speed_by_flops(pi, 1e9, cores=9),
        lambda: speed_by_batch(board("phone_low"), "femnist_cnn_10", 0),
        lambda: Failures(drop_out=0.7, crash=0.7),
        lambda: Failures(slow=0.0),
    ):
        with pytest.raises(ConfigError):
            wrong()


def test_a_task_that_was_not_measured_is_told_which_were() -> None:
    known = "femnist_cnn_10, celeba_cnn_10, reddit_lstm"
    with pytest.raises(ConfigError, match=f"found mnist, allowed {known}$"):
        speed_by_batch(board("phone_low"), "mnist", 10)
    with pytest.raises(ConfigError, match="found femnist_cnn_10, allowed none; give sample_s"):
        speed_by_batch(board("rpi_4b"), "femnist_cnn_10", 10)
