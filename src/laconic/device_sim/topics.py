"""A broker's rules at the size of a fleet: what `laconic.transport.broker.Broker` says, found by a tree.

That one compares every topic with every client's filters; here a message to one device of a hundred thousand
costs as many steps as its topic has levels.
"""

from __future__ import annotations

from collections.abc import Iterator

from laconic.node import Will
from laconic.transport.broker import Delivery


class _Level:
    """A level of topics or filters: what ends here, and the levels below by name."""

    __slots__ = ("below", "clients", "kept")

    def __init__(self) -> None:
        self.below: dict[str, _Level] = {}
        self.clients: dict[str, None] | None = None
        self.kept = False


class IndexedBroker:
    """Sessions, subscriptions and retained messages: the same messages in the same order as `Broker`."""

    def __init__(self) -> None:
        self.retained: dict[str, bytes] = {}
        self._sessions: dict[str, tuple[int, dict[str, None]]] = {}
        """By client: its place in the order of delivery, its filters."""
        self._wills: dict[str, Will] = {}
        self._filters, self._topics = _Level(), _Level()
        self._places = 0

    def connect(self, client: str, will: Will | None) -> None:
        """Begin a clean session; an older one under the same name is forgotten."""
        old = self._sessions.get(client)
        if old is None:
            self._places += 1
            self._sessions[client] = (self._places, {})
        else:
            # It keeps its place: whoever connects again without having gone has never left the order.
            self.unsubscribe(client, tuple(old[1]))
        self._wills.pop(client, None)
        if will is not None:
            self._wills[client] = will

    def disconnect(self, client: str, *, politely: bool) -> list[Delivery]:
        """End a session; unless it ended politely, its will is published."""
        if client in self._sessions:
            self.unsubscribe(client, tuple(self._sessions[client][1]))
            del self._sessions[client]
        will = self._wills.pop(client, None)
        if politely or will is None:
            return []
        return self.publish(will.topic, will.payload, retain=will.retain)

    def connected(self, client: str) -> bool:
        """Whether the client has a session."""
        return client in self._sessions

    def subscribe(self, client: str, filters: tuple[str, ...]) -> list[Delivery]:
        """Add subscriptions; what is retained under them is delivered."""
        own = self._sessions[client][1]
        for f in filters:
            own[f] = None
            level = _down(self._filters, f)
            if level.clients is None:
                level.clients = {}
            level.clients[client] = None
        found = {topic for f in filters for topic in self._under(f)}
        return [Delivery(client, topic, self.retained[topic]) for topic in sorted(found)]

    def unsubscribe(self, client: str, filters: tuple[str, ...]) -> None:
        """Drop subscriptions."""
        own = self._sessions[client][1]
        for f in filters:
            if f in own:
                del own[f]
                level = _down(self._filters, f)
                if level.clients is not None:
                    del level.clients[client]
                    if not level.clients:
                        level.clients = None
                        _prune(self._filters, f)

    def publish(self, topic: str, payload: bytes, *, retain: bool) -> list[Delivery]:
        """Deliver to every subscriber, once each; a retained empty payload clears the topic."""
        if retain and payload:
            self.retained[topic] = payload
            _down(self._topics, topic).kept = True
        elif retain and self.retained.pop(topic, None) is not None:
            _down(self._topics, topic).kept = False
            _prune(self._topics, topic)
        clients: dict[str, None] = {}
        _matching(self._filters, topic.split("/"), 0, clients)
        if len(clients) > 1:
            ordered = sorted(clients, key=lambda c: self._sessions[c][0])
            return [Delivery(client, topic, payload) for client in ordered]
        return [Delivery(client, topic, payload) for client in clients]

    def _under(self, topic_filter: str) -> Iterator[str]:
        """Retained topics that a filter covers."""
        if "+" not in topic_filter and "#" not in topic_filter:
            if topic_filter in self.retained:
                yield topic_filter
            return
        yield from _covered(self._topics, topic_filter.split("/"), 0, [])
        # A retained topic may itself be spelt like the filter.
        if topic_filter in self.retained:
            yield topic_filter


def _down(root: _Level, path: str) -> _Level:
    level = root
    for name in path.split("/"):
        following = level.below.get(name)
        if following is None:
            following = level.below[name] = _Level()
        level = following
    return level


def _prune(root: _Level, path: str) -> None:
    """Forget levels at the end of `path` in which nothing is left."""
    way, level = [], root
    for name in path.split("/"):
        way.append((level, name))
        level = level.below[name]
    while way and not (level.below or level.clients or level.kept):
        level, name = way.pop()
        del level.below[name]


def _matching(level: _Level, topic: list[str], i: int, found: dict[str, None]) -> None:
    """Clients of filters that cover a topic (MQTT 3.1.1, section 4.7)."""
    rest = level.below.get("#")
    if rest is not None and rest.clients:
        found.update(rest.clients)
    if i == len(topic):
        if level.clients:
            found.update(level.clients)
        return
    for name in {topic[i], "+"}:
        following = level.below.get(name)
        if following is not None:
            _matching(following, topic, i + 1, found)


def _covered(level: _Level, want: list[str], i: int, way: list[str]) -> Iterator[str]:
    """Topics below `level` that are kept and that a filter covers."""
    if i == len(want) or want[i] == "#":
        if level.kept:
            yield "/".join(way)
        if i == len(want):
            return
    names = list(level.below) if want[i] in ("+", "#") else [want[i]] if want[i] in level.below else []
    for name in names:
        way.append(name)
        yield from _covered(level.below[name], want, i if want[i] == "#" else i + 1, way)
        way.pop()
