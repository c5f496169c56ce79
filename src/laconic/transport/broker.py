"""The rules of an MQTT broker without its sockets: topic filters, retained messages, last wills.

The in-memory link and the virtual clock's world deliver by these rules; they are what MQTT 3.1.1 says for
clean sessions (OASIS Standard, 2014: 3.1.2.5 wills, 3.3.1.3 retained messages, 4.7 topic filters).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from laconic.node import Will


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a topic filter, which may hold `+` and `#`, covers a topic (MQTT 3.1.1, section 4.7)."""
    if topic_filter == topic or not ("+" in topic_filter or "#" in topic_filter):
        return topic_filter == topic
    want, have = topic_filter.split("/"), topic.split("/")
    for i, level in enumerate(want):
        if level == "#":
            return True
        if i >= len(have) or level not in ("+", have[i]):
            return False
    return len(want) == len(have)


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message that the broker hands to one client."""

    client: str
    topic: str
    payload: bytes


@dataclass
class Broker:
    """Sessions, subscriptions and retained messages."""

    retained: dict[str, bytes] = field(default_factory=dict)
    _filters: dict[str, dict[str, None]] = field(default_factory=dict)
    _wills: dict[str, Will] = field(default_factory=dict)

    def connect(self, client: str, will: Will | None) -> None:
        """Begin a clean session; an older one under the same name is forgotten."""
        self._filters[client] = {}
        self._wills.pop(client, None)
        if will is not None:
            self._wills[client] = will

    def disconnect(self, client: str, *, politely: bool) -> list[Delivery]:
        """End a session; unless it ended politely, its will is published."""
        self._filters.pop(client, None)
        will = self._wills.pop(client, None)
        if politely or will is None:
            return []
        return self.publish(will.topic, will.payload, retain=will.retain)

    def connected(self, client: str) -> bool:
        """Whether the client has a session."""
        return client in self._filters

    def subscribe(self, client: str, filters: tuple[str, ...]) -> list[Delivery]:
        """Add subscriptions; what is retained under them is delivered."""
        self._filters[client].update(dict.fromkeys(filters))
        return [
            Delivery(client, topic, payload)
            for topic, payload in sorted(self.retained.items())
            if any(matches(f, topic) for f in filters)
        ]

    def unsubscribe(self, client: str, filters: tuple[str, ...]) -> None:
        """Drop subscriptions."""
        for f in filters:
            self._filters[client].pop(f, None)

    def publish(self, topic: str, payload: bytes, *, retain: bool) -> list[Delivery]:
        """Deliver to every subscriber, once each; a retained empty payload clears the topic."""
        if retain and payload:
            self.retained[topic] = payload
        elif retain:
            self.retained.pop(topic, None)
        return [
            Delivery(client, topic, payload)
            for client, filters in self._filters.items()
            if any(matches(f, topic) for f in filters)
        ]
