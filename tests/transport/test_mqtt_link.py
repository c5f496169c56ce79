"""The MQTT link against a real mosquitto: reconnection, wills, bytes, limits, redelivery, numbers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from counting_proxy import CountingProxy
from mosquitto import Mosquitto, free_port
from scenes import play

from laconic.errors import ConfigError, LimitExceeded
from laconic.node import Connected, Note, Received, Send, Started, Subscribe, Will
from laconic.protocol import topics
from laconic.storage import MemoryStore
from laconic.transport.driver import Driver
from laconic.transport.link import LinkDown, LinkEvent, LinkUp, Message
from laconic.transport.mqtt import Address, MqttLink

pytestmark = pytest.mark.usefixtures("impatient")


@contextlib.asynccontextmanager
async def connected(
    port: int, name: str, *, will: Will | None = None, persistent: bool = False, **options: Any
) -> AsyncIterator[MqttLink]:
    link = MqttLink(Address("127.0.0.1", port, **options), name, persistent=persistent)
    await link.open(will)
    try:
        assert isinstance(await link.next_event(), LinkUp)
        yield link
    finally:
        await link.close()


async def until(link: MqttLink, kind: type[LinkEvent]) -> LinkEvent:
    """The next event of a kind; others before it are let go."""
    while not isinstance(event := await link.next_event(), kind):
        pass
    return event


async def subscribed(link: MqttLink, *filters: str) -> None:
    """Subscribe, and know that the broker has heard: an own message comes back."""
    link.subscribe((*filters, f"sync/{id(link)}"))
    while True:
        link.publish(f"sync/{id(link)}", b"", qos=0, retain=False)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                event = await until(link, Message)
                assert isinstance(event, Message)
                if event.topic.startswith("sync/"):
                    return


@pytest.mark.broker
def test_messages_arrive_whole_in_order_and_retained_ones_later(broker: Mosquitto) -> None:
    async def scene() -> None:
        async with connected(broker.port, "a") as a, connected(broker.port, "b") as b:
            await subscribed(b, "t/#")
            bodies = [os.urandom(size) for size in (0, 1, 100, 48 * 1024, 65_536)]
            for i, body in enumerate(bodies):
                a.publish(f"t/{i}", body, qos=1, retain=True)
            for i, body in enumerate(bodies):
                event = await until(b, Message)
                assert isinstance(event, Message)
                assert (event.topic, event.payload) == (f"t/{i}", body)
                b.acknowledge(event.receipt)
            async with connected(broker.port, "c") as c:
                c.subscribe(("t/2",))
                late = await until(c, Message)
                assert isinstance(late, Message)
                assert late.payload == bodies[2]

    play(scene())


@pytest.mark.broker
def test_a_link_comes_back_after_the_broker_was_killed(broker: Mosquitto) -> None:
    async def scene() -> None:
        async with connected(broker.port, "a") as a:
            await subscribed(a, "t")
            broker.kill()
            assert isinstance(await until(a, LinkDown), LinkDown)
            a.publish("t", b"dropped", qos=1, retain=False)
            a.subscribe(("dropped",))
            await asyncio.sleep(0.2)
            broker.start()
            await until(a, LinkUp)
            await subscribed(a, "t")
            a.publish("t", b"heard", qos=1, retain=False)
            event = await until(a, Message)
            assert isinstance(event, Message)
            assert event.payload == b"heard", "what was said while there was no connection is dropped"

    play(scene())


@pytest.mark.broker
def test_a_link_to_nobody_goes_on_trying_until_somebody_is_there(mosquitto_path: str, tmp_path: Path) -> None:
    late = Mosquitto(mosquitto_path, tmp_path)

    async def scene() -> None:
        link = MqttLink(Address("127.0.0.1", late.port), "a")
        await link.open(None)
        for _ in range(2):
            event = await link.next_event()
            assert isinstance(event, LinkDown)
            assert str(late.port) in event.why
        await asyncio.to_thread(late.start)
        await until(link, LinkUp)
        await link.close()

    try:
        play(scene())
    finally:
        late.kill()


@pytest.mark.broker
def test_a_cut_connection_is_noticed_and_made_again(broker: Mosquitto) -> None:
    async def scene() -> None:
        async with CountingProxy(broker.port) as proxy, connected(proxy.port, "a") as a:
            for _ in range(3):
                proxy.cut()
                await until(a, LinkDown)
                await until(a, LinkUp)
            await subscribed(a, "x")

    play(scene())


VANISHING = textwrap.dedent(
    """
    import asyncio, sys
    from laconic.node import Will
    from laconic.transport.mqtt import Address, MqttLink

    async def main():
        link = MqttLink(Address("127.0.0.1", int(sys.argv[1])), "doomed")
        await link.open(Will("wills/doomed", b"gone", retain=True))
        print(type(await link.next_event()).__name__, flush=True)
        await asyncio.sleep(60)

    asyncio.run(main())
    """
)


@pytest.mark.broker
def test_the_will_of_a_killed_client_and_of_one_that_leaves_is_published_once(broker: Mosquitto) -> None:
    async def scene() -> None:
        async with connected(broker.port, "watcher") as watcher:
            await subscribed(watcher, "wills/#")
            async with connected(broker.port, "polite", will=Will("wills/polite", b"gone")):
                pass
            doomed = await asyncio.create_subprocess_exec(
                sys.executable, "-c", VANISHING, str(broker.port), stdout=asyncio.subprocess.PIPE
            )
            assert doomed.stdout is not None
            assert await doomed.stdout.readline() == b"LinkUp\n"
            doomed.send_signal(signal.SIGKILL)
            await doomed.wait()
            for name in ("polite", "doomed"):
                event = await until(watcher, Message)
                assert isinstance(event, Message)
                assert (event.topic, event.payload) == (f"wills/{name}", b"gone")
            await subscribed(watcher, "nothing")
            assert not watcher.pending()

    play(scene())


@pytest.mark.broker
def test_the_kernel_counts_what_a_proxy_sees(broker: Mosquitto) -> None:
    async def scene() -> None:
        async with CountingProxy(broker.port) as proxy, connected(proxy.port, "a") as a:
            await subscribed(a, "t")
            for i in range(40):
                a.publish("t", os.urandom(1000 * (i % 7)), qos=1, retain=False)
            for _ in range(40):
                event = await until(a, Message)
                assert isinstance(event, Message)
                a.acknowledge(event.receipt)
            await asyncio.sleep(0.3)
            counted = a.wire_bytes()
            assert counted.measured == (sys.platform == "linux")
            assert proxy.up > 110_000
            assert counted.up == pytest.approx(proxy.up, rel=0.01)
            assert counted.down == pytest.approx(proxy.down, rel=0.01)
            proxy.cut()
            await until(a, LinkUp)
            await subscribed(a, "t")
            await asyncio.sleep(0.3)
            again = a.wire_bytes()
            assert again.up > counted.up, "a new connection is added to the old ones"
            assert again.up == pytest.approx(proxy.up, rel=0.01)
            assert again.down == pytest.approx(proxy.down, rel=0.01)

    play(scene())


@pytest.mark.broker
def test_a_packet_over_the_limit_is_refused_before_it_is_sent(broker: Mosquitto) -> None:
    async def scene() -> None:
        async with connected(broker.port, "a", max_packet_bytes=1000) as a:
            a.publish("t", bytes(1000 - 10), qos=1, retain=False)
            with pytest.raises(LimitExceeded) as caught:
                a.publish("t", bytes(1000 - 9), qos=1, retain=False)
            assert caught.value.limit == 1000

    play(scene())


@pytest.mark.broker
def test_the_driver_drops_such_a_packet_with_a_note_and_goes_on(broker: Mosquitto) -> None:
    class Talker:
        will = None
        wake_at = None

        def handle(self, event: Any, now: float) -> list[Any]:
            match event:
                case Started() | Received():
                    return []
                case Connected():
                    return [Subscribe(("t",)), Send("t", bytes(2000)), Send("t", b"small")]
            return []

    async def scene() -> None:
        notes: list[Note] = []
        got = asyncio.Event()

        class Listener(Talker):
            def handle(self, event: Any, now: float) -> list[Any]:
                if isinstance(event, Received):
                    assert event.payload == b"small"
                    got.set()
                return super().handle(event, now)

        link = MqttLink(Address("127.0.0.1", broker.port, max_packet_bytes=1000), "a")
        driver = Driver(Listener(), link, MemoryStore(), observe=lambda n, now: notes.append(n))
        running = asyncio.ensure_future(driver.run())
        await got.wait()
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        refused = [n for n in notes if n.kind == "unsendable"]
        assert [n.fields["topic"] for n in refused] == ["t"]

    play(scene())


@pytest.mark.broker
def test_a_persistent_session_is_given_again_what_it_did_not_acknowledge(broker: Mosquitto) -> None:
    async def scene() -> None:
        async with CountingProxy(broker.port) as proxy, connected(broker.port, "sender") as sender:
            first = MqttLink(Address("127.0.0.1", proxy.port), "keeper", persistent=True)
            await first.open(None)
            await until(first, LinkUp)
            await subscribed(first, "t")
            for body in (b"1", b"2", b"3"):
                sender.publish("t", body, qos=1, retain=False)
            for body in (b"1", b"2", b"3"):
                event = await until(first, Message)
                assert isinstance(event, Message)
                assert event.payload == body
                if body == b"1":
                    first.acknowledge(event.receipt)
            await subscribed(first, "t")  # by then the broker has the acknowledgement
            proxy.cut()
            await until(first, LinkUp)
            for body in (b"2", b"3"):
                event = await until(first, Message)
                assert isinstance(event, Message)
                assert event.payload == body, "the acknowledged one does not come again, the others do"
                first.acknowledge(event.receipt)
            await first.close()

    play(scene())


@pytest.mark.broker
def test_a_clean_session_is_given_nothing_again(broker: Mosquitto) -> None:
    async def scene() -> None:
        async with (
            CountingProxy(broker.port) as proxy,
            connected(broker.port, "sender") as sender,
            connected(proxy.port, "forgetful") as link,
        ):
            await subscribed(link, "t")
            sender.publish("t", b"once", qos=1, retain=False)
            event = await until(link, Message)
            proxy.cut()
            await until(link, LinkUp)
            assert isinstance(event, Message)
            link.acknowledge(event.receipt)  # of a connection that is gone: ignored
            await subscribed(link, "u")
            sender.publish("u", b"new", qos=1, retain=False)
            event = await until(link, Message)
            assert isinstance(event, Message)
            assert event.payload == b"new"

    play(scene())


@pytest.mark.broker
def test_two_hundred_links_in_one_process(broker: Mosquitto) -> None:
    async def scene() -> None:
        async with contextlib.AsyncExitStack() as stack:
            links = await asyncio.gather(
                *(stack.enter_async_context(connected(broker.port, f"d{i}")) for i in range(200))
            )
            await asyncio.gather(*(subscribed(link, "all", f"own/{i}") for i, link in enumerate(links)))
            links[0].publish("all", b"to everybody", qos=1, retain=False)
            for i in range(200):
                links[i - 1].publish(f"own/{i}", str(i).encode(), qos=1, retain=False)

            async def two(link: MqttLink) -> set[bytes]:
                found: set[bytes] = set()
                while len(found) < 2:
                    event = await until(link, Message)
                    assert isinstance(event, Message)
                    link.acknowledge(event.receipt)
                    if not event.topic.startswith("sync/"):
                        found.add(event.payload)
                return found

            found = await asyncio.gather(*(two(link) for link in links))
            assert found == [{b"to everybody", str(i).encode()} for i in range(200)]

    play(scene())


@pytest.mark.broker
def test_a_wrong_password_is_reported_and_not_taken_for_a_connection(
    mosquitto_path: str, tmp_path: Path
) -> None:
    closed = Mosquitto(mosquitto_path, tmp_path)
    closed.configuration.write_text(
        closed.configuration.read_text().replace("allow_anonymous true", "allow_anonymous false")
    )
    closed.start()

    async def scene() -> None:
        link = MqttLink(Address("127.0.0.1", closed.port, username="a", password="b"), "a")
        await link.open(None)
        event = await link.next_event()
        assert isinstance(event, LinkDown)
        assert "refused" in event.why
        link.publish("t", b"x", qos=1, retain=False)
        await link.close()

    try:
        play(scene())
    finally:
        closed.kill()


PAGE = Path(__file__).resolve().parents[2] / "docs" / "spec" / "protocol.md"


@pytest.mark.broker
def test_the_access_list_of_the_specification_keeps_a_device_to_its_own_topics(
    mosquitto_path: str, tmp_path: Path
) -> None:
    block = re.search(r"```\n(  pattern write .*?)\n  ```", PAGE.read_text(), re.DOTALL)
    assert block
    (tmp_path / "acl").write_text(textwrap.dedent(block[1]) + "\n")
    guarded = Mosquitto(mosquitto_path, tmp_path, options=f"acl_file {tmp_path / 'acl'}")
    guarded.start()

    async def scene() -> None:
        async with (
            connected(guarded.port, "c", username="coordinator") as coordinator,
            connected(guarded.port, "d0", username="d0", will=Will(topics.state("d1"), b"forged")) as d0,
            connected(guarded.port, "d1", username="d1") as d1,
        ):
            coordinator.subscribe((topics.EVERY_UP,))
            d0.subscribe((topics.ack("d0"), topics.ack("d1"), topics.cohort_task("default"), "#"))
            d1.subscribe((topics.ack("d1"),))
            model = topics.manifest("0123456789abcdef")
            d1.publish(topics.cohort_task("default"), b"forged", qos=1, retain=True)
            d1.publish(model, b"forged", qos=1, retain=True)
            d1.publish(topics.state("d0"), b"forged", qos=1, retain=True)
            d1.publish(topics.ack("d0"), b"forged", qos=1, retain=False)
            d1.publish(topics.state("d1"), b"own", qos=1, retain=True)
            event = await until(coordinator, Message)
            assert isinstance(event, Message)
            assert (event.topic, event.payload) == (topics.state("d1"), b"own")
            for topic in (topics.ack("d1"), topics.cohort_task("default"), topics.ack("d0")):
                coordinator.publish(topic, b"true", qos=1, retain=False)
            for expected in (topics.cohort_task("default"), topics.ack("d0")):
                event = await until(d0, Message)
                assert isinstance(event, Message)
                assert (event.topic, event.payload) == (expected, b"true")
            event = await until(d1, Message)
            assert isinstance(event, Message)
            assert (event.topic, event.payload) == (topics.ack("d1"), b"true")
            d0.subscribe((model,))
            coordinator.publish(model, b"true", qos=1, retain=True)
            event = await until(d0, Message)
            assert isinstance(event, Message)
            assert (event.topic, event.payload) == (model, b"true")

    try:
        play(scene())
    finally:
        guarded.kill()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("mqtt://h", ("h", 1883, False, None, None)),
        ("mqtts://h", ("h", 8883, True, None, None)),
        ("mqtt://u:p%40@h:99", ("h", 99, False, "u", "p@")),
        ("mqtt://[::1]:1883", ("::1", 1883, False, None, None)),
    ],
)
def test_addresses(url: str, expected: tuple[object, ...]) -> None:
    a = Address.parse(url)
    assert (a.host, a.port, a.tls, a.username, a.password) == expected


@pytest.mark.parametrize("url", ["", "h", "http://h", "mqtt://", "mqtt://h:port", "mqtt://h:99999", "mqtt:h"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        Address.parse(url)


def test_a_closed_link_to_nobody_leaves_nothing_behind() -> None:
    async def scene() -> None:
        link = MqttLink(Address("127.0.0.1", free_port()), "a")
        await link.open(None)
        await link.next_event()
        await link.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert {t for t in others if not t.done()} <= {t for t in others if "bounded" in repr(t)}

    play(scene())


@pytest.mark.broker
@pytest.mark.skipif(
    not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the kernel of this system has no such limit"
)
def test_what_nobody_confirms_breaks_the_connection_within_a_minute(broker: Mosquitto) -> None:
    """Recorded: with a keep-alive of 900 s an update into a half-open connection waited for 22 minutes."""

    async def scene() -> None:
        async with connected(broker.port, "d0") as link:
            sock = link._connection._transport.get_extra_info("socket")  # type: ignore[union-attr]
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 60_000

    play(scene())
