"""Laws of topic names: what is built is read back, and nothing else is read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic.errors import ConfigError, Malformed
from laconic.protocol import topics
from laconic.transport.broker import matches

NAMES = st.text("ABCXYZabcxyz0189_-", min_size=1, max_size=64)
HASHES = st.text("0123456789abcdef", min_size=16, max_size=16)
INDICES = st.integers(0, 999_999)

WORDS = ["laconic", "v1", "d", "g", "m", "up", "dn", "u", "fin", "task", "0"]
BUILT = st.one_of(
    st.builds(lambda d: (topics.state(d), topics.State(d)), NAMES),
    st.builds(lambda d: (topics.skip(d), topics.Skip(d)), NAMES),
    st.builds(lambda d: (topics.telemetry(d), topics.Telemetry(d)), NAMES),
    st.builds(lambda d, u: (topics.update_fin(d, u), topics.UpdateFin(d, u)), NAMES, HASHES),
    st.builds(
        lambda d, u, i: (topics.update_chunk(d, u, i), topics.UpdateChunk(d, u, i)), NAMES, HASHES, INDICES
    ),
    st.builds(lambda d: (topics.device_task(d), topics.DeviceTask(d)), NAMES),
    st.builds(lambda d: (topics.ack(d), topics.Ack(d)), NAMES),
    st.builds(lambda c: (topics.cohort_task(c), topics.CohortTask(c)), NAMES),
    st.builds(lambda c: (topics.cohort_model(c), topics.CohortModel(c)), NAMES),
    st.builds(lambda m: (topics.manifest(m), topics.ManifestOf(m)), HASHES),
    st.builds(lambda b, i: (topics.blob_chunk(b, i), topics.BlobChunk(b, i)), HASHES, INDICES),
)


def rebuild(address: topics.Address) -> str:
    """The one topic of an address."""
    match address:
        case topics.State(d):
            return topics.state(d)
        case topics.Skip(d):
            return topics.skip(d)
        case topics.Telemetry(d):
            return topics.telemetry(d)
        case topics.UpdateFin(d, u):
            return topics.update_fin(d, u)
        case topics.UpdateChunk(d, u, i):
            return topics.update_chunk(d, u, i)
        case topics.DeviceTask(d):
            return topics.device_task(d)
        case topics.Ack(d):
            return topics.ack(d)
        case topics.CohortTask(c):
            return topics.cohort_task(c)
        case topics.CohortModel(c):
            return topics.cohort_model(c)
        case topics.ManifestOf(m):
            return topics.manifest(m)
        case topics.BlobChunk(b, i):
            return topics.blob_chunk(b, i)


@given(BUILT)
def test_what_is_built_is_read_back(built: tuple[str, topics.Address]) -> None:
    topic, address = built
    assert topics.parse(topic) == address
    assert len(topic) < 200


@given(BUILT, st.data())
def test_a_topic_that_differs_in_one_place_is_another_address_or_none(
    built: tuple[str, topics.Address], data: st.DataObject
) -> None:
    topic, address = built
    at = data.draw(st.integers(0, len(topic) - 1))
    by = data.draw(st.sampled_from(["", "/", "x", "0", "-1", "+", "#", "\n", "\0", "é", "٣"]))
    changed = topic[:at] + by + topic[at + 1 :]
    try:
        read = topics.parse(changed)
    except Malformed:
        return
    assert rebuild(read) == changed
    assert changed == topic or read != address


@given(st.text(max_size=200) | st.lists(st.sampled_from(WORDS)).map("/".join))
def test_any_text_is_an_address_or_malformed(text: str) -> None:
    try:
        assert rebuild(topics.parse(text)) == text
    except Malformed as error:
        said = str(error)
        assert len(said) < 400
    assert len(topics.sender(text)) <= 64


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "laconic/v2/d/a/up/state",
        "laconic/v1/d/a b/up/state",
        "laconic/v1/d//up/state",
        "laconic/v1/d/a/up/state/",
        "laconic/v1/d/a/up/u/0123456789ABCDEF/fin",
        "laconic/v1/d/a/up/u/0123456789abcdef/01",
        "laconic/v1/d/a/up/u/0123456789abcdef/-1",
        "laconic/v1/d/a/up/u/0123456789abcdef/1000000",
        "laconic/v1/d/a/up/u/0123456789abcdef\n/1",
        "laconic/v1/d/a\n/up/state",
        "laconic/v1/d/" + "a" * 65 + "/up/state",
        "laconic/v1/m/0123456789abcde/man",
        "laconic/v1/m/0123456789abcdef/²",
        "laconic/v1/g/+/task",
        "$SYS/broker/uptime",
    ],
)
def test_a_topic_of_no_one_is_refused(topic: str) -> None:
    with pytest.raises(Malformed):
        topics.parse(topic)


@given(BUILT)
def test_the_coordinator_hears_all_that_devices_say_and_nothing_else(
    built: tuple[str, topics.Address],
) -> None:
    topic, address = built
    upwards = topics.State | topics.Skip | topics.Telemetry | topics.UpdateFin | topics.UpdateChunk
    assert matches(topics.EVERY_UP, topic) == isinstance(address, upwards)


@given(NAMES)
def test_the_sender_is_the_device_in_the_topic(name: str) -> None:
    assert topics.sender(topics.skip(name)) == name
    assert topics.sender(topics.cohort_task(name)) == ""


@given(st.text(max_size=70))
def test_a_name_is_good_exactly_when_its_topics_can_be_read(name: str) -> None:
    try:
        good = topics.check_name(name, "device") == name
    except ConfigError:
        good = False
    try:
        read = topics.parse(topics.state(name)) == topics.State(name)
    except Malformed:
        read = False
    assert good == read
